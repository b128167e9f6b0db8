"""Lines of JSON that hold a trace, in both of its forms: what `traces export` writes and `import` takes."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired, TypedDict

_Version = Annotated[str, "Version of this form."]
_Metadata = Annotated[dict[str, Any], "Free-form facts; left out where there are none."]
_Source = Annotated[str, "Where it comes from; left out where that is not known."]


class StepLine(TypedDict):
    """A step of a trace."""

    i: Annotated[int, "Its number, from 0."]
    type: Annotated[str, "What kind of step it is, such as reason."]
    content: Annotated[str, "Its text."]


class TraceLine(TypedDict):
    """A trace on one line, as `traces import` takes it."""

    trace_version: _Version
    prompt: Annotated[str, "The question."]
    steps: Annotated[list[StepLine], "The reasoning, in order."]
    final_answer: Annotated[str, "The answer."]
    metadata: NotRequired[_Metadata]
    source: NotRequired[_Source]


class CallLine(TypedDict):
    """A call of a tool."""

    id: NotRequired[Annotated[str, "Names the call in its conversation."]]
    name: Annotated[str, "The tool's name."]
    arguments: Annotated[str, "The arguments as the model wrote them, to the character: mostly JSON."]


class TurnLine(TypedDict):
    """A turn of a conversation. What is empty is left out."""

    role: Annotated[Literal["system", "developer", "user", "assistant", "tool"], "Who speaks."]
    content: NotRequired[Annotated[str | list[str], "The text, or the texts that it is made of."]]
    reasoning: NotRequired[Annotated[str, "What the assistant thought before it spoke."]]
    tool_calls: NotRequired[Annotated[list[CallLine], "The calls that the assistant makes."]]
    tool_call_id: NotRequired[Annotated[str, "The call that a tool's turn answers."]]
    name: NotRequired[Annotated[str, "Name of the speaker, or of the tool."]]
    train: NotRequired[Annotated[bool, "Whether the turn is to be learned."]]


class ConversationLine(TypedDict):
    """A conversation on one line, as `traces import` takes it."""

    trace_version: _Version
    messages: Annotated[list[TurnLine], "The turns, in order."]
    tools: NotRequired[
        Annotated[
            list[dict[str, Any] | str],
            "Definitions of the tools that the model was offered; one that is no object of JSON without "
            "spaces is a text, to the character.",
        ]
    ]
    metadata: NotRequired[_Metadata]
    source: NotRequired[_Source]

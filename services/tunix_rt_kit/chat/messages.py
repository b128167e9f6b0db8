"""Conversations: their messages, the checks on them, and a trace as one of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, Final, Literal, NoReturn, get_args

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer

from tunix_rt_kit.errors import InvalidArgument

Role = Literal["system", "developer", "user", "assistant", "tool"]
ReasoningStyle = Literal["numbered", "answer-only"]
REASONING_STYLES: Final[tuple[ReasoningStyle, ...]] = get_args(ReasoningStyle)
REASONING_HEADING: Final = "Reasoning:"
ANSWER_LABEL: Final = "Answer:"


_PLAIN_ROLES: Final = ("system", "user", "assistant")
_SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F]")


class ToolCall(BaseModel):
    """A call that the assistant makes: ``arguments`` is the text of a JSON object, or what stands for one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    arguments: str = "{}"
    id: str = ""


class Message(BaseModel):
    """One turn: who speaks (``assistant`` is the model) and the text.

    Args:
        role: who speaks; ``tool`` is the result of a call.
        content: the text.
        reasoning: what the assistant thought before it spoke.
        tool_calls: what it calls, after the text.
        tool_call_id: the call that a tool's message answers.
        name: of who speaks, or of the tool.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: Role
    content: str
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""
    name: str = ""

    @model_serializer(mode="wrap")
    def _dump(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields = handler(self)
        return {name: value for name, value in fields.items() if value or name in ("role", "content")}

    @property
    def is_plain(self) -> bool:
        """Whether it is a role and a text alone, which every chat template takes."""
        return self.role in _PLAIN_ROLES and not (
            self.reasoning or self.tool_calls or self.tool_call_id or self.name
        )


def json_object(text: str) -> dict[str, Any] | None:
    """The JSON object that ``text`` is, its keys in their order; None if it is none that UTF-8 can hold."""
    try:
        found = json.loads(text, parse_constant=_no_constant)
        if _SURROGATE.search(text):
            json.dumps(found, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def template_message(message: Message) -> dict[str, Any]:
    """A message as `transformers` hands it to a chat template; what it does not have is not there."""
    fields: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.reasoning:
        fields["reasoning_content"] = message.reasoning
    if message.tool_calls:
        fields["tool_calls"] = [_template_call(call) for call in message.tool_calls]
    for name in ("tool_call_id", "name"):
        if value := getattr(message, name):
            fields[name] = value
    return fields


def _template_call(call: ToolCall) -> dict[str, Any]:
    arguments = json_object(call.arguments)
    function = {"name": call.name, "arguments": call.arguments if arguments is None else arguments}
    return {**({"id": call.id} if call.id else {}), "type": "function", "function": function}


def template_tools(tools: Sequence[str]) -> list[dict[str, Any]] | None:
    """Definitions of tools, as texts, in the form in which a chat template takes them; None for none.

    Raises InvalidArgument (CHAT_MESSAGES_INVALID) for a text that is no JSON object.
    """
    found = []
    for index, text in enumerate(tools):
        definition = json_object(text)
        if definition is None:
            raise invalid_messages(f"tools[{index}] is {text[:60]!r}; a JSON object would be right")
        found.append(definition)
    return found or None


def written_texts(value: Any) -> Iterator[str]:
    """All texts in a JSON value, keys among them."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, entry in value.items():
            yield key
            yield from written_texts(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from written_texts(entry)


def invalid_messages(message: str) -> InvalidArgument:
    """The error for a conversation that a template cannot take (reason CHAT_MESSAGES_INVALID)."""
    return InvalidArgument(message, reason="CHAT_MESSAGES_INVALID")


def check_alternation(messages: Sequence[Message]) -> None:
    """Raise InvalidArgument (CHAT_MESSAGES_INVALID) unless user and assistant take turns, user first.

    One system message may stand before the first user turn.
    """
    turns = messages[1:] if messages and messages[0].role == "system" else messages
    offset = len(messages) - len(turns)
    if not turns:
        raise invalid_messages("messages: a conversation needs at least one user message")
    for index, message in enumerate(turns):
        expected = "assistant" if index % 2 else "user"
        if message.role != expected:
            raise invalid_messages(
                f"messages[{index + offset}].role is {message.role!r}; {expected!r} would be right, "
                "since user and assistant take turns and user begins"
            )


def check_no_markers(
    messages: Sequence[Message], markers: Sequence[str], tools: Sequence[dict[str, Any]] = ()
) -> None:
    """Raise InvalidArgument (CHAT_MARKER_IN_CONTENT) if a text holds one of a template's control texts.

    Such a text would be read as the end of its own turn, by the tokenizer as well as by a reader.
    """
    for index, message in enumerate(messages):
        for field, text in message_texts(message):
            for marker in markers:
                if marker in text:
                    raise _held(f"messages[{index}].{field}", marker, message=str(index))
    for index, tool in enumerate(tools):
        text = "\n".join(written_texts(tool))
        for marker in markers:
            if marker in text:
                raise _held(f"tools[{index}]", marker)


def _held(field: str, marker: str, **facts: str) -> InvalidArgument:
    return InvalidArgument(
        f"{field} holds {marker!r}, a control text of the chat template",
        reason="CHAT_MARKER_IN_CONTENT",
        metadata={"marker": marker, **facts},
    )


def message_texts(message: Message) -> Iterator[tuple[str, str]]:
    """Each text of a message that a template may write, by the name of its field."""
    yield "content", message.content
    if message.is_plain:
        return
    for name, value in template_message(message).items():
        if name not in ("role", "content"):
            shown = "reasoning" if name == "reasoning_content" else name
            # A break, which no control text holds, keeps texts apart.
            yield shown, "\n".join(written_texts(value))


def render_response(steps: Sequence[str], final_answer: str, style: ReasoningStyle = "numbered") -> str:
    """The text of a model's turn: reasoning and answer to the byte, without any chat marker.

    The style ``numbered``::

        Reasoning:
        1. first step
        2. second step
        Answer: 42

    and ``answer-only`` is its last line alone, as is ``numbered`` without steps. Steps keep their line
    breaks. Raises InvalidArgument (REASONING_STYLE_UNKNOWN).
    """
    if style not in REASONING_STYLES:
        raise InvalidArgument(
            f"reasoning_style is {style!r}; one of {', '.join(REASONING_STYLES)} would be right",
            reason="REASONING_STYLE_UNKNOWN",
        )
    answer = f"{ANSWER_LABEL} {final_answer}"
    if style == "answer-only" or not steps:
        return answer
    numbered = [f"{number}. {step}" for number, step in enumerate(steps, start=1)]
    return "\n".join([REASONING_HEADING, *numbered, answer])


def trace_messages(
    prompt: str, steps: Sequence[str], final_answer: str, style: ReasoningStyle = "numbered"
) -> tuple[Message, Message]:
    """A trace as two messages: the user's prompt and the assistant's response."""
    response = render_response(steps, final_answer, style)
    return Message(role="user", content=prompt), Message(role="assistant", content=response)

"""A trace that is a conversation, and what is said in it."""

from __future__ import annotations

from typing import Annotated, Any, Final, NotRequired, final

from pydantic import AfterValidator, TypeAdapter
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict

from tunix_rt_kit.conversations import Message, Messages, Metadata, Tools, text_of, whole_text, written_call
from tunix_rt_trace_store.traces.model import Label, Source, TraceContent


def _with_assistant(messages: list[Message]) -> list[Message]:
    if not any(message["role"] == "assistant" for message in messages):
        raise PydanticCustomError(
            "no_assistant", "hold no message of the assistant's; a trace needs at least one", {}
        )
    return messages


def _either(_: Any) -> Any:
    raise PydanticCustomError("either_form", "is given beside messages; a trace has one of the two", {})


NotBeside = Annotated[Any, AfterValidator(_either)]


@final
class ConversationContent(TypedDict):
    """What a client writes of a conversation."""

    prompt: NotRequired[NotBeside]
    steps: NotRequired[NotBeside]
    final_answer: NotRequired[NotBeside]
    trace_version: Label
    messages: Annotated[Messages, AfterValidator(_with_assistant)]
    tools: Tools
    metadata: Metadata
    source: Source


CONVERSATION: Final = TypeAdapter(ConversationContent)


def canonical_content(content: ConversationContent) -> dict[str, Any]:
    """What the content digest of a conversation is over: its fields, without those that are empty."""
    return {
        "trace_version": content["trace_version"],
        "messages": [_canonical_message(message) for message in content["messages"]],
        "tools": [tool["definition_text"] for tool in content["tools"]],
        "metadata": content["metadata"],
        "source": content["source"],
    }


def _canonical_message(message: Message) -> dict[str, Any]:
    calls = [
        {"id": call["id"], "name": call["name"], "arguments": call["arguments_text"]}
        for call in message["tool_calls"]
    ]
    fields = {
        "role": message["role"],
        "content": [part["text"] for part in message["content"]],
        "reasoning": message["reasoning"],
        "tool_calls": calls,
        "tool_call_id": message["tool_call_id"],
        "name": message["name"],
        "train": message["train"],
    }
    return {name: value for name, value in fields.items() if value}


def final_text(content: TraceContent | ConversationContent) -> str:
    """What the assistant says last; empty where that is a call alone."""
    if "messages" not in content:
        return content["final_answer"]
    return text_of(
        next(message for message in reversed(content["messages"]) if message["role"] == "assistant")
    )


def thoughts(content: TraceContent | ConversationContent) -> list[str]:
    """The steps of a trace; of a conversation what the assistant thought, and the calls that it made."""
    if "messages" not in content:
        return [step["content"] for step in content["steps"]]
    found: list[str] = []
    for message in content["messages"]:
        found += [message["reasoning"]] if message["reasoning"] else []
        found += map(written_call, message["tool_calls"])
    return found


def turns(content: TraceContent | ConversationContent) -> list[tuple[str, str]]:
    """Who speaks, and all that is said, turn by turn."""
    if "messages" not in content:
        answer = "\n".join([*thoughts(content), content["final_answer"]])
        return [("user", content["prompt"]), ("assistant", answer)]
    return [(message["role"], whole_text(message)) for message in content["messages"]]

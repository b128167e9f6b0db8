"""Conversations: their messages, the checks on them, and a trace as one of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, get_args

from pydantic import BaseModel, ConfigDict

from tunix_rt_kit.errors import InvalidArgument

Role = Literal["system", "user", "assistant"]
ReasoningStyle = Literal["numbered", "answer-only"]
REASONING_STYLES: Final[tuple[ReasoningStyle, ...]] = get_args(ReasoningStyle)
REASONING_HEADING: Final = "Reasoning:"
ANSWER_LABEL: Final = "Answer:"


class Message(BaseModel):
    """One turn: who speaks (``assistant`` is the model) and the text."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: Role
    content: str


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


def check_no_markers(messages: Sequence[Message], markers: Sequence[str]) -> None:
    """Raise InvalidArgument (CHAT_MARKER_IN_CONTENT) if a text holds one of a template's control texts.

    Such a text would be read as the end of its own turn, by the tokenizer as well as by a reader.
    """
    for index, message in enumerate(messages):
        for marker in markers:
            if marker in message.content:
                raise InvalidArgument(
                    f"messages[{index}].content holds {marker!r}, a control text of the chat template",
                    reason="CHAT_MARKER_IN_CONTENT",
                    metadata={"marker": marker, "message": str(index)},
                )


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

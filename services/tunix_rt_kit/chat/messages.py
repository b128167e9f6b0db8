"""A conversation as plain values, and the checks that every template asks of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from tunix_rt_kit.errors import InvalidArgument

Role = Literal["system", "user", "assistant"]


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

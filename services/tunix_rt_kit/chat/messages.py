"""Conversations: their messages, the checks on them, and how they are read back from text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Literal, get_args

from pydantic import BaseModel, ConfigDict

from tunix_rt_kit.errors import InvalidArgument

Role = Literal["system", "user", "assistant"]
_PROBE: Final = "\ue000\ue001"
"""Stands for a content; private-use characters that no template writes by itself."""
_SHOWN: Final = 60


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


Render = Callable[[Sequence[Message], bool], str]


def parse_conversation(render: Render, text: str) -> list[Message]:
    """The turns of a ``text`` that ``render(turns, opened)`` wrote.

    Each turn is found by rendering the turns so far and one more of each role, and by looking for the texts
    around its content. Where several roles fit, the one with the longest opening is taken, so that a system
    turn that the template adds by itself is not in the result.

    Raises InvalidArgument: CHAT_TEXT_INVALID, and what ``render`` raises for any conversation.
    """
    turns: list[Message] = []
    at = 0
    while not turns or text[at:] not in ("", _opening(render, turns)):
        turn, at = _next_turn(render, turns, text, at)
        turns.append(turn)
    return turns


def _next_turn(render: Render, turns: Sequence[Message], text: str, at: int) -> tuple[Message, int]:
    fits = []
    for role in get_args(Role):
        frame = _frame(render, turns, role)
        if frame is not None and text.startswith(frame[0], at):
            fits.append((*frame, role))
    if not fits:
        raise _unreadable(text, at, "no turn of the chat template begins")
    opening, closing, role = max(fits, key=lambda fit: len(fit[0]))
    start = at + len(opening)
    end = text.find(closing, start) if closing else -1
    if end < 0:
        raise _unreadable(text, start, f"the turn of {role!r} does not end as the chat template ends it")
    return Message(role=role, content=text[start:end]), end + len(closing)


def _frame(render: Render, turns: Sequence[Message], role: Role) -> tuple[str, str] | None:
    """The texts around the content of one more turn; None if the template takes no such turn."""
    try:
        before = render(turns, False) if turns else ""
        after = render([*turns, Message(role=role, content=_PROBE)], False)
    except InvalidArgument as error:
        if error.reason != "CHAT_MESSAGES_INVALID":
            raise
        return None
    opening, found, closing = after.removeprefix(before).partition(_PROBE)
    return (opening, closing) if found and after.startswith(before) else None


def _opening(render: Render, turns: Sequence[Message]) -> str:
    return render(turns, True).removeprefix(render(turns, False))


def _unreadable(text: str, at: int, problem: str) -> InvalidArgument:
    return InvalidArgument(
        f"text: at character {at} {problem}: {text[at : at + _SHOWN]!r}",
        reason="CHAT_TEXT_INVALID",
        metadata={"position": str(at)},
    )

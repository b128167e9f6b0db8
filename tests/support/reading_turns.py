"""Reads a rendered conversation back, to show that a template's text still tells its turns apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, get_args

from tunix_rt_kit.chat import ChatTemplate, Message, Role
from tunix_rt_kit.errors import InvalidArgument

_PROBE: Final = "\ue000\ue001"
"""Stands for a content; private-use characters that no template writes by itself."""
_SHOWN: Final = 60


def read_turns(template: ChatTemplate, text: str) -> list[Message]:
    """The turns of a text that ``template.render`` wrote, with or without the opening of the model's turn.

    White space that the template trims is lost, and a folded system instruction stays in its turn.

    Each turn is found by rendering the turns so far and one more of each role, and by looking for the texts
    around its content. Where several roles fit, the one with the longest opening is taken, so that a system
    turn that the template adds by itself is not in the result.

    Raises InvalidArgument: CHAT_TEXT_INVALID, and what ``render`` raises for any conversation.
    """
    turns: list[Message] = []
    at = 0
    while not turns or text[at:] not in ("", _opening(template, turns)):
        turn, at = _next_turn(template, turns, text, at)
        turns.append(turn)
    return turns


def _next_turn(template: ChatTemplate, turns: Sequence[Message], text: str, at: int) -> tuple[Message, int]:
    fits = []
    for role in get_args(Role):
        frame = _frame(template, turns, role)
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


def _frame(template: ChatTemplate, turns: Sequence[Message], role: Role) -> tuple[str, str] | None:
    """The texts around the content of one more turn; None if the template takes no such turn."""
    try:
        before = template.render(turns, False) if turns else ""
        after = template.render([*turns, Message(role=role, content=_PROBE)], False)
    except InvalidArgument as error:
        if error.reason != "CHAT_MESSAGES_INVALID":
            raise
        return None
    opening, found, closing = after.removeprefix(before).partition(_PROBE)
    return (opening, closing) if found and after.startswith(before) else None


def _opening(template: ChatTemplate, turns: Sequence[Message]) -> str:
    return template.render(turns, True).removeprefix(template.render(turns, False))


def _unreadable(text: str, at: int, problem: str) -> InvalidArgument:
    return InvalidArgument(
        f"text: at character {at} {problem}: {text[at : at + _SHOWN]!r}",
        reason="CHAT_TEXT_INVALID",
        metadata={"position": str(at)},
    )

"""The rules that the turns of a conversation keep. The trace store has them too; here they are told with the
line and the field of the file that breaks them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from tunix_rt import v1
from tunix_rt.formats.conversations import MAX_CALLS, MAX_MESSAGE_TEXT, MAX_MESSAGES
from tunix_rt.turns import role_of, text_of

_MAX_NAME: Final = 256
_FIRST: Final = ("system", "developer")
_BEFORE_ANSWER: Final = ("user", "tool")


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong: the message's place (None: all of them), the field in it, and the problem."""

    index: int | None
    field: str
    problem: str


def first_fault(messages: Sequence[v1.Message], *, asked: bool = False) -> Fault | None:
    """The first rule that messages break; None where they make a conversation.

    With ``asked``, they are those before a turn that a model is asked for.
    """
    return next(_faults(messages, asked), None)


def _faults(messages: Sequence[v1.Message], asked: bool) -> Iterator[Fault]:
    if len(messages) > MAX_MESSAGES:
        yield Fault(None, "", f"has {len(messages):,} messages; at most {MAX_MESSAGES:,} are allowed")
    roles = [role_of(message) for message in messages]
    if "assistant" not in roles and not asked:
        yield Fault(None, "", "has no assistant turn; a trace needs what the assistant says")
    if "user" not in roles:
        what = "an eval item" if asked else "a trace"
        yield Fault(None, "", f"has no user turn; {what} needs the question")
    calls, begun = _Calls(), False
    for index, (role, message) in enumerate(zip(roles, messages, strict=True)):
        yield from _wrong_in(index, role, message)
        if role == "tool":
            yield from calls.answered(index, message)
            continue
        yield from calls.left_open()
        if role in _FIRST:
            if begun:
                yield Fault(index, "role", f"is {role}; such messages stand before the first of the user's")
            continue
        if not begun and role != "user":
            yield Fault(index, "role", f"is {role}; a conversation begins with a message of the user's")
        begun = True
        yield from calls.made(index, message)
    if asked:
        yield from calls.left_open()
        if roles[-1] not in _BEFORE_ANSWER:
            told = f"is {roles[-1]}; the model answers the last message, which is a user's or a tool's"
            yield Fault(len(roles) - 1, "role", told)


def _wrong_in(index: int, role: str, message: v1.Message) -> Iterator[Fault]:
    text = text_of(message)
    if not text and role != "tool" and not message.tool_calls:
        behind = " behind the reasoning" if message.reasoning else ""
        yield Fault(index, "content", f"is empty; a text{behind} would be right")
    elif text and not text.strip() and role != "tool" and not message.tool_calls:
        yield Fault(index, "content", "is white space alone")
    for field, one in (("content", text), ("reasoning", message.reasoning)):
        if len(one) > MAX_MESSAGE_TEXT:
            yield Fault(
                index, field, f"has {len(one):,} characters; at most {MAX_MESSAGE_TEXT:,} are allowed"
            )
    names = [("name", message.name), ("tool_call_id", message.tool_call_id)]
    if len(message.tool_calls) > MAX_CALLS:
        yield Fault(
            index, "tool_calls", f"has {len(message.tool_calls):,} calls; at most {MAX_CALLS} are allowed"
        )
    for number, call in enumerate(message.tool_calls):
        place = f"tool_calls[{number}]"
        names += [(f"{place}.id", call.id), (f"{place}.name", call.name)]
        if len(call.arguments_text) > MAX_MESSAGE_TEXT:
            length = len(call.arguments_text)
            yield Fault(
                index, f"{place}.arguments", f"has {length:,} characters; at most 500,000 are allowed"
            )
    for field, name in names:
        if len(name) > _MAX_NAME:
            yield Fault(index, field, f"has {len(name):,} characters; at most {_MAX_NAME} are allowed")


class _Calls:
    """The calls that wait for their results, and the ids of all that were made."""

    def __init__(self) -> None:
        self._made: dict[str, tuple[int, int]] = {}
        self._open: list[tuple[int, int, str]] = []
        self._may_follow = False

    def made(self, index: int, message: v1.Message) -> Iterator[Fault]:
        self._open = [(index, number, call.id) for number, call in enumerate(message.tool_calls)]
        self._may_follow = bool(self._open)
        for _, number, given in self._open:
            first = self._made.setdefault(given, (index, number)) if given else (index, number)
            if first != (index, number):
                yield Fault(
                    index,
                    f"tool_calls[{number}].id",
                    f"is {given[:60]!r}, which call {first[1]} of message {first[0]} has already (both "
                    "counted from 0)",
                )

    def answered(self, index: int, message: v1.Message) -> Iterator[Fault]:
        wanted = message.tool_call_id
        for at, (_, _, given) in enumerate(self._open):
            if given == wanted:
                del self._open[at]
                return
        if not self._may_follow:
            yield Fault(index, "role", "is tool, but the assistant's message before it makes no call")
            return
        ids = [repr(given[:60]) for _, _, given in self._open if given]
        right = f"one of {', '.join(ids)} would be right" if ids else "all calls before it have their results"
        told = f"is {wanted[:60]!r}, which is no call that waits for one" if wanted else "is missing"
        yield Fault(index, "tool_call_id", f"{told}; {right}")

    def left_open(self) -> Iterator[Fault]:
        for at, number, given in self._open:
            told = f" {given[:60]!r}" if given else ""
            yield Fault(
                at,
                f"tool_calls[{number}]",
                f"is a call{told} without a result, and the conversation goes on; only calls at its end may "
                "have none",
            )

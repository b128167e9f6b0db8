"""Whether a rendering holds what its conversation says, each text in its place.

A conversation is rendered a second time with a name in place of each of its texts. What stands between the
names is the template's; so the first rendering must be the second with the texts in place of their names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, Literal, NamedTuple

from tunix_rt_kit.chat.messages import Message, Role, ToolCall, json_object

Span = tuple[int, int]
_IN_ORDER: Final = ("user", "tool")
_CALL: Final = re.compile(r"\.tool_calls\[(\d+)\]")


_Form = Literal["said", "asked", "in JSON"]


@dataclass(frozen=True, slots=True)
class _Part:
    """A text of a conversation: its field, the message that it belongs to, None for a tool that is offered.

    What is ``asked`` may be written by a template that puts it into JSON, which other texts are ``in``; and
    what is asked, or ``said`` and not learned, may lose white space at its ends. ``other`` is another form in
    which it may be written.
    """

    label: str
    message: int | None
    text: str
    form: _Form
    other: str | None = None

    def forms(self, is_exact: bool) -> Iterator[str]:
        """What counts as the text, the likeliest first; exact if it is learned."""
        yield self.text
        if self.other is not None:
            yield self.other
        elif self.form == "in JSON":
            yield from _as_json(self.text)
        elif not is_exact:
            for text in _trimmed(self.text):
                yield text
                if self.form == "asked":
                    yield from _as_json(text)


@dataclass(frozen=True, slots=True)
class NamedText:
    """A rendering with names, cut at them.

    Args:
        text: the rendering.
        numbers: of the texts whose names stand there, from left to right, as often as they do.
        spans: where each of these names stands.
        between: what stands before each of them, and behind the last.
    """

    text: str
    numbers: tuple[int, ...]
    spans: tuple[Span, ...]
    between: tuple[str, ...]


class NamedCall(NamedTuple):
    """A tool call with names in place of its texts."""

    name: str
    arguments: str
    id: str


class NamedMessage(NamedTuple):
    """A message with names in place of its texts: all that a chat template gets of it."""

    role: Role
    content: str
    reasoning: str
    tool_calls: tuple[NamedCall, ...]
    tool_call_id: str
    name: str

    @property
    def message(self) -> Message:
        """The same as a message."""
        calls = tuple(ToolCall(**call._asdict()) for call in self.tool_calls)
        return Message(**{**self._asdict(), "tool_calls": calls})


class Parts:
    """The texts of a conversation, and the conversation with a name in place of each; make one with `of`.

    Attributes:
        named: the conversation with names.
        tools: the tools that are offered with names.
        inexact: the arguments that no template can write as they are: a key stands twice in them, or a number
            has more digits than a float.
    """

    def __init__(self, salt: int) -> None:
        self.named: tuple[NamedMessage, ...] = ()
        self.tools: tuple[str, ...] = ()
        self.inexact: list[str] = []
        self._salt = f"{salt:05}"
        self._name = re.compile(rf"Zq{self._salt}x(\d{{6}})qZ|917{self._salt}(\d{{6}})")
        self._parts: list[_Part] = []
        self._speakers: list[str] = []

    @classmethod
    def of(
        cls, messages: Sequence[Message], learned: Iterable[int], tools: Sequence[str], texts: Sequence[str]
    ) -> Parts:
        """The parts of a conversation; no name stands in its renderings ``texts``."""
        salt = next(
            salt
            for salt in range(10**5)
            if not any(f"{name}{salt:05}" in text for text in texts for name in ("Zq", "917"))
        )
        parts, turns = cls(salt), frozenset(learned)
        parts._speakers = [message.role for message in messages]
        parts.named = tuple(
            [
                parts._said(index, message) if index in turns else parts._asked(index, message)
                for index, message in enumerate(messages)
            ]
        )
        parts.tools = tuple([parts._tool(index, text) for index, text in enumerate(tools)])
        return parts

    @property
    def messages(self) -> list[Message]:
        """The conversation with names, as messages."""
        return [message.message for message in self.named]

    def lost(
        self, hidden: str, text: str, count: int, spans: Mapping[int, Span], end_of_turn: str
    ) -> list[str]:
        """The fields that a rendering of the first ``count`` messages does not hold in their place.

        Args:
            hidden: the rendering with names.
            text: the rendering.
            count: of how many messages it is.
            spans: where the text of each turn that is learned from it stands.
            end_of_turn: the text that must close each of them.
        """
        places, wrong = self._places(hidden, text, spans)
        if wrong is not None:
            return [wrong]
        missing: list[str] = []
        at = -1
        ends = dict.fromkeys(spans, 0)
        for number, part in enumerate(self._parts):
            found = places.get(number, ())
            if part.message is not None and part.message in spans:
                start, end = spans[part.message]
                inside = [place for place in found if start <= place[0] and place[1] <= end]
                missing += [] if inside else [part.label]
                ends[part.message] = max([ends[part.message], *(place[1] for place in inside)])
            elif part.message is None or (part.message < count and self._is_heard(part.message)):
                first = found[0][0] if found else -1
                ordered = part.message is None or self._speakers[part.message] not in _IN_ORDER or first > at
                missing += [] if found and ordered else [part.label]
                if part.message is not None and self._speakers[part.message] in _IN_ORDER:
                    at = max(at, first)
        closed = {turn: end_of_turn in text[ends[turn] : end] for turn, (_, end) in spans.items()}
        missing += [f"messages[{turn}], its end" for turn, is_closed in closed.items() if not is_closed]
        return list(dict.fromkeys(missing))

    def cut(self, hidden: str) -> NamedText:
        """A rendering with names, cut at them."""
        found = list(self._name.finditer(hidden))
        spans = [match.span() for match in found]
        ends = [0, *(end for _, end in spans)]
        starts = [*(start for start, _ in spans), len(hidden)]
        return NamedText(
            hidden,
            tuple(int(match[1] or match[2]) for match in found),
            tuple(spans),
            tuple(hidden[end:start] for end, start in zip(ends, starts, strict=True)),
        )

    def place(self, number: int) -> tuple[int | None, int | None]:
        """Where a text belongs: the number of its message, None for a tool that is offered, and of its tool
        call, if it is of one."""
        part = self._parts[number]
        call = _CALL.search(part.label)
        return part.message, int(call[1]) if call else None

    def placed(self, named: NamedText, text: str) -> list[Span] | None:
        """Where each text stands whose name does in ``named``, which may be that of another conversation that
        is the same with names.

        None if ``text`` is not ``named`` with a text for each name.
        """
        found, wrong = self._in_order(named, text, {})
        return None if wrong is not None or not found else found

    def _is_heard(self, message: int) -> bool:
        return self._speakers[message] != "assistant"

    def _places(
        self, hidden: str, text: str, spans: Mapping[int, Span]
    ) -> tuple[dict[int, list[Span]], str | None]:
        """Where each part stands in the text; or the field at which the text is another."""
        places: dict[int, list[Span]] = {}
        named = self.cut(hidden)
        found, wrong = self._in_order(named, text, spans)
        for number, span in zip(named.numbers, found, strict=wrong is None):
            places.setdefault(number, []).append(span)
        return places, wrong

    def _in_order(
        self, named: NamedText, text: str, spans: Mapping[int, Span]
    ) -> tuple[list[Span], str | None]:
        """Where each text stands in ``text``, from left to right; or the field at which it is another."""
        at = len(named.between[0])
        if not text.startswith(named.between[0]):
            return [], self._parts[named.numbers[0]].label if named.numbers else "messages"
        found: list[Span] = []
        last = len(named.numbers)
        for index, number in enumerate(named.numbers, 1):
            part, behind = self._parts[number], named.between[index]
            for form in part.forms(part.message in spans):
                end = at + len(form)
                follows = text.startswith(behind, end) and (index < last or end + len(behind) == len(text))
                if follows and text.startswith(form, at):
                    found.append((at, end))
                    at = end + len(behind)
                    break
            else:
                return [], part.label
        return found, None

    def _asked(self, index: int, message: Message) -> NamedMessage:
        content = message.content
        if message.role != "assistant" and content:
            content = self._text(f"messages[{index}].content", index, content, "asked")
        calls = tuple([NamedCall(call.name, call.arguments, call.id) for call in message.tool_calls])
        return NamedMessage(
            message.role, content, message.reasoning, calls, message.tool_call_id, message.name
        )

    def _said(self, index: int, message: Message) -> NamedMessage:
        reasoning, content = message.reasoning, message.content
        if reasoning:
            reasoning = self._text(f"messages[{index}].reasoning", index, reasoning, "said")
        if content:
            content = self._text(f"messages[{index}].content", index, content, "said")
        calls = tuple([self._call(index, number, call) for number, call in enumerate(message.tool_calls)])
        return NamedMessage(message.role, content, reasoning, calls, message.tool_call_id, message.name)

    def _call(self, index: int, number: int, call: ToolCall) -> NamedCall:
        label = f"messages[{index}].tool_calls[{number}]"
        name = self._text(f"{label}.name", index, call.name, "in JSON")
        arguments = call.arguments
        if json_object(arguments) is not None:
            value = _exactly(arguments)
            if value is None:
                self.inexact.append(f"{label}.arguments")
            arguments = json.dumps(self._value(f"{label}.arguments", index, value or {}))
        elif arguments:
            arguments = self._text(f"{label}.arguments", index, arguments, "in JSON")
        return NamedCall(name, arguments, call.id)

    def _value(self, label: str, index: int, value: Any) -> Any:
        if isinstance(value, dict):
            # In the order of the keys, so that one who sorts them sorts their names in the same way.
            names = {key: self._value(label, index, key) for key in sorted(value)}
            return {names[key]: self._value(label, index, entry) for key, entry in value.items()}
        if isinstance(value, list):
            return [self._value(label, index, entry) for entry in value]
        if isinstance(value, str):
            return self._text(label, index, value, "in JSON") if value else value
        self._parts.append(_Part(label, index, json.dumps(value), "in JSON", str(value)))
        # A number, which templates write without quotation marks.
        return int(f"917{self._salt}{len(self._parts) - 1:06}")

    def _tool(self, index: int, text: str) -> str:
        definition = json_object(text) or {}
        function = definition.get("function") if "function" in definition else definition
        if not isinstance(function, dict) or not isinstance(name := function.get("name"), str) or not name:
            return text
        function["name"] = self._text(f"tools[{index}]", None, name, "in JSON")
        return json.dumps(definition)

    def _text(self, label: str, message: int | None, text: str, form: _Form) -> str:
        self._parts.append(_Part(label, message, text, form))
        return f"Zq{self._salt}x{len(self._parts) - 1:06}qZ"


def _trimmed(text: str) -> list[str]:
    """The text with and without the white space at its ends."""
    kinds = (
        text.strip(),
        text.lstrip(),
        text.rstrip(),
        text.strip("\n"),
        text.lstrip("\n"),
        text.rstrip("\n"),
    )
    return [text, *kinds] if text[:1].isspace() or text[-1:].isspace() else [text]


def _as_json(text: str) -> tuple[str, str]:
    """How the text stands in a JSON string."""
    return json.dumps(text, ensure_ascii=False)[1:-1], json.dumps(text)[1:-1]


def _exactly(text: str) -> dict[str, Any] | None:
    """The JSON object that ``text`` is; None if reading it loses something."""
    lost: list[str] = []

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(found)
        if len(value) < len(found):
            lost.append("key")
        return value

    def number(digits: str) -> float:
        value = float(digits)
        try:
            kept = Decimal(digits) == Decimal(repr(value))
        except ArithmeticError:
            kept = False
        if not kept:
            lost.append(digits)
        return value

    found: dict[str, Any] = json.loads(text, object_pairs_hook=pairs, parse_float=number)
    return None if lost else found

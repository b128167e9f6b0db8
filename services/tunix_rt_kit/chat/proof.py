"""Whether a rendering holds what its conversation says, each text in its place.

A conversation is rendered a second time with a name in place of each of its texts. What stands between the
names is the template's; so the first rendering must be the second with the texts in place of their names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from tunix_rt_kit.chat.messages import Message, ToolCall, json_object

Span = tuple[int, int]
_IN_ORDER: Final = ("user", "tool")
_CALL: Final = re.compile(r"\.tool_calls\[(\d+)\]")


@dataclass(frozen=True, slots=True)
class _Part:
    """A text of a conversation: its field, the message that it belongs to, None for a tool that is offered.

    ``exact`` are the forms in which it counts as written, ``loose`` those of a text that is not learned.
    """

    label: str
    message: int | None
    exact: tuple[str, ...]
    loose: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PlacedText:
    """A text of a conversation: where its name stands in the rendering with names, and where it itself does.

    ``message`` is the number of its message, None for a tool that is offered, ``call`` that of its tool call.
    """

    message: int | None
    call: int | None
    named: Span
    span: Span


class Parts:
    """The texts of a conversation, and the conversation with a name in place of each; make one with `of`.

    Attributes:
        messages: the conversation with names.
        tools: the tools that are offered with names.
        inexact: the arguments that no template can write as they are: a key stands twice in them, or a number
            has more digits than a float.
    """

    def __init__(self, salt: int) -> None:
        self.messages: Sequence[Message] = ()
        self.tools: Sequence[str] = ()
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
        parts.messages = [
            parts._said(index, message) if index in turns else parts._asked(index, message)
            for index, message in enumerate(messages)
        ]
        parts.tools = [parts._tool(index, text) for index, text in enumerate(tools)]
        return parts

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

    def placed(self, hidden: str, text: str) -> list[PlacedText] | None:
        """Where each text stands, from left to right, as often as it does.

        None if ``text`` is not ``hidden``, the rendering with names, with a text for each name.
        """
        found, wrong = self._in_order(hidden, text, {})
        if wrong is not None or not found:
            return None
        named = [match.span() for match in self._name.finditer(hidden)]
        parts = [self._parts[number] for number, _ in found]
        calls = [_CALL.search(part.label) for part in parts]
        return [
            PlacedText(part.message, int(call[1]) if call else None, *spans)
            for part, call, *spans in zip(parts, calls, named, (span for _, span in found), strict=True)
        ]

    def _is_heard(self, message: int) -> bool:
        return self._speakers[message] != "assistant"

    def _places(
        self, hidden: str, text: str, spans: Mapping[int, Span]
    ) -> tuple[dict[int, list[Span]], str | None]:
        """Where each part stands in the text; or the field at which the text is another."""
        places: dict[int, list[Span]] = {}
        found, wrong = self._in_order(hidden, text, spans)
        for number, span in found:
            places.setdefault(number, []).append(span)
        return places, wrong

    def _in_order(
        self, hidden: str, text: str, spans: Mapping[int, Span]
    ) -> tuple[list[tuple[int, Span]], str | None]:
        """The same, from left to right."""
        pieces = self._name.split(hidden)
        found: list[tuple[int, Span]] = []
        if not text.startswith(pieces[0]):
            return [], self._parts[int(pieces[1] or pieces[2])].label if len(pieces) > 1 else "messages"
        at = len(pieces[0])
        for index in range(1, len(pieces), 3):
            number, behind = int(pieces[index] or pieces[index + 1]), pieces[index + 2]
            part = self._parts[number]
            is_last = index + 3 == len(pieces)
            for form in part.exact if part.message in spans else part.loose:
                end = at + len(form)
                follows = text.startswith(behind, end) and (not is_last or end + len(behind) == len(text))
                if follows and text.startswith(form, at):
                    found.append((number, (at, end)))
                    at = end + len(behind)
                    break
            else:
                return [], part.label
        return found, None

    def _asked(self, index: int, message: Message) -> Message:
        if message.role == "assistant" or not message.content:
            return message
        loose = [form for text in _trimmed(message.content) for form in (text, *_as_json(text))]
        name = self._text(f"messages[{index}].content", index, [message.content], loose)
        return message.model_copy(update={"content": name})

    def _said(self, index: int, message: Message) -> Message:
        hidden: dict[str, Any] = {}
        for field in ("reasoning", "content"):
            if text := getattr(message, field):
                hidden[field] = self._text(f"messages[{index}].{field}", index, [text], _trimmed(text))
        calls = [self._call(index, number, call) for number, call in enumerate(message.tool_calls)]
        return message.model_copy(update={**hidden, "tool_calls": tuple(calls)})

    def _call(self, index: int, number: int, call: ToolCall) -> ToolCall:
        label = f"messages[{index}].tool_calls[{number}]"
        name = self._text(f"{label}.name", index, [call.name, *_as_json(call.name)])
        arguments = call.arguments
        if json_object(arguments) is not None:
            value = _exactly(arguments)
            if value is None:
                self.inexact.append(f"{label}.arguments")
            arguments = json.dumps(self._value(f"{label}.arguments", index, value or {}))
        elif arguments:
            arguments = self._text(f"{label}.arguments", index, [arguments, *_as_json(arguments)])
        return call.model_copy(update={"name": name, "arguments": arguments})

    def _value(self, label: str, index: int, value: Any) -> Any:
        if isinstance(value, dict):
            # In the order of the keys, so that one who sorts them sorts their names in the same way.
            names = {key: self._value(label, index, key) for key in sorted(value)}
            return {names[key]: self._value(label, index, entry) for key, entry in value.items()}
        if isinstance(value, list):
            return [self._value(label, index, entry) for entry in value]
        if isinstance(value, str):
            return self._text(label, index, [value, *_as_json(value)]) if value else value
        forms = (json.dumps(value), str(value))
        self._parts.append(_Part(label, index, forms, forms))
        # A number, which templates write without quotation marks.
        return int(f"917{self._salt}{len(self._parts) - 1:06}")

    def _tool(self, index: int, text: str) -> str:
        definition = json_object(text) or {}
        function = definition.get("function") if "function" in definition else definition
        if not isinstance(function, dict) or not isinstance(name := function.get("name"), str) or not name:
            return text
        function["name"] = self._text(f"tools[{index}]", None, [name, *_as_json(name)])
        return json.dumps(definition)

    def _text(self, label: str, message: int | None, exact: Sequence[str], loose: Sequence[str] = ()) -> str:
        self._parts.append(
            _Part(label, message, tuple(dict.fromkeys(exact)), tuple(dict.fromkeys([*exact, *loose])))
        )
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

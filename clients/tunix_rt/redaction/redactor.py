"""The redactor: a walk through all texts of a trace, which looks first and replaces then."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from typing import Any, Final, TypeVar

from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct, Value

from tunix_rt import v1
from tunix_rt.redaction.patterns import KINDS, RULES, Finding

_PLACEHOLDER: Final = re.compile(r"<[A-Z][A-Z_]*_[0-9]+>")
TAG: Final = re.compile(r"<([A-Z][A-Z_]*)_([a-p]{20})([q-z]{1,7})>")
"""Stands for a value in a part of a trace: its kind, a keyed digest in letters, which no pattern takes for a
number, and its length."""
# Looked at again until nothing is found, so that what is redacted twice is the same.
_PASSES: Final = 5
T = TypeVar("T")


class UnknownKindError(ValueError):
    """A kind that is not one of ``KINDS``."""


class Redactor:
    """Replaces personal data and secrets of traces by placeholders, such as ``<EMAIL_1>``.

    Within a trace the same value has the same placeholder, and no placeholder stands in its texts before. A
    redacted trace stays as it is. Every text is looked at: names, keys and values of metadata and arguments,
    and JSON within texts, whose form is kept.

    Args:
        skip: kinds that are left as they are, of ``KINDS``.
        library: finds more values in a text, such as names; see ``tunix_rt.redaction.library``.

    Raises:
        UnknownKindError: ``skip`` holds something else.

    Example:
        >>> redactor = Redactor()
        >>> redactor.trace(v1.Trace(prompt="Write to ann@example.com")).prompt
        'Write to <EMAIL_1>'
        >>> redactor.counts
        Counter({'EMAIL': 1})
    """

    def __init__(
        self, skip: Collection[str] = (), library: Callable[[str], Iterator[Finding]] | None = None
    ) -> None:
        for kind in skip:
            if kind not in KINDS:
                raise UnknownKindError(f"{kind!r} is no kind; expected one of {', '.join(KINDS)}")
        self._rules = [rule for rule in RULES if rule[0] not in skip]
        self._library = library
        self._replaces_tags = False
        self.counts: Counter[str] = Counter()
        """How many values were replaced, by kind."""

    def trace(self, trace: v1.Trace) -> v1.Trace:
        """The trace with placeholders; the same object if nothing was found."""
        return self.whole(trace, edited_trace, Names())

    def text(self, text: str) -> str:
        """A text, such as a line of a file, with placeholders of its own. JSON stays JSON."""
        return self.whole(text, lambda whole, edit: edit.text(whole, ""), Names())

    def uncounted(self) -> Redactor:
        """One that finds the same, and counts for itself."""
        other = Redactor((), self._library)
        other._rules = self._rules
        return other

    def with_tags(self) -> Redactor:
        """One that replaces tags, too, and counts for itself; see ``tunix_rt.redaction.parts``."""
        other = self.uncounted()
        other._replaces_tags = True
        return other

    def whole(self, whole: T, edited: Callable[[T, Edit], T], names: Names) -> T:
        """Anything with placeholders; the same object if nothing was found.

        Args:
            edited: gives ``whole`` with what an edit makes of each of its texts.
            names: of the placeholders.
        """
        known: dict[str, list[Finding]] = {}

        def found(text: str) -> list[Finding]:
            # Spans and conversations say again what was said before.
            if text not in known:
                known[text] = self._found(text)
            return known[text]

        for _ in range(_PASSES):
            seen = _Look(found)
            edited(whole, seen)
            if not seen.values:
                break
            names.avoid(seen.placeholders)
            whole = edited(whole, _Replace(found, names, seen.values, self.counts))
        return whole

    def _found(self, text: str) -> list[Finding]:
        """What is found in a text, in order, without overlaps: where two overlap, both are one."""
        found = [
            (Finding(start, end, kind), rank)
            for rank, (kind, find) in enumerate(self._rules)
            for start, end in find(text)
        ]
        if self._library is not None:
            taken = [match.span() for known in (_PLACEHOLDER, TAG) for match in known.finditer(text)]
            found += [
                (finding, len(self._rules))
                for finding in self._library(text)
                if not any(finding.start < end and start < finding.end for start, end in taken)
            ]
        if self._replaces_tags:
            tags = (Finding(*tag.span(), tag[1]) for tag in TAG.finditer(text))
            found += [(tag, len(self._rules)) for tag in tags]
        return _merged(found)


def _merged(found: list[tuple[Finding, int]]) -> list[Finding]:
    merged: list[tuple[Finding, int]] = []
    for finding, rank in sorted(found):
        if merged and finding.start < merged[-1][0].end:
            before, best = merged[-1]
            kind = finding.kind if rank < best else before.kind
            merged[-1] = Finding(before.start, max(before.end, finding.end), kind), min(rank, best)
        else:
            merged.append((finding, rank))
    return [finding for finding, _ in merged]


def same_value(kind: str, value: str, *, exact: bool) -> str:
    """What spellings of one value have in common; of ``exact`` ones, such as keys, each is a value."""
    if kind in ("CARD", "PHONE", "IBAN") and not exact:
        value = re.sub(r"[^\w+]", "", value)
    return value.casefold() if kind in ("EMAIL", "IBAN") and not exact else value


class Names:
    """The placeholders of one trace, by number."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], str] = {}
        self._taken: set[str] = set()
        self._last: Counter[str] = Counter()

    def avoid(self, placeholders: Collection[str]) -> None:
        """These stand in the trace already."""
        self._taken.update(placeholders)

    def of(self, kind: str, value: str, *, exact: bool = False) -> str:
        """The placeholder of a value; of ``exact`` ones each spelling has its own."""
        key = (kind, self._same(kind, value, exact))
        if key not in self._known:
            self._known[key] = self._new(kind)
        return self._known[key]

    def _same(self, kind: str, value: str, exact: bool) -> str:
        return same_value(kind, value, exact=exact)

    def _new(self, kind: str) -> str:
        while True:
            self._last[kind] += 1
            name = f"<{kind}_{self._last[kind]}>"
            if name not in self._taken:
                self._taken.add(name)
                return name


class Edit:
    """What is done with each text of a trace."""

    def __init__(self, found: Callable[[str], list[Finding]]) -> None:
        self._found = found

    def plain(self, text: str, context: str, exact: bool) -> str:
        """What becomes of a text; ``context`` is what stands before it, such as its key."""
        raise NotImplementedError

    def value(self, value: str, kind: str, exact: bool) -> str:
        """What becomes of a value that was found."""
        raise NotImplementedError

    def text(self, text: str, key: str) -> str:
        """What becomes of the text that ``key`` has; JSON is edited string by string."""
        if text.lstrip()[:1] in ("{", "[") and _is_json(text):
            return _edited_json(text, self)
        return self.plain(text, f"{key}: " if key else "", exact=False)

    def within(self, text: str, context: str) -> list[Finding]:
        """What is found in ``text``, also by what stands before it."""
        if not context:
            return self._found(text)
        before = len(context)
        found = (
            Finding(start - before, end - before, kind) for start, end, kind in self._found(context + text)
        )
        return [finding for finding in found if finding.start >= 0]


class _Look(Edit):
    """Collects the values and the placeholders of a trace, and changes nothing."""

    def __init__(self, found: Callable[[str], list[Finding]]) -> None:
        super().__init__(found)
        self.values: dict[str, str] = {}
        self.placeholders: set[str] = set()

    def plain(self, text: str, context: str, exact: bool) -> str:
        self.placeholders.update(_PLACEHOLDER.findall(text))
        for start, end, kind in self.within(text, context):
            self.value(text[start:end], kind, exact)
        return text

    def value(self, value: str, kind: str, exact: bool) -> str:  # noqa: ARG002
        self.values.setdefault(value, kind)
        return value


class _Replace(Edit):
    """Puts placeholders in place of values, also where only another place showed what a value is."""

    def __init__(
        self,
        found: Callable[[str], list[Finding]],
        names: Names,
        values: dict[str, str],
        counts: Counter[str],
    ) -> None:
        super().__init__(found)
        self._names = names
        self._values = values
        self._counts = counts
        longest = sorted((value for value in values if len(value) >= 4), key=len, reverse=True)
        self._known = re.compile(
            rf"(?<![A-Za-z0-9])(?:{'|'.join(map(re.escape, longest)) or '(?!)'})(?![A-Za-z0-9])"
        )

    def plain(self, text: str, context: str, exact: bool) -> str:
        found = [(finding, 0) for finding in self.within(text, context)]
        known = self._known.finditer(text)
        found += [(Finding(match.start(), match.end(), self._values[match[0]]), 1) for match in known]
        done, pieces = 0, []
        for start, end, kind in _merged(found):
            pieces += [text[done:start], self.value(text[start:end], kind, exact)]
            done = end
        return "".join(pieces) + text[done:] if pieces else text

    def value(self, value: str, kind: str, exact: bool) -> str:
        self._counts[kind] += 1
        return self._names.of(kind, value, exact=exact)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


_JSON_PARTS: Final = re.compile(
    r'(?P<string>"(?:[^"\\]|\\.)*")(?P<colon>\s*:)?|(?P<number>-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)'
)


def _edited_json(text: str, edit: Edit) -> str:
    """JSON of which strings, keys and numbers are edited; all else stays to the character."""
    key = ""

    def part(match: re.Match[str]) -> str:
        nonlocal key
        if match["number"]:
            changed = edit.text(match["number"], key)
            return match["number"] if changed == match["number"] else json.dumps(changed)
        value = json.loads(match["string"])
        if match["colon"] is None:
            changed = edit.text(value, key)
        else:
            key, changed = value, edit.plain(value, "", exact=True)
        if changed == value:
            return match[0]
        return _json_string(changed) + (match["colon"] or "")

    return _JSON_PARTS.sub(part, text)


def _json_string(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(text)
    return json.dumps(text, ensure_ascii=False)


def edited_trace(trace: v1.Trace, edit: Edit) -> v1.Trace:
    edited = v1.Trace()
    edited.CopyFrom(trace)
    _join(edit, list(edited.steps), "content", "\n\n")
    for message in edited.messages:
        _join(edit, list(message.content), "text", "")
        for call in message.tool_calls:
            if call.arguments_text:
                call.ClearField("arguments")
    for tool in edited.tools:
        if tool.definition_text:
            for field in ("name", "description", "parameters"):
                tool.ClearField(field)
    _edit_message(edited, edit)
    return edited


def _join(edit: Edit, parts: list[Any], field: str, between: str) -> None:
    """Edit what is found only where texts are read as one; the first of them has the placeholder."""
    texts = [getattr(part, field) for part in parts]
    if len(texts) < 2:
        return
    whole = between.join(texts)
    alone = [edit.within(text, "") for text in texts]
    starts = [0]
    for text in texts:
        starts.append(starts[-1] + len(text) + len(between))
    for start, end, kind in reversed(edit.within(whole, "")):
        crossed = [at for at in range(len(texts)) if starts[at] < end and start < starts[at] + len(texts[at])]
        first = starts[crossed[0]]
        if len(crossed) == 1 and any(
            low < end - first and start - first < high for low, high, _ in alone[crossed[0]]
        ):
            continue
        name = edit.value(whole[start:end], kind, exact=False)
        for at in crossed:
            low, high = max(start - starts[at], 0), min(end - starts[at], len(texts[at]))
            rest = texts[at][:low] + texts[at][high:]
            put = name if at == crossed[0] or (between and not rest) else ""
            texts[at] = texts[at][:low] + put + texts[at][high:]
    if not isinstance(edit, _Look):
        for part, text in zip(parts, texts, strict=True):
            setattr(part, field, text)


def _edit_message(message: Message, edit: Edit) -> None:
    """Edit every text of a message, whatever fields the contract has."""
    for field, value in message.ListFields():
        if isinstance(value, Struct):
            _edit_struct(value, edit)
        elif field.message_type is not None:
            for inner in value if field.is_repeated else (value,):
                _edit_message(inner, edit)
        elif field.type == field.TYPE_STRING:
            # What strings are there is in lists of messages; none of the contract's own fields repeats.
            setattr(message, field.name, edit.text(value, ""))


def _edit_struct(struct: Struct, edit: Edit) -> None:
    # In the order of keys: a map has none of its own, and placeholders are numbered as they come.
    for key in sorted(struct.fields):
        value = struct.fields[key]
        _edit_value(value, key, edit)
        named = edit.plain(key, "", exact=True)
        if named != key:
            moved = Value()
            moved.CopyFrom(value)
            del struct.fields[key]
            struct.fields[named].CopyFrom(moved)


def _edit_value(value: Value, key: str, edit: Edit) -> None:
    kind = value.WhichOneof("kind")
    if kind == "string_value":
        value.string_value = edit.text(value.string_value, key)
    elif kind == "number_value" and value.number_value.is_integer() and abs(value.number_value) < 2**63:
        shown = str(int(value.number_value))
        changed = edit.text(shown, key)
        if changed != shown:
            value.string_value = changed
    elif kind == "struct_value":
        _edit_struct(value.struct_value, edit)
    elif kind == "list_value":
        for inner in value.list_value.values:
            _edit_value(inner, key, edit)

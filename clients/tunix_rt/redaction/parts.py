"""Redaction of what comes in parts, each stored before the next one comes, such as the spans of a trace."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from hashlib import blake2b
from itertools import chain
from typing import Final

from tunix_rt import v1
from tunix_rt.redaction.patterns import KINDS, Finding
from tunix_rt.redaction.redactor import TAG, Edit, Names, Redactor, T, edited_trace, same_value

_TAG_BYTES: Final = re.compile(TAG.pattern.encode())
_DIGEST_LETTERS: Final = str.maketrans("0123456789abcdef", "abcdefghijklmnop")
_LENGTH_LETTERS: Final = str.maketrans("0123456789", "qrstuvwxyz")
_LENGTH_DIGITS: Final = str.maketrans("qrstuvwxyz", "0123456789")
# Where a value may begin, and where it may end.
_BEGIN: Final = re.compile(r"(?<![A-Za-z0-9])(?=\S)")
_END: Final = re.compile(r"(?<=\S)(?![A-Za-z0-9])")
_LEAST: Final = 4


class PartsRedactor:
    """Replaces values in parts by tags, and tags in the trace that is made of the parts by placeholders.

    A tag such as ``<EMAIL_kbgmdcoaiiepjhfnlcabry>`` is the same for the same value in all parts of a trace.
    It has a keyed digest: who lacks the key learns no more than the value's length.

    Args:
        redactor: what finds values; None if none are to be found, and tags of before become placeholders.
        key: secret, of 64 bytes at most.
    """

    def __init__(self, redactor: Redactor | None, key: bytes) -> None:
        self._redactor = redactor
        self._key = key

    def part(self, trace_id: bytes, part: T, edited: Callable[[T, Edit], T]) -> T:
        """A part with tags, or several that come together; ``edited`` is as of ``Redactor.whole``."""
        if self._redactor is None:
            return part
        return self._redactor.uncounted().whole(part, edited, _Tags(self._key, trace_id))

    def joined(self, trace_id: bytes, parts: T, edited: Callable[[T, Edit], T], tags: Collection[str]) -> T:
        """All parts, with tags also where only another part showed what a value is."""
        return edited(parts, _Spread(_Tags(self._key, trace_id), tags)) if tags else parts

    def trace(self, trace_id: bytes, trace: v1.Trace) -> tuple[v1.Trace, Counter[str]]:
        """A trace that was made of parts, with placeholders; and how many values they stand for, by kind."""
        redactor = (self._redactor or Redactor(KINDS)).with_tags()
        return redactor.whole(trace, edited_trace, _Numbers(_Tags(self._key, trace_id))), redactor.counts


def tags_in(encoded: Iterable[bytes]) -> set[str]:
    """The tags in bytes that hold texts in UTF-8."""
    return {found[0].decode() for found in chain.from_iterable(map(_TAG_BYTES.finditer, encoded))}


class _Tags(Names):
    """Tags in place of numbers."""

    def __init__(self, key: bytes, trace_id: bytes) -> None:
        super().__init__()
        self._key = key
        self._trace_id = trace_id

    def of(self, kind: str, value: str, *, exact: bool = False) -> str:
        length = str(len(value)).translate(_LENGTH_LETTERS)
        return f"<{kind}_{self.digest(kind, value, exact)}{length}>"

    def digest(self, kind: str, value: str, exact: bool) -> str:
        """What is the same for the same value, in letters."""
        told = f"{kind}\0{same_value(kind, value, exact=exact)}".encode("utf-8", "surrogatepass")
        made = blake2b(self._trace_id + told, key=self._key, digest_size=10)
        return made.hexdigest().translate(_DIGEST_LETTERS)


class _Numbers(Names):
    """Numbers for tags, and for the values of tags."""

    def __init__(self, tags: _Tags) -> None:
        super().__init__()
        self._tags = tags

    def _same(self, kind: str, value: str, exact: bool) -> str:
        tag = TAG.fullmatch(value)
        return tag[2] if tag else self._tags.digest(kind, value, exact)


class _Spread(Edit):
    """Puts tags in place of the values that they stand for."""

    def __init__(self, names: _Tags, tags: Iterable[str]) -> None:
        super().__init__(lambda _: [])
        self._names = names
        read = [found for found in map(TAG.fullmatch, tags) if found]
        self._digests = {(tag[1], tag[2]) for tag in read}
        sizes = {(int(tag[3].translate(_LENGTH_DIGITS)), tag[1]) for tag in read}
        # The longest first, since a value may hold another.
        self._sizes = sorted((size for size in sizes if size[0] >= _LEAST), reverse=True)
        self._done: dict[tuple[str, bool], str] = {}

    def plain(self, text: str, context: str, exact: bool) -> str:  # noqa: ARG002
        if (text, exact) not in self._done:
            self._done[text, exact] = self._replaced(text, exact)
        return self._done[text, exact]

    def value(self, value: str, kind: str, exact: bool) -> str:  # noqa: ARG002
        return value

    def _replaced(self, text: str, exact: bool) -> str:
        begins = [edge.start() for edge in _BEGIN.finditer(text)]
        ends = {edge.start() for edge in _END.finditer(text)}
        found: list[Finding] = []
        taken = bytearray(len(text))
        for size, kind in self._sizes:
            for start in begins:
                end = start + size
                if end in ends and self._is_known(kind, text[start:end]) and taken.find(1, start, end) < 0:
                    taken[start:end] = b"\1" * size
                    found.append(Finding(start, end, kind))
        pieces, done = [], 0
        for start, end, kind in sorted(found):
            pieces += [text[done:start], self._names.of(kind, text[start:end], exact=exact)]
            done = end
        return "".join(pieces) + text[done:] if pieces else text

    def _is_known(self, kind: str, value: str) -> bool:
        return any((kind, self._names.digest(kind, value, exact)) in self._digests for exact in (False, True))

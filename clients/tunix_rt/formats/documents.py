"""JSON documents in whatever layout they have: one on a line, an array of them, or broken over lines."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, Final

from tunix_rt.errors import FormatError
from tunix_rt.formats.compression import Source, name_of, opened
from tunix_rt.formats.lines import (
    MAX_LINE_BYTES,
    LostValueError,
    check_encoding,
    finite,
    key_twice,
    lines_of,
    without_marks,
)
from tunix_rt.formats.reading import OpenFile

_HEAD: Final = 64 * 1024
_BUFFER: Final = 256 * 1024
# An escape of one half of a character without the other, which the parser would replace.
_HALF: Final = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB]..)\\u[dD][c-fC-F][0-9a-fA-F]{2}",
    re.DOTALL,
)
_ESCAPED: Final = re.compile(rb"\\\\")
_OVERLAP: Final = 24
_OPENING: Final = (b"{", b"[", b",", b":")


@contextmanager
def looked_at(source: Source) -> Iterator[OpenFile]:
    """A file whose beginning is known, and is read all the same. Raises as ``opened`` does."""
    name = name_of(source)
    with opened(source) as content:
        stream: Any = _Encoded(content) if isinstance(content, io.TextIOBase) else content
        head = _first_line(stream)
        if not _is_whole(head) and len(head) < _HEAD:
            head += stream.read(_HEAD - len(head))
        yield OpenFile(name, head, io.BufferedReader(_Behind(head, stream), _BUFFER), _plain_path(source))


def _plain_path(source: Source) -> str:
    if not isinstance(source, str) or source == "-":
        return "" if isinstance(source, str) or not hasattr(source, "__fspath__") else str(source)
    return source


def _first_line(stream: IO[bytes]) -> bytes:
    """The first line that is not blank, behind those that are."""
    head = b""
    while len(head) <= MAX_LINE_BYTES and (line := stream.readline(MAX_LINE_BYTES + 1)):
        head += line
        if line.strip():
            break
    return head


def _is_whole(line: bytes) -> bool:
    try:
        return isinstance(json.loads(without_marks(line)), dict)
    except (ValueError, RecursionError):
        return False


class _Behind(io.RawIOBase):
    """What was read of a stream already, and then the rest of it."""

    def __init__(self, head: bytes, rest: IO[bytes]) -> None:
        self._head = memoryview(head)
        self._rest = rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._head:
            taken = min(len(buffer), len(self._head))
            buffer[:taken] = self._head[:taken]
            self._head = self._head[taken:]
            return taken
        read = getattr(self._rest, "read1", self._rest.read)
        data = read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


class _Encoded(io.RawIOBase):
    """A text file as bytes."""

    def __init__(self, file: io.TextIOBase) -> None:
        self._file = file
        self._waiting = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._waiting:
            self._waiting = self._file.read(_HEAD).encode("utf-8", "surrogatepass")
        taken = min(len(buffer), len(self._waiting))
        buffer[:taken], self._waiting = self._waiting[:taken], self._waiting[taken:]
        return taken


Document = tuple[int, bytes, FormatError | None]


def documents_of(file: OpenFile) -> Iterator[Document]:
    """Yield the number, from 1, and the bytes of each document of a file, in bounded memory; of one that is
    wrong for itself why, and no bytes.

    The number is that of its line; of an array, or of documents that are broken over lines, its place.
    """
    beginning = without_marks(file.head.lstrip()).lstrip()
    if beginning.startswith(b"["):
        return _streamed(file, "item")
    if beginning.startswith(b"{") and _is_broken(beginning):
        return _streamed(file, "")
    return ((number, line, None) for number, line in lines_of(file.stream, file.name))


def _is_broken(beginning: bytes) -> bool:
    """Whether an object goes on behind its first line.

    A line that was cut off does so too, but a whole one follows it, or it does not end where a value begins.
    """
    first, _, rest = (part.strip() for part in beginning.partition(b"\n"))
    if not rest or not first.endswith(_OPENING):
        return False
    # Behind a brace there is a key, or another brace.
    if first.endswith(b"{") and not rest.startswith((b'"', b"}")):
        return False
    return not _is_whole(rest.partition(b"\n")[0])


def _streamed(file: OpenFile, prefix: str) -> Iterator[Document]:
    # Most files are lines, which do not need it.
    import ijson

    check_encoding(file.head, file.name)
    measured = _Measured(file)
    number = 0
    try:
        for document in ijson.items(measured, prefix, multiple_values=True, use_float=False, map_type=_Once):
            number += 1
            measured.begin()
            try:
                if (key := _twice_in(document)) is not None:
                    raise key_twice(key)
                # Numbers with a fraction are kept as Python's own parser reads them from a line.
                text = json.dumps(document, ensure_ascii=False, separators=(",", ":"), default=_number)
            except LostValueError as error:
                yield number, b"", error.of_line(number, file.name)
            except RecursionError:
                yield number, b"", FormatError(number, "is nested too deep", file=file.name)
            else:
                yield number, text.encode("utf-8", "surrogatepass"), None
    except ijson.IncompleteJSONError as error:
        raise _cut_off(number, error, file.name) from None
    except ijson.JSONError as error:
        raise FormatError(number + 1, f"not JSON: {_told(error)}", file=file.name) from None
    except UnicodeDecodeError:
        raise FormatError(number + 1, "not UTF-8", file=file.name) from None


def _number(value: Any) -> float:
    return finite(str(value))


class _Once(dict[str, Any]):
    """An object that notes a key that it is given twice; the parser does not end by what it raises."""

    twice: str | None = None

    def __setitem__(self, key: str, value: Any) -> None:
        if key in self:
            self.twice = key
        super().__setitem__(key, value)


def _twice_in(value: Any) -> str | None:
    """A key that stands twice in an object of a document."""
    if isinstance(value, _Once) and value.twice is not None:
        return value.twice
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next((key for entry in inner if (key := _twice_in(entry)) is not None), None)


def _cut_off(number: int, error: Exception, file: str) -> FormatError:
    told = _told(error)
    if "premature EOF" in told or "Incomplete" in told:
        told = "ends in the middle of it; the file was cut off"
    return FormatError(number + 1, f"not JSON: {told}", file=file)


def _told(error: Exception) -> str:
    """The first line of what the parser says, which shows the text around the place below it."""
    return (str(error).strip().splitlines() or ["cannot be read"])[0][:200]


class _Measured:
    """Reads a file for the parser, and ends it where one document is longer than any line may be."""

    def __init__(self, file: OpenFile) -> None:
        self._file = file
        self._bytes = 0
        self._number = 1
        self._begun = False
        self._tail = b""

    def begin(self) -> None:
        """The next document begins."""
        self._bytes = 0
        self._number += 1

    def read(self, size: int = -1) -> bytes:
        data = self._file.stream.read(size)
        if not self._begun and data:
            self._begun = True
            data = without_marks(data)
        self._bytes += len(data)
        self._check_halves(data)
        if self._bytes > MAX_LINE_BYTES + _HEAD:
            raise FormatError(self._number, "is longer than 8 MiB", file=self._file.name)
        return data

    def _check_halves(self, data: bytes) -> None:
        """Refuse half of a character. Of the last bytes it is known when the next ones are there."""
        seen = self._tail + data
        self._tail = seen[-_OVERLAP:]
        if b"\\ud" not in seen and b"\\uD" not in seen:
            return
        # A backslash that is escaped begins no escape; its place is kept.
        plain = _ESCAPED.sub(b"..", seen)
        for half in _HALF.finditer(plain):
            inside = not data or half.end() <= len(plain) - _OVERLAP // 2
            if inside and (half.start() >= _OVERLAP // 2 or len(seen) == len(data)):
                raise FormatError(
                    self._number,
                    "here or soon behind, an escape is half of a character, and the other half is missing",
                    file=self._file.name,
                )

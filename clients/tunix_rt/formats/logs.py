"""Logs of agents and of model calls: which form a file has, and its conversations."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, Final

import ijson

from tunix_rt import v1
from tunix_rt.errors import FormatError
from tunix_rt.formats import inspect_logs
from tunix_rt.formats.atif import atif, is_atif
from tunix_rt.formats.claude_code import claude_code, is_claude_code
from tunix_rt.formats.codex import codex, is_codex
from tunix_rt.formats.lines import LostValueError, check_encoding, lines_of, strict_json, without_marks
from tunix_rt.formats.reading import FileFormat, OpenFile, Reading, Record
from tunix_rt.formats.span_files import is_langfuse, is_otlp, is_phoenix, span_records

# A document that is broken over lines is read as a whole.
_MOST_BYTES: Final = 256 * 1024 * 1024

Rows = Iterable[tuple[int, dict[str, Any]]]
Sessions = Callable[[Rows, str, Reading], Iterator[tuple[int, "v1.Trace | FormatError"]]]

_DEEP: Final = 1_000
_PIECE: Final = 2_048
_LOOKED_AT: Final = 64 * 1024


def _row(head: bytes) -> dict[str, Any]:
    """The object on the first line of a file; empty if there is none."""
    first = without_marks(head.lstrip()).lstrip().partition(b"\n")[0]
    try:
        found = json.loads(first)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _keys(head: bytes) -> dict[str, Any]:
    """The keys of a file's first object, as far as its beginning has them; values that are no text are None.

    The first object is that of the first line, of an array, or of the page of an API's answer.
    """
    if row := _row(head):
        inner = next((row[key] for key in ("data", "spans") if isinstance(row.get(key), list)), None)
        return inner[0] if inner and isinstance(inner[0], dict) else row
    found: dict[str, Any] = {}
    try:
        for prefix, event, value in ijson.parse(without_marks(head.lstrip())[:_LOOKED_AT], buf_size=_PIECE):
            if len(prefix) > _DEEP:
                # Each level would take longer than the one before it.
                break
            outer, _, key = prefix.rpartition(".")
            if event == "map_key" and prefix in ("", "item", "data.item", "spans.item"):
                found.setdefault(value)
            elif event == "string" and outer in ("", "item", "data.item", "spans.item"):
                found[key] = value
    except (ijson.JSONError, UnicodeDecodeError):
        pass
    return found


def _lines(file: OpenFile, reading: Reading) -> Iterator[tuple[int, dict[str, Any] | Record]]:
    """The objects on the lines of a file, and what is wrong with lines that hold none; a last line that was
    cut off is counted."""
    cut_off: Record | None = None
    for number, line in lines_of(file.stream, file.name):
        if cut_off is not None:
            yield cut_off.number, cut_off
            cut_off = None
        try:
            found = strict_json(line)
        except LostValueError as error:
            yield number, Record(number, line, None, error.of_line(number, file.name))
            continue
        except (ValueError, RecursionError) as error:
            found, problem = None, f"not JSON: {error}"
        else:
            problem = "expected a JSON object, {...}"
        if isinstance(found, dict):
            yield number, found
        else:
            # Programs write a line and its end at once: what is not whole is still being written.
            cut_off = Record(number, line, None, FormatError(number, problem, file=file.name))
    if cut_off is not None:
        reading.lossy.add("last line", "cut off (is the file still being written?) and left out")
        # It belongs to none of the traces.
        reading.lossy.keep()


def _sessions(read: Sessions, file: OpenFile, reading: Reading) -> Iterator[Record]:
    """The sessions of a file of JSON lines. Wrong lines come first: a session may lack what they say."""
    rows: list[tuple[int, dict[str, Any]]] = []
    for number, line in _lines(file, reading):
        if isinstance(line, Record):
            yield line
        else:
            rows.append((number, line))
    for number, found in read(rows, file.name, reading):
        if isinstance(found, FormatError):
            yield Record(number, b"", None, found)
        else:
            yield Record(number, b"", found, None)


def _documents(file: OpenFile, reading: Reading) -> Iterator[tuple[int, dict[str, Any] | Record]]:
    """The objects of a file: one a line, an array, or one that is broken over lines; and what is wrong with a
    line, or an element, that holds none.

    Raises FormatError for what is no JSON otherwise.
    """
    check_encoding(file.head, file.name)
    beginning = without_marks(file.head.lstrip()).lstrip()
    number = 0
    try:
        if beginning.startswith(b"["):
            for number, entry in enumerate(ijson.items(file.stream, "item", use_float=True), 1):
                error = FormatError(number, "expected a JSON object, {...}", file=file.name)
                yield number, entry if isinstance(entry, dict) else Record(number, b"", None, error)
        elif _row(file.head):
            yield from _lines(file, reading)
        else:
            data = file.stream.read(_MOST_BYTES + 1)
            if len(data) > _MOST_BYTES:
                raise FormatError(0, f"is longer than {_MOST_BYTES:,} bytes", file=file.name)
            found = strict_json(without_marks(data.lstrip()))
            yield 1, found if isinstance(found, dict) else {}
    except LostValueError as error:
        raise error.of_line(number, file.name) from None
    except (ValueError, RecursionError, ijson.JSONError) as error:
        told = (str(error).strip().splitlines() or ["cannot be read"])[0]
        raise FormatError(number, f"not JSON: {told[:200]}", file=file.name) from None


def _trajectories(file: OpenFile, reading: Reading) -> Iterator[Record]:
    for number, document in _documents(file, reading):
        if isinstance(document, Record):
            yield document
            continue
        try:
            trace = atif(document, number, file.name, reading)
        except FormatError as error:
            yield Record(number, b"", None, error)
        else:
            yield Record(number, b"", trace, None)


def _spans(file: OpenFile, reading: Reading) -> Iterator[Record]:
    return span_records(_documents(file, reading), file.name, reading)


def _fits(is_one: Callable[[Mapping[str, Any]], bool], look: Callable[[bytes], Mapping[str, Any]]) -> Any:
    return lambda file: is_one(look(file.head))


def _is_inspect(file: OpenFile) -> bool:
    if file.head.startswith(inspect_logs.ZIP):
        # Of other archives it is said what they are.
        return file.path.endswith(".eval") or any(name in file.head for name in inspect_logs.NAMES)
    return {"version", "status", "eval"} <= _keys(file.head).keys()


LOG_FORMATS: Final = (
    FileFormat("inspect", _is_inspect, inspect_logs.read_log),
    FileFormat("claude-code", _fits(is_claude_code, _row), partial(_sessions, claude_code)),
    FileFormat("codex", _fits(is_codex, _row), partial(_sessions, codex)),
    FileFormat("atif", _fits(is_atif, _keys), _trajectories),
    FileFormat("otlp", _fits(is_otlp, _keys), _spans),
    FileFormat("phoenix", _fits(is_phoenix, _keys), _spans),
    FileFormat("langfuse", _fits(is_langfuse, _keys), _spans),
)
"""The forms of logs, in the order in which they are looked for."""


def is_log(head: bytes, name: str) -> bool:
    """Whether a file that begins with ``head`` is a log, of which a conversation has many lines."""
    file = OpenFile(name, head, io.BytesIO(head), name)
    return any(form.fits(file) for form in LOG_FORMATS)

"""Lines of JSON: where they come from, and how one becomes a record."""

from __future__ import annotations

import json
import math
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, Final, TypeVar

from google.protobuf.struct_pb2 import Struct, Value
from pydantic import BaseModel, ValidationError

from tunix_rt.errors import FieldViolation, FormatError
from tunix_rt.formats.compression import Source, name_of, opened
from tunix_rt.formats.kinds import check_kind, folder_refusal
from tunix_rt.schema import one_line, path_of, violations_of

# A trace has at most 1 MiB encoded, and JSON's escapes make at most six bytes of one.
MAX_LINE_BYTES: Final = 8 * 1024 * 1024
# Beyond this, protobuf refuses to read what it has written.
_MAX_DEPTH: Final = 30
_MAX_INTEGER: Final = 2**53
_BOM: Final = b"\xef\xbb\xbf"
# A byte-order mark, or the zeros beside the ASCII that a line of JSON begins with.
_UTF_32: Final = re.compile(rb"\xff\xfe\0\0|\0\0\xfe\xff|[{\[\s]\0\0\0|\0\0\0[{\[\s]")
_UTF_16: Final = re.compile(rb"\xff\xfe|\xfe\xff|[{\[\s]\0|\0[{\[\s]|(?:[!-~]\0){2}|(?:\0[!-~]){2}")
_TABLE: Final = re.compile(rb"[^{\[\"]*[,;\t|]")
_AS_TABLE: Final = "; a table is read with --format csv or --format tsv"
# An escape of one half of a character; Python reads each for itself.
_HALVES: Final = re.compile(rb"\\u[dD][89a-fA-F]")
_NEWLINES: Final = (b"\n", "\n")
_AS_LINES: Final = (
    "; each line must hold one object: `jq -c .` makes lines of documents, `jq -c '.[]'` of an array"
)

Model = TypeVar("Model", bound=BaseModel)


class LostValueError(ValueError):
    """JSON says what no parser keeps: a key twice in one object, or a number beyond all floats."""

    def __init__(self, what: str, problem: str) -> None:
        self.what = what[:200]
        self.problem = problem
        super().__init__(f"{self.what}: {problem}")

    def of_line(self, number: int, file: str) -> FormatError:
        """The error of the line, or the document, that says it."""
        violations = [FieldViolation(self.what, self.problem)]
        return FormatError(number, str(self), file=file, field_violations=violations)


def key_twice(key: str) -> LostValueError:
    """What is wrong with a key that stands twice."""
    problem = "stands twice in one object; once would be right, as one of the values would be lost"
    return LostValueError(key, problem)


def finite(digits: str) -> float:
    """A number that has a fraction or an exponent; raises LostValueError if it is too large."""
    value = float(digits)
    if math.isinf(value):
        problem = "is a number beyond 1.8e308, which would be lost; a text would be right"
        raise LostValueError(digits, problem)
    return value


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of these pairs; raises LostValueError where a key stands twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise key_twice(next(key for index, key in enumerate(keys) if key in keys[:index]))
    return found


_STRICT: Final = json.JSONDecoder(object_pairs_hook=once, parse_float=finite)


def strict_json(line: bytes) -> Any:
    """The value on a line; raises LostValueError, and what Python's own parser raises."""
    return _STRICT.decode(line.decode("utf-8", "surrogatepass"))


def read_lines(source: Source) -> Iterator[tuple[int, bytes]]:
    """Yield the number, from 1, and the bytes of each line that is not blank, in bounded memory.

    The source may be compressed. A line of more than 8 MiB is cut one byte after that; ``parse_line`` and
    ``keys_of`` refuse it.

    Raises:
        FormatError: the source cannot be opened or read, or is encoded as UTF-16 or UTF-32.
    """
    name = name_of(source)
    with read_failures(name), opened(source) as file:
        yield from lines_of(file, name)


def lines_of(file: IO[bytes] | IO[str], name: str) -> Iterator[tuple[int, bytes]]:
    """As ``read_lines``, of a file that is open and called ``name``."""
    number = 0
    while raw := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        line = raw.encode("utf-8", "surrogatepass") if isinstance(raw, str) else raw
        if number == 1:
            check_encoding(line, name)
            check_kind(line, name)
        if len(raw) > MAX_LINE_BYTES and raw[-1:] not in _NEWLINES:
            yield number, line
            while (rest := file.readline(MAX_LINE_BYTES)) and rest[-1:] not in _NEWLINES:
                pass
            continue
        line = (without_marks(line) if number == 1 else line).strip()
        if line:
            yield number, line


@contextmanager
def read_failures(name: str) -> Iterator[None]:
    """Around what reads the file ``name``: what goes wrong with it becomes a FormatError."""
    try:
        yield
    except FileNotFoundError:
        raise FormatError(0, "no such file", file=name) from None
    except IsADirectoryError:
        raise folder_refusal(name) from None
    except EOFError:
        raise FormatError(
            0, "ends in the middle of its compressed data; the file was cut off", file=name
        ) from None
    except zlib.error as error:
        raise FormatError(0, f"its gzip data is damaged ({error})", file=name) from None
    except OSError as error:
        raise FormatError(0, f"cannot be read: {error.strerror or error}", file=name) from error


def parse_line(model: type[Model], line: bytes, number: int, file: str) -> Model:
    """The record of one line; raises FormatError that names every wrong field."""
    _check_length(line, number, file)
    try:
        record = model.model_validate_json(line)
    except ValidationError as error:
        violations = violations_of(error, model)
    else:
        check_keys(line, number, file)
        return record
    if violations[0].description.startswith("not JSON"):
        raise FormatError(number, _why_not_json(line) or violations[0].description, file=file)
    raise FormatError(number, one_line(violations), file=file, field_violations=violations)


def check_keys(line: bytes, number: int, file: str) -> None:
    """Refuse a line of JSON with a key twice in one object, of which parsers keep one value, and one with a
    number of which they keep none."""
    try:
        _STRICT.decode(line.decode())
    except LostValueError as error:
        raise error.of_line(number, file) from None
    except (ValueError, RecursionError):
        # Numbers that are too long for Python: whoever reads the line says what is wrong with it.
        return


def keys_of(line: bytes, number: int, file: str) -> set[str]:
    """The keys of the object on a line; raises FormatError if it holds none."""
    _check_length(line, number, file)
    try:
        document = json.loads(line)
    except (ValueError, RecursionError):
        hint = _AS_TABLE if number == 1 and _TABLE.match(line) else ""
        raise FormatError(number, f"{_why_not_json(line) or 'not JSON'}{hint}", file=file) from None
    if not isinstance(document, dict):
        hint = _AS_LINES if isinstance(document, list) else ""
        raise FormatError(number, f"expected a JSON object, {{...}}{hint}", file=file)
    return set(document)


def object_of(line: bytes, number: int, file: str) -> dict[str, Any]:
    """The object on a line; raises FormatError if it holds none, or half of a character."""
    keys_of(line, number, file)
    if _HALVES.search(line) and (why := _why_not_json(line)):
        raise FormatError(number, why, file=file)
    check_keys(line, number, file)
    found: dict[str, Any] = json.loads(line)
    return found


def check_values(value: Any, loc: tuple[str | int, ...]) -> FieldViolation | None:
    """What would not survive in free-form metadata: NaN, integers beyond 2**53, NUL, more than 30 levels."""
    if isinstance(value, str):
        return FieldViolation(path_of(loc), "holds a NUL character") if "\0" in value else None
    if isinstance(value, float):
        return (
            None if math.isfinite(value) else FieldViolation(path_of(loc), f"is {value}; numbers are finite")
        )
    if isinstance(value, int) and abs(value) > _MAX_INTEGER:
        return FieldViolation(path_of(loc), f"is {value}, too large to be kept exactly; write it as a string")
    if isinstance(value, dict | list) and len(loc) > _MAX_DEPTH:
        return FieldViolation(path_of(loc[:4]), f"is nested more than {_MAX_DEPTH} levels deep")
    if isinstance(value, dict):
        for key, entry in value.items():
            found = check_values(key, (*loc, key)) or check_values(entry, (*loc, key))
            if found:
                return found
    if isinstance(value, list):
        for index, entry in enumerate(value):
            found = check_values(entry, (*loc, index))
            if found:
                return found
    return None


def struct_of(metadata: dict[str, Any] | None) -> Struct | None:
    """Free-form metadata as a message; None when there is none."""
    if not metadata:
        return None
    struct = Struct()
    struct.update(metadata)
    return struct


def plain_of(struct: Struct) -> dict[str, Any]:
    """Free-form metadata as Python's own values, in the order of the keys; whole numbers are integers."""
    return {key: _plain(struct.fields[key]) for key in sorted(struct.fields)}


def _plain(value: Value) -> Any:
    match value.WhichOneof("kind"):
        case "string_value":
            return value.string_value
        case "number_value":
            return _number(value.number_value)
        case "bool_value":
            return value.bool_value
        case "struct_value":
            return plain_of(value.struct_value)
        case "list_value":
            return [_plain(entry) for entry in value.list_value.values]
    return None


def _number(value: float) -> float:
    # An integer has no negative zero, and beyond 2**53 it would look more exact than it is.
    if value.is_integer() and abs(value) <= _MAX_INTEGER and (value or math.copysign(1, value) > 0):
        return int(value)
    return value


def without_marks(first: bytes) -> bytes:
    """The first line of a file without its byte-order mark; a program that adds one to one leaves two."""
    while first.startswith(_BOM):
        first = first.removeprefix(_BOM)
    return first


def check_encoding(first: bytes, file: str) -> None:
    """Refuse what is encoded as UTF-16 or UTF-32, by its byte-order mark or the zeros in its ASCII."""
    if _UTF_32.match(first):
        encoding = "UTF-32"
    elif _UTF_16.match(first):
        encoding = "UTF-16"
    else:
        return
    raise FormatError(
        0, f"is {encoding}, expected UTF-8; convert it with: iconv -f {encoding} -t UTF-8", file=file
    )


def _check_length(line: bytes, number: int, file: str) -> None:
    if len(line) > MAX_LINE_BYTES:
        raise FormatError(number, "is longer than 8 MiB", file=file)


def _why_not_json(line: bytes) -> str:
    """Why a line is not JSON, in the words of Python's own parser, which are clearer."""
    try:
        document = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return f"not UTF-8 at byte {error.start + 1}"
    except json.JSONDecodeError as error:
        # A value that the next line goes on with ends where this line does.
        goes_on = error.pos >= len(error.doc.rstrip())
        # A second document on the line is what several ones look like without line breaks between them.
        second = error.msg == "Extra data" and error.doc[error.pos :].lstrip(", ")[:1] in ("{", "[")
        hint = _AS_LINES if goes_on or second else ""
        return f"not JSON: {error.msg} at character {error.pos + 1}{hint}"
    except (ValueError, RecursionError) as error:
        return f"not JSON: {error}"
    try:
        json.dumps(document, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        lone = json.dumps(error.object[error.start])
        return f"not JSON: {lone} is half of a character, and the other half is missing"
    return ""

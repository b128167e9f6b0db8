"""Rows of a Parquet file as lines of JSON, in bounded memory."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date, datetime, time
from pathlib import Path
from typing import Any, Final

from tunix_rt.errors import FormatError
from tunix_rt.files import open_regular
from tunix_rt.formats.compression import INSTALL, PARQUET, Source, name_of
from tunix_rt.formats.lines import read_failures
from tunix_rt.formats.rows import TRACE_VERSION, paragraphs

# A row may hold a megabyte, and a column chunk any number of rows.
_ROWS: Final = 100
_READ_BYTES: Final = 1024 * 1024
_METADATA: Final = "metadata."
_NATIVE: Final = ("prompt", "steps", "final_answer")
_PAIR: Final = {"prompt", "completion"}
_FORMS: Final = (
    set(_NATIVE), {"question", "answer"}, {"messages"}, {"conversations"}, {"prompts", "trace_steps"},
    _PAIR, {"instruction", "output"}, {"request", "response"},
)  # fmt: skip
_STRUCTS: Final = {"messages", "conversations", "tools", "functions", "request", "response"}
_TOOLS: Final = {"tools", "functions", "tool_calls", "function_call"}
FIELDS: Final = (
    *_NATIVE, "source", "trace_version", "metadata", "question", "answer", "messages", "conversations",
    "id", "prompts", "trace_steps", "completion",
)  # fmt: skip


def is_parquet(source: Source) -> bool:
    """Whether a regular file, or an open binary one that can seek, begins as Parquet does. Raises OSError."""
    if isinstance(source, str | os.PathLike):
        # Of a named pipe, what is looked at is gone.
        if not Path(source).is_file():
            return False
        with open_regular(source) as file:
            return file.read(len(PARQUET)) == PARQUET
    if not source.seekable():
        return False
    place = source.tell()
    head = source.read(len(PARQUET))
    source.seek(place)
    return head == PARQUET


def row_count(source: Source) -> int:
    """How many rows a Parquet file has. Raises FormatError."""
    with parquet_file(source) as file:
        return int(file.metadata.num_rows)


def read_rows(source: Source, columns: Mapping[str, str] | None = None) -> Iterator[tuple[int, bytes]]:
    """Yield the number, from 1, and the JSON object of each row.

    Args:
        source: a path, or an open binary file that can seek.
        columns: for each field of a trace, a GSM8K line or a chat, the column that holds it;
            ``metadata.KEY`` is a key of the metadata. Left out: each column is the field of its name.
            ``steps`` may be a list of steps, a list of texts, or one text whose paragraphs are the steps.

    Raises:
        FormatError: this is no Parquet file, or has no such column; pyarrow is not installed.
    """
    with parquet_file(source) as file:
        wanted = _checked(columns, file.schema_arrow.names, name_of(source))
        number = 0
        for batch in file.iter_batches(
            batch_size=_ROWS, columns=sorted(set(wanted.values())), use_threads=False
        ):
            for row in batch.to_pylist():
                number += 1
                yield number, row_line({field: row[column] for field, column in wanted.items()})


@contextmanager
def parquet_file(source: Source) -> Iterator[Any]:
    """The ``pyarrow.parquet.ParquetFile`` of a path or an open file; raises FormatError as ``rows`` does."""
    name = name_of(source)
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise FormatError(
            0, f"reading Parquet needs pyarrow; install it with: {INSTALL}", file=name
        ) from None
    try:
        with read_failures(name):
            if isinstance(source, str | os.PathLike):
                # pyarrow waits for whoever writes into a pipe. It reads faster by name than through a file.
                open_regular(source).close()
            with pq.ParquetFile(source, buffer_size=_READ_BYTES, pre_buffer=False) as file:
                yield file
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise FormatError(0, f"cannot be read as Parquet: {error}", file=name) from error


def _checked(columns: Mapping[str, str] | None, there: list[str], file: str) -> dict[str, str]:
    """The column of each field."""
    if not columns:
        if not any(form <= set(there) for form in _FORMS):
            raise FormatError(
                0,
                f"its columns ({_listed(there)}) are not named as the fields of a trace; say which is which: "
                "--column prompt=COLUMN --column steps=COLUMN --column final_answer=COLUMN, or, where the "
                "answer holds its reasoning, --column prompt=COLUMN --column completion=COLUMN",
                file=file,
            )
        return {name: name for name in there}
    return wanted_columns(columns, there, file)


def wanted_columns(columns: Mapping[str, str], there: list[str], file: str) -> dict[str, str]:
    """``columns``, of which each field is known and each column there; raises FormatError."""
    for field, column in columns.items():
        if field not in FIELDS and not (field.startswith(_METADATA) and len(field) > len(_METADATA)):
            raise FormatError(
                0,
                f"column {column!r}: {field!r} is no field; one of {', '.join(FIELDS)} or metadata.KEY",
                file=file,
            )
        if column not in there:
            raise FormatError(0, f"has no column {column!r} for {field}; it has {_listed(there)}", file=file)
    missing = [field for field in _NATIVE if field not in columns]
    if 0 < len(missing) < len(_NATIVE) and not columns.keys() >= _PAIR:
        raise FormatError(0, f"no column is named for {' and '.join(missing)}", file=file)
    return dict(columns)


def _listed(names: list[str]) -> str:
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "") or "none"


def row_line(row: dict[str, Any]) -> bytes:
    """The JSON object of a row, without nulls that no row has written."""
    # Lists of structs have all keys of all rows; those that a row has not are null.
    for key in _STRUCTS & row.keys():
        row[key] = _without_nulls(row[key], key in _TOOLS)
    # A null says that a row has no such field.
    document = {field: value for field, value in row.items() if value is not None}
    if isinstance(document.get("metadata"), str):
        document["metadata"] = _object_in(document["metadata"])
    inner = {field: document.pop(field) for field in list(document) if field.startswith(_METADATA)}
    if inner:
        document["metadata"] = (document.get("metadata") or {}) | {
            field.removeprefix(_METADATA): value for field, value in inner.items()
        }
    if "prompt" in document and document.keys().isdisjoint({"messages", "completion"}):
        _complete(document)
    # What is not UTF-8 is left as it is, for the error that names the row.
    return json.dumps(document, ensure_ascii=False, default=_plain).encode("utf-8", "surrogateescape")


def _object_in(text: str) -> Any:
    """The JSON object that is written as a text, as datasets are exported with; else the text."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return found if isinstance(found, dict) else text


def _without_nulls(value: Any, inside: bool) -> Any:
    """``value`` without the null fields of tools and of calls, which no row has written."""
    if isinstance(value, list):
        return [_without_nulls(entry, inside) for entry in value]
    if isinstance(value, dict):
        return {
            key: _without_nulls(entry, inside or key in _TOOLS)
            for key, entry in value.items()
            if entry is not None or not inside
        }
    return value


def _complete(document: dict[str, Any]) -> None:
    """Gives a row the form of our own lines."""
    document.setdefault("trace_version", TRACE_VERSION)
    answer, steps = document.get("final_answer"), document.get("steps")
    if isinstance(answer, int) and not isinstance(answer, bool):
        document["final_answer"] = str(answer)
    if isinstance(steps, str | bytes):
        steps = paragraphs(steps if isinstance(steps, str) else _plain(steps))
    if isinstance(steps, list) and all(isinstance(step, str) for step in steps):
        document["steps"] = [
            {"i": index, "type": "reason", "content": step} for index, step in enumerate(steps)
        ]


def _plain(value: Any) -> str:
    """A value that JSON has no type for."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    return value.isoformat() if isinstance(value, datetime | date | time) else str(value)

"""Files of traces: which form they have, and each of their lines as a trace."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import starmap
from typing import Any, Final, Literal, TypeAlias

from tunix_rt import v1
from tunix_rt.errors import FormatError
from tunix_rt.formats.alpaca import KEYS, alpaca_reader
from tunix_rt.formats.api_logs import is_log, log_reader
from tunix_rt.formats.columns import TRACE_FORM, TableRow, table_rows, trace_document
from tunix_rt.formats.compression import PARQUET_PIPED, Source, name_of
from tunix_rt.formats.conversations import conversation_document
from tunix_rt.formats.delimited import DELIMITERS, table_format
from tunix_rt.formats.documents import documents_of, looked_at
from tunix_rt.formats.kinds import hint_for_traces
from tunix_rt.formats.lines import MAX_LINE_BYTES, keys_of, plain_of, read_failures
from tunix_rt.formats.logs import LOG_FORMATS
from tunix_rt.formats.pairs import Pairs
from tunix_rt.formats.parquet import is_parquet, read_rows
from tunix_rt.formats.reading import (
    BadArguments,
    FileFormat,
    LineFormat,
    Lossy,
    Media,
    OpenFile,
    Reading,
    Record,
)
from tunix_rt.formats.rows import dataset, gsm8k, native

TraceFormat: TypeAlias = Literal[
    "auto",
    "native",
    "gsm8k",
    "chat",
    "openai",
    "anthropic",
    "sharegpt",
    "alpaca",
    "dataset",
    "parquet",
    "csv",
    "tsv",
    "prompt-completion",
    "inspect",
    "claude-code",
    "codex",
    "atif",
    "otlp",
    "phoenix",
    "langfuse",
]

_PAIRS: Final = "prompt-completion"
_NATIVE: Final = {"prompt", "steps", "final_answer"}
_NATIVE_LATER: Final = {"steps", "final_answer"}


def _is_native(keys: set[str]) -> bool:
    """Whether lines are meant to be in our own form, whole or with an error that is to be named."""
    hint = hint_for_traces(keys)
    return bool(keys & _NATIVE) and not (hint and keys.isdisjoint(_NATIVE_LATER))


LINE_FORMATS: Final = (
    LineFormat("native", {"trace_version", "messages"}.issubset, lambda _: native),
    LineFormat("openai", {"messages", "choices"}.issubset, log_reader),
    LineFormat("chat", {"messages"}.issubset, log_reader),
    LineFormat("chat", {"conversations"}.issubset, log_reader),
    LineFormat("anthropic", lambda _: False, log_reader),
    LineFormat("sharegpt", lambda _: False, log_reader),
    LineFormat("gsm8k", {"question", "answer"}.issubset, lambda _: gsm8k),
    LineFormat("dataset", {"prompts", "trace_steps"}.issubset, lambda _: dataset),
    LineFormat("alpaca", KEYS.issubset, alpaca_reader),
    LineFormat("openai", is_log, log_reader),
    LineFormat(
        _PAIRS,
        lambda keys: {"prompt", "completion"} <= keys and keys.isdisjoint(_NATIVE_LATER),
        Pairs,
    ),
    LineFormat("native", _is_native, lambda _: native),
)
"""The forms of lines; the first that fits the keys of a line counts."""

FILE_FORMATS: Final[tuple[FileFormat, ...]] = LOG_FORMATS
"""The forms of whole files; they are looked for before those of lines."""

_BAD_LINE: Final = {"line", "error", "text"}


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that was left out of an import: its number, why, and its bytes.

    In a file of errors it is one JSON object of ``line``, ``error`` and ``text``. Bytes that are no UTF-8 are
    lone surrogates in it, so that none is lost.
    """

    number: int
    error: str
    line: bytes

    def to_json(self) -> str:
        """The object, in ASCII; of a line that is too long for a line in it, the beginning alone."""
        text = self.line.decode("utf-8", "surrogateescape")
        whole = json.dumps({"line": self.number, "error": self.error, "text": text})
        if len(whole) <= MAX_LINE_BYTES:
            return whole
        error = f"{self.error} (here is its beginning alone)"
        return json.dumps({"line": self.number, "error": error, "text": text[:1_000]})


def read_traces(
    source: Source,
    format: TraceFormat = "auto",
    *,
    columns: Mapping[str, str] | None = None,
    delimiter: str | None = None,
    answers_only: bool = False,
    media: Media = "refuse",
    bad_arguments: BadArguments = "keep",
    lossy: Lossy | None = None,
) -> Iterator[v1.Trace]:
    """Yield the traces of a file, one at a time; blank lines are passed over.

    Args:
        source: a path, ``-`` for standard input, or an open file, text or binary. What is compressed by gzip
            or Zstandard is decompressed. JSON may be one object a line, an array, or broken over lines.
        format: ``native`` (see ``trace_from_json``), ``gsm8k`` (``question``, and ``answer`` of reasoning
            lines and ``#### N``), ``chat`` (``messages`` or ``conversations``; ``sharegpt`` is another name),
            ``openai`` and ``anthropic`` (chats, or logs of requests and responses), ``alpaca``
            (``instruction``, ``input``, ``output``), ``dataset`` (rows of a dataset in the trace format),
            ``prompt-completion`` (a prompt and a completion), ``parquet`` (rows of any of these), ``csv`` or
            ``tsv`` (a header, then rows), or ``auto``: the file's name, its beginning and its keys tell.
        columns: for Parquet, CSV and TSV the column, for ``prompt-completion`` the key, that holds each
            field, as {"prompt": "question"}.
        delimiter: for CSV and TSV what separates the cells. Left out: a comma for CSV, a tab for TSV.
        answers_only: take an answer without reasoning as the one step of a trace, not as a conversation.
        media: "leave-out" leaves images and audio out of messages, and counts them.
        bad_arguments: what to do about a call's arguments that are no JSON object: "keep" them as text and
            count them, or "refuse" the line.
        lossy: takes what is left out, and how often.

    Raises:
        FormatError: names the file, the line, and every wrong field. What came before was yielded.
    """
    records = read_records(
        source,
        format,
        columns=columns,
        delimiter=delimiter,
        answers_only=answers_only,
        media=media,
        bad_arguments=bad_arguments,
        lossy=lossy,
    )
    for record in records:
        if record.trace is None:
            raise record.error or FormatError(record.number, "holds no trace", file=name_of(source))
        yield record.trace


def read_records(
    source: Source,
    format: TraceFormat = "auto",
    *,
    columns: Mapping[str, str] | None = None,
    delimiter: str | None = None,
    answers_only: bool = False,
    media: Media = "refuse",
    bad_arguments: BadArguments = "keep",
    lossy: Lossy | None = None,
    assigned: dict[str, str] | None = None,
) -> Iterator[Record]:
    """As ``read_traces``, and goes on behind a wrong line. Of a file of ``BadLine`` the texts are read.

    ``assigned`` takes the column, or key, of each field, where the fields were found by columns.

    Raises FormatError for what is wrong with the file as a whole.
    """
    reading = Reading(
        answers_only,
        media,
        bad_arguments,
        columns if format == _PAIRS else None,
        lossy or Lossy(),
        {} if assigned is None else assigned,
    )
    table = format if format in DELIMITERS else table_format(source) if format == "auto" else None
    with _rows(source, format, table, columns, delimiter, reading.assigned) as (rows, file):
        whole = next((form for form in FILE_FORMATS if file and _is_form(form, format, file)), None)
        if whole is not None and file is not None:
            yield from _counted(whole.read(file, reading), reading.lossy)
        else:
            found = _read_rows(rows, format, name_of(source), reading, table is not None)
            yield from _counted(found, reading.lossy)


def _is_form(form: FileFormat, format: str, file: OpenFile) -> bool:
    return format == form.name or (format == "auto" and form.fits(file))


def _counted(records: Iterator[Record], lossy: Lossy) -> Iterator[Record]:
    for record in records:
        if record.trace is None:
            lossy.drop()
        else:
            lossy.keep()
        yield record


def _read_rows(
    rows: Iterator[TableRow], format: str, file: str, reading: Reading, table: bool
) -> Iterator[Record]:
    builders = {form.name: form.builder(reading) for form in LINE_FORMATS}
    build = builders.get(format)
    mended: bool | None = None
    for number, line, fault, fields in rows:
        if mended is None:
            mended = not table and _is_bad_line(line)
        text = line
        try:
            if fault is not None:
                raise fault
            if mended:
                text = _text_of(line, number, file)
            chosen = build or builders[_row_form(fields) if fields else _detect(text, number, file)]
            # A file of errors may hold more than one form, and so may a table.
            build = build if mended or table else chosen
            trace = chosen(text, number, file)
        except FormatError as error:
            yield Record(number, text, None, error)
        else:
            yield Record(number, text, trace, None)


def trace_from_json(line: str | bytes) -> v1.Trace:
    """The trace of one native JSON object: ``trace_version``, ``prompt``, ``steps`` of ``i``, ``type`` and
    ``content``, and ``final_answer``, or instead of these three ``messages`` and, if wanted, ``tools``; and,
    if wanted, ``metadata`` and ``source``.

    Fields that the server writes may be there and are left out. Raises FormatError that names each wrong
    field.
    """
    return native(line.encode("utf-8", "surrogatepass") if isinstance(line, str) else line, 0, "")


def trace_to_json(trace: v1.Trace) -> str:
    """The native JSON object of a trace, on one line, without the fields that the server writes."""
    document: dict[str, Any] = {"trace_version": trace.trace_version}
    if trace.messages:
        document |= conversation_document(trace)
    else:
        document |= {
            "prompt": trace.prompt,
            "steps": [{"i": step.i, "type": step.type, "content": step.content} for step in trace.steps],
            "final_answer": trace.final_answer,
        }
    if trace.metadata.fields:
        document["metadata"] = plain_of(trace.metadata)
    if trace.source:
        document["source"] = trace.source
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


@contextmanager
def _rows(
    source: Source,
    format: str,
    table: str | None,
    columns: Mapping[str, str] | None,
    delimiter: str | None,
    assigned: dict[str, str],
) -> Iterator[tuple[Iterator[TableRow], OpenFile | None]]:
    """The rows of a file; and the file itself, where it is no table and no Parquet."""
    name = name_of(source)
    if source == "-" and format == "parquet":
        raise FormatError(0, PARQUET_PIPED, file=name)
    if table is not None:
        yield table_rows(source, table, columns, delimiter, TRACE_FORM, trace_document, assigned), None
        return
    if delimiter is not None:
        raise FormatError(0, "is read as lines, which have no delimiter; give --format csv", file=name)
    with read_failures(name):
        parquet = is_parquet(source)
    if not (parquet or format in ("parquet", _PAIRS)) and columns:
        raise FormatError(
            0,
            "is no Parquet file, so that it has no columns to name; keys are named with --format "
            "prompt-completion, columns of CSV with --format csv",
            file=name,
        )
    if parquet or format == "parquet":
        assigned.update(columns or {})
        yield starmap(TableRow, read_rows(source, columns)), None
        return
    with read_failures(name), looked_at(source) as file:
        yield starmap(TableRow, documents_of(file)), file


def _is_bad_line(line: bytes) -> bool:
    try:
        return keys_of(line, 0, "") == _BAD_LINE
    except FormatError:
        return False


def _text_of(line: bytes, number: int, file: str) -> bytes:
    """What stands in ``text`` of a line of a file of errors."""
    if keys_of(line, number, file) == _BAD_LINE:
        # Not by pydantic, which refuses the lone surrogates.
        text = json.loads(line)["text"]
        if isinstance(text, str):
            try:
                return text.encode("utf-8", "surrogateescape")
            except UnicodeEncodeError:
                raise FormatError(number, "text: holds a lone surrogate", file=file) from None
    raise FormatError(number, "is no line of a file of errors; expected line, error and text", file=file)


def _row_form(fields: Collection[str]) -> str:
    """The name of the form of a table's row."""
    if "messages" in fields or "conversations" in fields:
        return "chat"
    if "question" in fields:
        return "gsm8k"
    return "native" if "steps" in fields else _PAIRS


def _detect(line: bytes, number: int, file: str) -> str:
    """The name of the form that a line has by its keys."""
    keys = keys_of(line, number, file)
    for form in LINE_FORMATS:
        if form.fits(keys):
            return form.name
    hint = hint_for_traces(keys)
    raise FormatError(
        number,
        f"unknown format: its keys are {', '.join(sorted(keys)[:8]) or 'none'}; expected prompt, steps and "
        "final_answer (native), question and answer (gsm8k), messages (chat) or prompt and completion"
        + (f"; {hint}" if hint else ""),
        file=file,
    )

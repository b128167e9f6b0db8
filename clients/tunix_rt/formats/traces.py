"""Files of traces: which form they have, and each of their lines as a trace."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from tunix_rt import v1
from tunix_rt.errors import FormatError
from tunix_rt.formats.chat import chat
from tunix_rt.formats.compression import PARQUET_PIPED, Source, name_of
from tunix_rt.formats.lines import MAX_LINE_BYTES, keys_of, plain_of, read_failures, read_lines
from tunix_rt.formats.parquet import is_parquet, read_rows
from tunix_rt.formats.rows import dataset, gsm8k, native

TraceFormat: TypeAlias = Literal["auto", "native", "gsm8k", "chat", "dataset", "parquet"]

_Builder: TypeAlias = Callable[[bytes, int, str], v1.Trace]
_BUILDERS: Final[dict[str, _Builder]] = {
    "native": native, "gsm8k": gsm8k, "chat": chat, "dataset": dataset,
}  # fmt: skip
# The keys of a form, of which all must be there; the first that fits counts.
_MARKS: Final = (
    (chat, {"messages"}),
    (chat, {"conversations"}),
    (gsm8k, {"question", "answer"}),
    (dataset, {"prompts", "trace_steps"}),
)


_BAD_LINE: Final = {"line", "error", "text"}


class Record(NamedTuple):
    """One line of a file: its number from 1, its bytes, and the trace that it holds or why it holds none."""

    number: int
    line: bytes
    trace: v1.Trace | None
    error: FormatError | None


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
    source: Source, format: TraceFormat = "auto", *, columns: Mapping[str, str] | None = None
) -> Iterator[v1.Trace]:
    """Yield the traces of a file, one at a time; blank lines are passed over.

    Args:
        source: a path, ``-`` for standard input, or an open file, text or binary. What is compressed by gzip
            or Zstandard is decompressed.
        format: ``native`` (see ``trace_from_json``), ``gsm8k`` (``question``, and ``answer`` of reasoning
            lines and ``#### N``), ``chat`` (``messages`` of a user and an assistant who reasons),
            ``dataset`` (rows of a dataset in the trace format), ``parquet`` (rows of any of these), or
            ``auto``: the file's first bytes and its first line tell.
        columns: for Parquet, the column that holds each field, as {"prompt": "question"}.

    Raises:
        FormatError: names the file, the line, and every wrong field. What came before was yielded.
    """
    for record in read_records(source, format, columns=columns):
        if record.trace is None:
            raise record.error or FormatError(record.number, "holds no trace", file=name_of(source))
        yield record.trace


def read_records(
    source: Source, format: TraceFormat = "auto", *, columns: Mapping[str, str] | None = None
) -> Iterator[Record]:
    """As ``read_traces``, and goes on behind a wrong line. Of a file of ``BadLine`` the texts are read.

    Raises FormatError for what is wrong with the file as a whole.
    """
    file = name_of(source)
    build = _BUILDERS.get(format)
    mended: bool | None = None
    for number, line in _lines(source, format, columns):
        if mended is None:
            mended = _is_bad_line(line)
        text = line
        try:
            if mended:
                text = _text_of(line, number, file)
            chosen = build or _detect(text, number, file)
            # A file of errors may hold more than one form.
            build = build if mended else chosen
            trace = chosen(text, number, file)
        except FormatError as error:
            yield Record(number, text, None, error)
        else:
            yield Record(number, text, trace, None)


def trace_from_json(line: str | bytes) -> v1.Trace:
    """The trace of one native JSON object: ``trace_version``, ``prompt``, ``steps`` of ``i``, ``type`` and
    ``content``, ``final_answer``, and, if wanted, ``metadata`` and ``source``.

    Fields that the server writes may be there and are left out. Raises FormatError that names each wrong
    field.
    """
    return native(line.encode("utf-8", "surrogatepass") if isinstance(line, str) else line, 0, "")


def trace_to_json(trace: v1.Trace) -> str:
    """The native JSON object of a trace, on one line, without the fields that the server writes."""
    document: dict[str, Any] = {
        "trace_version": trace.trace_version,
        "prompt": trace.prompt,
        "steps": [{"i": step.i, "type": step.type, "content": step.content} for step in trace.steps],
        "final_answer": trace.final_answer,
    }
    if trace.metadata.fields:
        document["metadata"] = plain_of(trace.metadata)
    if trace.source:
        document["source"] = trace.source
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


def _lines(
    source: Source, format: TraceFormat, columns: Mapping[str, str] | None
) -> Iterator[tuple[int, bytes]]:
    if source == "-" and format == "parquet":
        raise FormatError(0, PARQUET_PIPED, file=name_of(source))
    with read_failures(name_of(source)):
        parquet = is_parquet(source)
    if parquet or format == "parquet":
        return read_rows(source, columns)
    if columns:
        raise FormatError(0, "is no Parquet file, so that it has no columns to name", file=name_of(source))
    return read_lines(source)


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


def _detect(line: bytes, number: int, file: str) -> _Builder:
    keys = keys_of(line, number, file)
    for builder, marks in _MARKS:
        if marks <= keys:
            return builder
    if keys & {"prompt", "steps", "final_answer"}:
        return native
    raise FormatError(
        number,
        f"unknown format: its keys are {', '.join(sorted(keys)[:8]) or 'none'}; expected prompt, steps and "
        "final_answer (native), question and answer (gsm8k) or messages (chat)",
        file=file,
    )

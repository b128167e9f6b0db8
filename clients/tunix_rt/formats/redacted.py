"""What was read from a file, without personal data and secrets."""

from __future__ import annotations

from collections.abc import Iterator

from tunix_rt import v1
from tunix_rt.errors import FieldViolation, FormatError
from tunix_rt.formats.reading import Record
from tunix_rt.formats.traces import trace_to_json
from tunix_rt.redaction import Redactor


def redacted_traces(traces: Iterator[v1.Trace], redactor: Redactor) -> Iterator[v1.Trace]:
    """Traces with placeholders, which ``redactor`` counts. A FormatError is redacted, too: it may quote the
    file."""
    beside = redactor.uncounted()
    while True:
        try:
            trace = next(traces, None)
        except FormatError as error:
            # Not chained: the first error may quote the file.
            raise _redacted_error(error, beside) from None
        if trace is None:
            return
        yield redactor.trace(trace)


def redacted_records(records: Iterator[Record], redactor: Redactor) -> Iterator[Record]:
    """The same of records. Lines and errors are redacted, since they may go into a file or onto a terminal;
    ``redactor`` counts what traces held."""
    beside = redactor.uncounted()
    while True:
        try:
            record = next(records, None)
        except FormatError as error:
            raise _redacted_error(error, beside) from None
        if record is None:
            return
        if record.trace is None:
            line = record.line.decode("utf-8", "surrogateescape")
            kept = beside.text(line).encode("utf-8", "surrogateescape")
            wrong = None if record.error is None else _redacted_error(record.error, beside)
            yield Record(record.number, kept, None, wrong)
        else:
            trace = redactor.trace(record.trace)
            yield Record(record.number, trace_to_json(trace).encode(), trace, None)


def _redacted_error(error: FormatError, redactor: Redactor) -> FormatError:
    redacted = FormatError(
        0,
        redactor.text(error.message),
        field_violations=[
            FieldViolation(redactor.text(wrong.field), redactor.text(wrong.description))
            for wrong in error.field_violations
        ],
    )
    redacted.line, redacted.file, redacted.metadata = error.line, error.file, error.metadata
    return redacted

"""`tunix-rt traces import` and `generate`: traces on their way into the store."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Annotated, Final, Literal, Self, TypedDict

import typer

from tunix_rt import Client, v1
from tunix_rt.cli import text
from tunix_rt.cli.command import command
from tunix_rt.cli.console import write_lines
from tunix_rt.cli.documents import Lines, WrittenFile
from tunix_rt.cli.options import ProblemOptions, not_empty
from tunix_rt.cli.redaction_options import RedactionOptions, redacted_line
from tunix_rt.cli.session import Session
from tunix_rt.cli.table_options import TableOptions
from tunix_rt.cli.trace_lines import ConversationLine, TraceLine
from tunix_rt.cli.traces import app
from tunix_rt.errors import TunixRtError
from tunix_rt.formats import (
    BadArguments,
    BadLine,
    FormatError,
    Lossy,
    Media,
    Record,
    TraceFormat,
    is_compressed,
    is_log,
    is_parquet,
    name_of,
    read_records,
    row_count,
    table_format,
    trace_from_json,
    trace_to_json,
)
from tunix_rt.formats.columns import METADATA, listed
from tunix_rt.formats.rows import MAX_LABEL
from tunix_rt.importing import ImportResult, ImportStoppedError, RefusedTrace, import_traces
from tunix_rt.rpc.batches import violations_in_import

if TYPE_CHECKING:
    from tunix_rt.formats.datasets_package import HubRows

_HUB: Final = "hf://datasets/"
_PAIRS: Final = "prompt-completion"
OnError = Literal["stop", "skip"]
Duplicates = Literal["skip", "keep"]
DuplicatesOption = Annotated[
    Duplicates, typer.Option("--duplicates", help="What to do with traces whose content is stored already.")
]


class ImportedTraces(TypedDict):
    """What became of the traces of a file."""

    read: Annotated[int, "Traces and bad lines that were read."]
    created: Annotated[int, "Traces that were stored."]
    skipped: Annotated[int, "Traces that were not stored, as their content was stored already."]
    bad: Annotated[int, "Lines that were left out; they stand in the file that --errors names."]
    left_out: Annotated[
        dict[str, int],
        "What the traces lack of their lines, or have in another form, and how often, by kind.",
    ]
    columns: Annotated[
        dict[str, str],
        "The column, or key, of each field, metadata.KEY being in the metadata; empty where the lines have "
        "the fields' own names.",
    ]
    redacted: Annotated[dict[str, int], "With --redact: how many values became placeholders, by kind."]


@dataclass(frozen=True)
class ReadingOptions:
    """How the lines of a file become traces."""

    format: Annotated[
        TraceFormat,
        typer.Option(
            "--format", "-f", help="Format of its lines or rows; auto: decided by its name and beginning."
        ),
    ] = "auto"
    source: Annotated[
        str | None,
        typer.Option(
            "--source",
            metavar="NAME",
            help="Source of the lines that name none, up to 64 characters.",
            callback=not_empty,
        ),
    ] = None
    answers_only: Annotated[
        bool,
        typer.Option(
            "--answers-only",
            help="Take answers without reasoning too, each as the one step of its trace; build their dataset "
            "with --style answer-only.",
        ),
    ] = False
    media: Annotated[
        Media,
        typer.Option(
            "--media", help="What to do about images and audio; leave-out: the rest of the message stays."
        ),
    ] = "refuse"
    bad_arguments: Annotated[
        BadArguments,
        typer.Option(
            "--bad-arguments",
            help="What to do about arguments of a tool call that are no JSON object; keep: as text.",
        ),
    ] = "keep"

    def records(
        self, file: str | IO[bytes], table: TableOptions, lossy: Lossy, assigned: dict[str, str]
    ) -> Iterator[Record]:
        """The lines of a file; raises typer.BadParameter.

        ``lossy`` takes what is left out, ``assigned`` the column of each field.
        """
        if self.source is not None and (len(self.source) > MAX_LABEL or "\0" in self.source):
            raise typer.BadParameter(f"--source takes up to {MAX_LABEL} characters, not {len(self.source)}")
        # The rows of the hub have the fields that were named already.
        named = isinstance(file, str) or self.format == _PAIRS
        records = read_records(
            file,
            self.format,
            columns=table.columns() if named else None,
            delimiter=table.character(),
            answers_only=self.answers_only,
            media=self.media,
            bad_arguments=self.bad_arguments,
            lossy=lossy,
            assigned=assigned,
        )
        return _sourced(records, self.source)


@command(
    app,
    "import",
    example=(
        "tunix-rt traces import traces.jsonl.zst",
        "tunix-rt traces import chats.jsonl --source support-chats",
        "tunix-rt traces import chats.jsonl --on-error skip --errors bad.jsonl",
        "tunix-rt traces import chats.jsonl --redact",
        "tunix-rt traces import sums.parquet --column prompt=problem --column steps=solution "
        "--column final_answer=answer",
        "tunix-rt traces import sums.csv --column prompt=Task --column steps=Work --column completion=Result",
        "tunix-rt traces import hf://datasets/HuggingFaceTB/smoltalk/all --split train",
        "zcat traces.jsonl.gz | tunix-rt traces import -",
    ),
    prints=ImportedTraces,
)
def import_(
    session: Session,
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="JSON lines, CSV or TSV, also compressed by gzip or Zstandard, or Parquet; - is stdin. "
            "Or hf://datasets/OWNER/NAME, a data set of the hub; /CONFIG and @REVISION may follow.",
        ),
    ],
    table: TableOptions,
    redaction: RedactionOptions,
    reading: ReadingOptions,
    duplicates: DuplicatesOption = "skip",
    on_error: Annotated[OnError, typer.Option("--on-error", help="What to do about a bad line.")] = "stop",
    errors: Annotated[
        Path | None,
        typer.Option(
            "--errors",
            metavar="FILE",
            help="File for skipped lines: correct them there, and import that file.",
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option("--split", help="Of a data set of the hub, which split; train if none is given."),
    ] = None,
) -> None:
    """Store the traces of a file.

    Exit code 0: all lines are stored, or, with `--on-error skip`, the good ones. 1: it stopped, or there was
    no good line.
    """
    _check_errors_file(on_error, errors)
    lossy, assigned = Lossy(), dict[str, str]()
    redactor = redaction.redactor()
    hub = _hub_rows(file, split)
    rows = hub.lines(None if reading.format == _PAIRS else table.columns()) if hub else file
    records = redaction.applied(reading.records(rows, table, lossy, assigned), redactor)
    records = _begun(_of_hub(records, hub.origin) if hub else records, file)
    redacted = None if redactor is None else redactor.counts
    total = hub.total if hub else None if reading.format in ("csv", "tsv") else _total(file)
    if errors is None:
        with session.connect() as client:
            result = store(session, client, _good(records), total, duplicates)
        say_result(session, result, lossy=lossy, columns=assigned, redacted=redacted)
        return
    with BadLines(errors) as bad, session.connect() as client:
        result = store(session, client, bad.traces(records), total, duplicates, bad)
    if result.read == result.refused:
        raise FormatError(0, f"has no good line; {errors} says what is wrong with each", file=name_of(file))
    say_result(session, result, bad.count, errors, lossy, assigned, redacted)


def _hub_rows(file: str, split: str | None) -> HubRows | None:
    if file.startswith(_HUB):
        # Not at the top: it takes a while, and most imports are of files.
        from tunix_rt.formats.datasets_package import HubAddress, HubRows

        return HubRows(HubAddress.of(file), split or "train")
    if split is not None:
        raise typer.BadParameter(f"--split goes with {_HUB}OWNER/NAME, not with {file}")
    return None


def _of_hub(records: Iterable[Record], origin: Mapping[str, str]) -> Iterator[Record]:
    """The records, with where they are from in the metadata of each trace, and as its source."""
    for record in records:
        if record.trace is not None:
            record.trace.source = record.trace.source or origin["dataset"][:MAX_LABEL]
            if "hub" not in record.trace.metadata.fields:
                record.trace.metadata["hub"] = dict(origin)
        yield record


def _sourced(records: Iterable[Record], source: str | None) -> Iterator[Record]:
    for record in records:
        if source and record.trace is not None and not record.trace.source:
            record.trace.source = source
        yield record


def _begun(records: Iterator[Record], file: str) -> Iterator[Record]:
    """The records, the first of which was read: a file that is wrong as a whole is known before all else."""
    first = next(records, None)
    if first is None:
        raise FormatError(0, "holds no traces", file=name_of(file))
    return chain((first,), records)


def _good(records: Iterable[Record]) -> Iterator[v1.Trace]:
    for record in records:
        if record.trace is None:
            raise record.error or FormatError(record.number, "holds no trace")
        yield record.trace


def _check_errors_file(on_error: OnError, errors: Path | None) -> None:
    if on_error == "stop":
        if errors is not None:
            raise typer.BadParameter("--errors goes with --on-error skip")
    elif errors is None or str(errors) == "-":
        raise typer.BadParameter("--on-error skip needs --errors FILE for the lines that are left out")
    elif errors.is_file() and errors.stat().st_size:
        raise typer.BadParameter(f"--errors {errors} is there already; give another file, or delete it")


def _total(file: str) -> int | None:
    """Number of rows or lines of a regular file; None if it is not known without reading all of it."""
    path = Path(file)
    if not path.is_file():
        return None
    if is_parquet(file):
        return row_count(file)
    if table_format(file):
        # A row may have many lines.
        return None
    with path.open("rb") as stream:
        if is_compressed(stream):
            return None
        head = stream.peek(1)
        if not head[:64].lstrip().startswith(b"{") or is_log(head, file):
            # An array, whose elements are on any number of lines, or conversations of many lines.
            return None
        return sum(block.count(b"\n") for block in iter(lambda: stream.read(1 << 20), b"")) or None


@command(
    app,
    "generate",
    example=(
        "tunix-rt traces generate --count 512 --seed 7",
        "tunix-rt traces generate --count 100 --difficulty easy -o traces.jsonl",
        "tunix-rt traces generate --count 400 --families calculator,unit_converter,small_talk",
    ),
    prints=(ImportedTraces, WrittenFile, Lines(TraceLine), Lines(ConversationLine)),
)
def generate(
    session: Session,
    problems: ProblemOptions,
    count: Annotated[int, typer.Option("--count", "-n", min=1, max=1_000_000, help="How many traces.")] = 512,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write JSON lines here (- for stdout) instead of storing."),
    ] = None,
    duplicates: DuplicatesOption = "skip",
) -> None:
    """Make arithmetic and word problems with correct steps, or conversations with correct calls of tools, and
    store them."""
    traces = (trace_from_json(trace.to_json()) for trace in problems.generated(count))
    if output is not None:
        written = write_lines(output, (trace_to_json(trace) for trace in traces))
        if str(output) != "-":
            session.say_written(written, "trace", output)
        return
    with session.connect() as client:
        result = store(session, client, traces, count, duplicates)
    say_result(session, result)


def store(
    session: Session,
    client: Client,
    traces: Iterable[v1.Trace],
    total: int | None,
    duplicates: Duplicates,
    bad: BadLines | None = None,
) -> ImportResult:
    """Store traces with a progress bar; ``bad`` takes those that the server refuses.

    Raises ImportStoppedError.
    """
    with session.progress() as progress:
        bar = progress.bar("storing traces", total, "traces")

        def show(so_far: ImportResult) -> None:
            if bad is not None:
                bad.answered(so_far)
            bar.update(so_far.read)

        try:
            result = import_traces(
                client,
                traces,
                duplicate_policy=duplicates,
                on_progress=show,
                on_refused=bad.refused if bad is not None else None,
            )
        except ImportStoppedError as stopped:
            bar.update(stopped.result.read)
            bar.stop("stopped")
            # These count from the first trace of a batch; the message counts from the first of all.
            placed = violations_in_import(stopped, stopped.first)
            stopped.field_violations = placed or stopped.field_violations
            raise
        bar.finish()
    return result


def say_result(
    session: Session,
    result: ImportResult,
    bad: int = 0,
    errors: Path | None = None,
    lossy: Lossy | None = None,
    columns: Mapping[str, str] | None = None,
    redacted: Counter[str] | None = None,
) -> None:
    """What became of the lines, of which ``bad`` were left out and stand in ``errors``, and of columns."""
    read = result.read - result.refused + bad
    if session.as_json:
        counts = {"read": read, "created": result.created, "skipped": result.skipped, "bad": bad}
        found = {"left_out": lossy.counts if lossy else {}, "columns": dict(columns or {})}
        found["redacted"] = dict(redacted or {})
        session.print_json(counts | found)
        return
    line = (
        f"{text.counted(read, 'trace')} read, {text.count(result.created)} stored, "
        f"{text.count(result.skipped)} skipped as stored already"
    )
    if bad:
        line += f", {text.count(bad)} bad: see {errors}"
    session.out.print(line, markup=False, soft_wrap=True)
    for loss in lossy.lines() if lossy else ():
        session.out.print(loss, markup=False, soft_wrap=True)
    if columns:
        session.out.print(_columns_line(columns), markup=False, soft_wrap=True)
    if redacted is not None:
        session.out.print(redacted_line(redacted), markup=False, soft_wrap=True)


def _columns_line(columns: Mapping[str, str]) -> str:
    """Which column became which field, and which went into the metadata."""
    prefix = f"{METADATA}."
    fields = [f"{field} from {column}" for field, column in columns.items() if not field.startswith(prefix)]
    inner = [
        column if field == f"{prefix}{column}" else f"{column} as {field.removeprefix(prefix)}"
        for field, column in columns.items()
        if field.startswith(prefix)
    ]
    kept = f"; in the metadata, which no model is shown: {listed(inner)}" if inner else ""
    return f"fields: {', '.join(fields)}{kept}"


# Bytes of lines that wait for the server's word. Of what comes beyond, the trace stands for its line.
_KEPT_BYTES: Final = 64 * 1024 * 1024


class BadLines:
    """Writes each bad line into a file as it is found. A context manager; no file is left if there is none.

    Raises OSError when the file cannot be made, TunixRtError when it cannot be written any more.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        # Unbuffered, so that an import that is killed leaves what it has found.
        self._file = path.open("wb", buffering=0)
        self._read = 0
        self._waiting: deque[tuple[int, int, bytes | None]] = deque()
        self._kept = 0
        self.count = 0

    def traces(self, records: Iterable[Record]) -> Iterator[v1.Trace]:
        """Yield the good traces; their lines are remembered until the server has answered for them."""
        for record in records:
            if record.trace is None:
                self._write(BadLine(record.number, str(record.error), record.line))
                continue
            self._read += 1
            fits = self._kept + len(record.line) <= _KEPT_BYTES
            self._kept += len(record.line) if fits else 0
            # A conversation of many lines has none of its own.
            line = record.line if fits and record.line else None
            self._waiting.append((self._read, record.number, line))
            yield record.trace

    def refused(self, refused: RefusedTrace) -> None:
        """The server refused a trace."""
        number, line = self._origin(refused.position)
        text = trace_to_json(refused.trace).encode() if line is None else line
        self._write(BadLine(number, f"line {number}: the server refused it: {refused.reason}", text))

    def answered(self, result: ImportResult) -> None:
        """The server has answered for the first ``result.read`` traces."""
        while self._waiting and self._waiting[0][0] <= result.read:
            self._forget()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if not self.count and self._path.is_file():
            self._path.unlink()

    def _origin(self, position: int) -> tuple[int, bytes | None]:
        while True:
            place, number, line = self._forget()
            if place == position:
                return number, line

    def _forget(self) -> tuple[int, int, bytes | None]:
        entry = self._waiting.popleft()
        self._kept -= len(entry[2] or b"")
        return entry

    def _write(self, bad: BadLine) -> None:
        data = memoryview(bad.to_json().encode() + b"\n")
        try:
            while data:
                data = data[self._file.write(data) :]
        except OSError as error:
            raise TunixRtError(
                f"{self._path}: cannot be written: {error.strerror or error}", reason="ERRORS_FILE_FAILED"
            ) from error
        self.count += 1

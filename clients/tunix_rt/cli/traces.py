"""`tunix-rt traces`: generate, import and look at reasoning traces."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer
from google.protobuf.json_format import ParseDict
from rich.console import Group
from rich.panel import Panel
from rich.text import Text

from tunix_rt import Client, v1
from tunix_rt.cli import tables, text
from tunix_rt.cli.command import command, group
from tunix_rt.cli.files import write_lines
from tunix_rt.cli.resources import resource_name, short_name
from tunix_rt.cli.session import Session, as_document
from tunix_rt.cli.spec_options import ContainsOption, SourceOption, WhereOption, trace_filter
from tunix_rt.formats import FormatError, read_traces, trace_to_json
from tunix_rt.generate import generate_traces
from tunix_rt.importing import ImportResult, ImportStoppedError, import_traces

app = group("Generate, import and look at reasoning traces.")


class Format(StrEnum):
    """What the lines of a file hold."""

    AUTO = "auto"
    NATIVE = "native"
    GSM8K = "gsm8k"
    DATASET = "dataset"


class Duplicates(StrEnum):
    """What becomes of a trace whose content is stored already."""

    SKIP = "skip"
    KEEP = "keep"


class Difficulty(StrEnum):
    """How hard generated problems are."""

    EASY = "easy"
    MEDIUM = "medium"
    HARD = "hard"


DuplicatesOption = Annotated[
    Duplicates, typer.Option("--duplicates", help="Traces whose content is stored already.")
]


@command(
    app,
    "import",
    example=(
        "tunix-rt traces import traces.jsonl",
        "tunix-rt traces import gsm8k_train.jsonl --format gsm8k",
        "zcat traces.jsonl.gz | tunix-rt traces import -",
    ),
)
def import_(
    session: Session,
    file: Annotated[str, typer.Argument(metavar="FILE", help="JSON lines; - reads standard input.")],
    format: Annotated[Format, typer.Option("--format", "-f", help="What its lines hold.")] = Format.AUTO,
    duplicates: DuplicatesOption = Duplicates.SKIP,
) -> None:
    """Store the traces of a file."""
    if file != "-" and not Path(file).exists():
        raise FormatError(0, "no such file", file=file)
    with session.connect() as client:
        result = _store(session, client, read_traces(file, format.value), _line_count(file), duplicates)
    _say_result(session, result)


@command(
    app,
    "generate",
    example=(
        "tunix-rt traces generate --count 512 --seed 7",
        "tunix-rt traces generate --count 100 --difficulty easy -o traces.jsonl",
    ),
)
def generate(
    session: Session,
    count: Annotated[int, typer.Option("--count", "-n", min=1, max=1_000_000, help="How many traces.")] = 512,
    seed: Annotated[int, typer.Option("--seed", min=0, help="The same seed gives the same traces.")] = 0,
    families: Annotated[
        list[str] | None,
        typer.Option("--families", help="Kinds of problem, joined by commas. Left out: all."),
    ] = None,
    difficulty: Annotated[
        Difficulty, typer.Option("--difficulty", help="How hard they are.")
    ] = Difficulty.EASY,
    start: Annotated[
        int,
        typer.Option("--start", min=0, help="Leave out this many: what follows shares no prompt with them."),
    ] = 0,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write JSON lines here (- for stdout) instead of storing."),
    ] = None,
    duplicates: DuplicatesOption = Duplicates.SKIP,
) -> None:
    """Make arithmetic and word problems with correct steps, and store them."""
    traces = _generated(count, seed, families, difficulty, start)
    if output is not None:
        written = write_lines(output, (trace_to_json(trace) for trace in traces))
        if str(output) != "-":
            session.say(f"{text.counted(written, 'trace')} written to {output}")
        return
    with session.connect() as client:
        result = _store(session, client, traces, count, duplicates)
    _say_result(session, result)


@command(
    app,
    "list",
    example=(
        "tunix-rt traces list --limit 5",
        "tunix-rt traces list --source gsm8k --contains apples --json",
    ),
)
def list_(
    session: Session,
    source: SourceOption = None,
    contains: ContainsOption = "",
    where: WhereOption = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Most traces shown.")] = 20,
) -> None:
    """List traces, newest first."""
    wanted = trace_filter(source or (), contains, where or ())
    with session.connect() as client:
        found = islice(client.trace_store.list_traces(filter=wanted, page_size=min(limit, 1000)), limit)
        if session.as_json:
            session.print_messages(found)
            return
        rows = tables.table("TRACE", "SOURCE", ">STEPS", "PROMPT", "ANSWER", ">AGE")
        for trace in found:
            tables.add_row(
                rows,
                short_name(trace.name),
                trace.source or "-",
                str(len(trace.steps)),
                text.one_line(trace.prompt, 60),
                text.one_line(trace.final_answer, 24),
                tables.age(trace.create_time),
            )
    tables.print_table(session.out, rows, "no traces")


@command(app, "show", example="tunix-rt traces show traces/$TRACE")
def show(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="TRACE", help="The trace's name or id.")],
) -> None:
    """Show one trace with its steps."""
    wanted = resource_name("traces", name)
    with session.connect() as client:
        trace = client.trace_store.get_trace(wanted)
    if session.as_json:
        session.print_message(trace)
    else:
        session.out.print(trace_panel(trace))


def trace_panel(trace: v1.Trace) -> Panel:
    """A trace as it is read: prompt, numbered steps, answer, and its facts below."""
    steps = tables.facts(
        (f"{step.i}", Text.assemble((f"{step.type}  ", "dim"), step.content)) for step in trace.steps
    )
    metadata = as_document(trace.metadata)
    sheet = tables.facts(
        [
            ("source", trace.source),
            ("version", trace.trace_version),
            ("stored", tables.moment(trace.create_time)),
            ("sequence", str(trace.sequence)),
            ("digest", trace.content_digest),
            *((f"metadata {key}", str(metadata[key])) for key in sorted(metadata)),
        ]
    )
    return Panel(
        Group(
            Text(trace.prompt),
            Text(),
            steps,
            Text(),
            Text.assemble(("Answer  ", "bold"), trace.final_answer),
            Text(),
            sheet,
        ),
        title=Text(trace.name),
        title_align="left",
        padding=(1, 2),
    )


def _generated(
    count: int, seed: int, families: list[str] | None, difficulty: Difficulty, start: int
) -> Iterator[v1.Trace]:
    names = [name.strip() for given in families or () for name in given.split(",")]
    try:
        traces = generate_traces(
            count, seed, families=names or None, difficulty=difficulty.value, start=start
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    return (ParseDict(trace.to_dict(), v1.Trace()) for trace in traces)


def _store(
    session: Session, client: Client, traces: Iterable[v1.Trace], total: int | None, duplicates: Duplicates
) -> ImportResult:
    with session.progress() as progress:
        bar = progress.bar("storing traces", total, "traces")
        try:
            result = import_traces(
                client,
                traces,
                duplicate_policy=duplicates.value,
                on_progress=lambda so_far: bar.update(so_far.read),
            )
        except ImportStoppedError as stopped:
            bar.stop("stopped")
            # These count from the first trace of a batch; the message counts from the first of all.
            stopped.field_violations.clear()
            raise
        bar.finish()
    return result


def _say_result(session: Session, result: ImportResult) -> None:
    if session.as_json:
        session.print_json({"read": result.read, "created": result.created, "skipped": result.skipped})
        return
    session.out.print(
        f"{text.counted(result.read, 'trace')} read, {text.count(result.created)} stored, "
        f"{text.count(result.skipped)} skipped as stored already"
    )


def _line_count(file: str) -> int | None:
    """Number of lines of a regular file; None when it cannot be told without taking what is to be read."""
    path = Path(file)
    if not path.is_file():
        return None
    with path.open("rb") as stream:
        return sum(block.count(b"\n") for block in iter(lambda: stream.read(1 << 20), b"")) or None

"""`tunix-rt evalset`: import, generate and look at sets of questions."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any, Literal, cast, get_args

import typer
from rich.console import Console

from tunix_rt import Client, v1
from tunix_rt.cli import tables, text
from tunix_rt.cli.command import command, group
from tunix_rt.cli.console import write_lines
from tunix_rt.cli.deleting import DeletedResources, ForceOption, YesOption, delete_resources
from tunix_rt.cli.documents import Lines, WrittenFile
from tunix_rt.cli.errors import Group
from tunix_rt.cli.eval_lines import EvalConversationLine, EvalItemLine
from tunix_rt.cli.grading import GraderFileOption, errors_of, grader_of_file
from tunix_rt.cli.item_view import items_table
from tunix_rt.cli.labels import (
    ChangeOptions,
    LabelOptions,
    Listed,
    ListOptions,
    change_labels,
    label_facts,
    show_list,
    sort_option,
)
from tunix_rt.cli.lookup import completes, look_up, named
from tunix_rt.cli.options import (
    LimitOption,
    ProblemOptions,
    dataset_name,
    resource_name,
    short_name,
)
from tunix_rt.cli.session import Session
from tunix_rt.cli.table_options import TableOptions
from tunix_rt.errors import InvalidArgumentError
from tunix_rt.formats import (
    BUILTIN,
    MAX_ITEMS,
    FormatError,
    ItemFormat,
    ItemReading,
    Lossy,
    NotOfItemsError,
    Record,
    TraceFormat,
    error_of_lines,
    give_grader,
    name_of,
    numbered_eval_items,
    numbered_trace_items,
    read_eval_items,
    read_grader_text,
    read_records,
    too_many,
)


class _WithBenchmarks(Group):
    """Takes `import bench` for a command of its own."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[:2] == ["import", "bench"]:
            args = ["import bench", *args[2:]]
        return super().resolve_command(ctx, args)


app = group("Import, generate and look at sets of questions.")
app.info.cls = _WithBenchmarks


Format = Literal[
    "auto", "items", "native", "gsm8k", "chat", "dataset", "parquet", "csv", "tsv", "prompt-completion"
]
WantedGrader = v1.Grader | Literal["auto"]


EvalSetArgument = Annotated[
    str,
    typer.Argument(
        metavar="EVALSET", help="The eval set's id or name.", autocompletion=completes("evalSets")
    ),
]


@dataclass(frozen=True)
class FileOptions(TableOptions):
    """How a file of questions is read."""

    format: Annotated[
        Format,
        typer.Option(
            "--format",
            "-f",
            help="Format of its lines: eval items (items, csv, tsv), prompts with their answers "
            "(prompt-completion), or traces whose answers are the accepted ones (the others). auto: decided "
            "by the file's name and first line.",
        ),
    ] = "auto"
    answer_separator: Annotated[
        str | None,
        typer.Option(
            "--answer-separator",
            metavar="TEXT",
            help="CSV, TSV: what separates accepted answers in a cell; none: each cell is one answer; json: "
            "each cell is a list.",
        ),
    ] = None

    def read(
        self, session: Session, file: str, limit: int | None, grader: WantedGrader, *, given: bool
    ) -> _Read:
        """The items of a file; ``given``: the user named the grader. Raises FormatError."""
        if self.format not in get_args(ItemFormat):
            if self.answer_separator is not None or self.delimiter is not None:
                raise typer.BadParameter("--answer-separator and --delimiter are for --format csv and tsv")
            records = read_records(file, cast("TraceFormat", self.format), columns=self.columns())
            return _trace_items(session, name_of(file), records, limit, grader)
        reading = ItemReading(
            format=cast("ItemFormat", self.format),
            columns=self.columns(),
            delimiter=self.character(),
            answer_separator=self.answer_separator,
            grader=grader if given else None,
        )
        try:
            numbered = numbered_eval_items(file, reading, limit)
        except NotOfItemsError as error:
            raise typer.BadParameter(error.message) from None
        return _Read(name_of(file), [item for _, item in numbered], [line for line, _ in numbered])


@command(
    app,
    "import",
    example=(
        "tunix-rt evalset import general eval_v1",
        "tunix-rt evalset import arithmetic-test --from-dataset arithmetic@1 --split test --limit 100",
        "tunix-rt evalset import gsm8k-40 gsm8k_test.jsonl --format gsm8k --limit 40",
        "tunix-rt evalset import algebra traces.jsonl --format native --grader math",
        "tunix-rt evalset import capitals capitals.csv --answer-separator '|' --grader text",
        "tunix-rt evalset import mine questions.jsonl --grader-file my.py:grade",
    ),
    prints=v1.EvalSet,
)
def import_(
    session: Session,
    eval_set: Annotated[str, typer.Argument(metavar="ID", help="Its id, which cannot be changed later.")],
    labels: LabelOptions,
    reading: FileOptions,
    file: Annotated[
        str | None,
        typer.Argument(
            metavar="[FILE]",
            help=f"JSON lines, CSV or TSV, or {BUILTIN}: 25 questions of eight categories.",
        ),
    ] = None,
    from_dataset: Annotated[
        str | None,
        typer.Option(
            "--from-dataset",
            help="Take the held-out rows of this dataset instead of a file.",
            autocompletion=completes("datasets"),
        ),
    ] = None,
    split: Annotated[str, typer.Option("--split", help="With --from-dataset: which split.")] = "test",
    limit: Annotated[
        int | None, typer.Option("--limit", "-n", min=1, help="Take at most this many items.")
    ] = None,
    grader: Annotated[
        str | None,
        typer.Option(
            "--grader",
            help="How answers are graded where the file does not say so: the name of a kind, JSON such as "
            '{"kind": "numeric", "tolerance": 0.1}, or auto: numeric for numbers, math for mathematics, '
            "text for the rest. \\[default: auto; for traces numeric]",
        ),
    ] = None,
    grader_file: GraderFileOption = None,
    description: Annotated[str, typer.Option("--description", help="What it is for.")] = "",
) -> None:
    """Store an eval set from a file, from the built-in questions or from a dataset's held-out split."""
    if (file is None) == (from_dataset is None):
        raise typer.BadParameter("give a FILE or --from-dataset, one of the two")
    if grader is not None and grader_file is not None:
        raise typer.BadParameter("give --grader or --grader-file, one of the two")
    own = grader_of_file(grader_file)
    wanted = own or grader_option(grader or "numeric")
    read = None
    if file is not None:
        read = reading.read(session, file, limit, wanted, given=grader is not None)
    with session.connect() as client:
        if from_dataset is not None:
            dataset = named(session, client, dataset_name(from_dataset))
            read = _dataset_items(session, client, dataset, split, limit, wanted)
        made = v1.EvalSet(eval_set_id=eval_set, description=description, **labels.given())
        with errors_of(grader_file):
            _store(session, client, made, read or _Read("", [], []), grader=own)


@command(
    app,
    "generate",
    example=(
        "tunix-rt evalset generate arithmetic-200 --count 200 --start 512",
        "tunix-rt evalset generate hard-units --count 50 --families units --difficulty hard",
        "tunix-rt evalset generate mine --count 100 --output items.jsonl",
    ),
    prints=(v1.EvalSet, WrittenFile, Lines(EvalItemLine), Lines(EvalConversationLine)),
)
def generate(
    session: Session,
    eval_set: Annotated[str, typer.Argument(metavar="ID", help="Its id, which cannot be changed later.")],
    problems: ProblemOptions,
    labels: LabelOptions,
    count: Annotated[int, typer.Option("--count", "-n", min=1, max=10_000, help="How many items.")] = 100,
    description: Annotated[str, typer.Option("--description", help="What it is for.")] = "",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write JSON lines here (- for stdout) instead of storing."),
    ] = None,
) -> None:
    """Make arithmetic and word problems, or conversations with tools, and store them as an eval set.

    To leave out what an earlier `traces generate` made, give its seed, families and difficulty, and its count
    as --start.
    """
    lines = [json.dumps(problem.to_eval_item()) for problem in problems.generated(count)]
    if output is not None:
        written = write_lines(output, lines)
        if str(output) != "-":
            session.say_written(written, "item", output)
        return
    items = read_eval_items(BytesIO("\n".join(lines).encode()))
    with session.connect() as client:
        made = v1.EvalSet(eval_set_id=eval_set, description=description, **labels.given())
        _store(session, client, made, _Read("", items, []))


@command(
    app,
    "list",
    example=("tunix-rt evalset list", "tunix-rt evalset list --tag held-out --sort id"),
    prints=list[v1.EvalSet],
)
def list_(
    session: Session,
    wanted: ListOptions,
    sort: Annotated[str, sort_option("created", "name", "id", "items")] = "",
    limit: LimitOption = 20,
) -> None:
    """List eval sets, the newest first unless they are sorted."""
    condition = v1.EvalSetFilter(**wanted.conditions())
    table = Listed(
        ("EVAL SET", "?NAME", ">ITEMS", "DIGEST", "DESCRIPTION", "?TAGS", "?DELETED", ">AGE"),
        _row,
        "no eval sets",
        ("NAME", "ITEMS", "DESCRIPTION", "DELETED"),
    )
    show_list(session, "evalSets", condition, wanted, sort, limit, table)


def _row(eval_set: v1.EvalSet) -> tables.Row:
    return (
        short_name(eval_set.name),
        eval_set.display_name,
        text.count(eval_set.item_count),
        tables.digest(eval_set.digest),
        text.one_line(eval_set.description, 40),
        ", ".join(eval_set.tags),
        tables.deleted(eval_set),
        tables.age(eval_set.create_time),
    )


@command(
    app,
    "update",
    example="tunix-rt evalset update general --name 'General questions, first draft' --tag draft",
    prints=v1.EvalSet,
)
def update(
    session: Session,
    eval_set: EvalSetArgument,
    labels: ChangeOptions,
) -> None:
    """Give an eval set a name beside its id, tag it, or note something about it. Its id stays."""
    change_labels(session, resource_name("evalSets", eval_set), labels)


@command(app, "show", example="tunix-rt evalset show general --items 25", prints=v1.EvalSet)
def show(
    session: Session,
    eval_set: EvalSetArgument,
    items: Annotated[int, typer.Option("--items", "-n", min=0, help="Items shown.")] = 10,
) -> None:
    """Show one eval set: its categories and first items."""
    found = look_up(session, resource_name("evalSets", eval_set))
    if session.as_json:
        session.print_message(found)
        return
    _print_facts(session.out, found)
    session.out.print(items_table(found.items[:items]))
    if len(found.items) > items:
        session.out.print(f"and {len(found.items) - items:,} more (--items)", style="dim", highlight=False)


def _print_facts(console: Console, found: v1.EvalSet) -> None:
    categories = Counter(item.category for item in found.items)
    console.print(
        tables.facts(
            [
                ("eval set", found.name),
                *label_facts(found),
                ("description", found.description),
                ("items", text.count(found.item_count)),
                (
                    "categories",
                    ", ".join(f"{name or 'none'} {many}" for name, many in sorted(categories.items())),
                ),
                *_graders(found),
                *_origin(found.origin),
                ("digest", found.digest),
                ("stored", tables.moment(found.create_time)),
                ("deleted", tables.deleted(found)),
            ]
        )
    )


def _graders(eval_set: v1.EvalSet) -> Iterator[tuple[str, str]]:
    """The functions in Python that grade, with the digests of their sources, which JSON has whole."""
    graders = {(item.grader.python.function, item.grader.python.source_digest) for item in eval_set.items}
    named = [f"{function} ({digest})" for function, digest in sorted(graders) if digest]
    yield "own graders", ", ".join(named)


def _origin(origin: v1.EvalSetOrigin) -> Iterator[tuple[str, str]]:
    """Which benchmark the items were made of."""
    form = origin.hub_id if origin.revision else f"a file in the form of {origin.hub_id}"
    where = [form, origin.config, origin.split, origin.revision]
    yield "benchmark", f"{origin.benchmark}: {' '.join(filter(None, where))}" if origin.benchmark else ""
    yield "rows", f"{origin.selection} of {origin.row_count:,}, by {origin.mapping}" if origin.mapping else ""
    yield "licence", origin.license
    for file in origin.files:
        yield "file", f"{file.file_name} ({file.size_bytes:,} bytes, {file.digest})"
    yield "cite", text.one_line(origin.citation, 200)


def grader_option(given: str) -> WantedGrader:
    """A grader as it is typed; raises typer.BadParameter."""
    if given == "auto":
        return "auto"
    try:
        return read_grader_text(given)
    except ValueError as error:
        raise typer.BadParameter(f"--grader: {error}") from None


@dataclass(frozen=True, slots=True)
class _Read:
    """Items, and the line of the file that each was read from, if it was read from one."""

    file: str
    items: Sequence[v1.EvalItem]
    lines: Sequence[int]


def _store(
    session: Session, client: Client, eval_set: v1.EvalSet, read: _Read, *, grader: v1.Grader | None = None
) -> None:
    """Store what was read, all of it with ``grader`` if there is one."""
    eval_set.items.extend(read.items)
    if grader is not None:
        give_grader(eval_set, grader)
    try:
        stored = client.evaluator.create_eval_set(eval_set=eval_set)
    except InvalidArgumentError as error:
        raise error_of_lines(error, read.file, read.lines) from error
    if session.as_json:
        session.print_message(stored)
    else:
        session.out.print(f"{stored.name}: {text.counted(stored.item_count, 'item')}, digest {stored.digest}")


def _dataset_items(
    session: Session,
    client: Client,
    dataset: str,
    split: str,
    limit: int | None,
    grader: WantedGrader,
) -> _Read:
    rows = client.exporter.read_dataset(dataset, split, format=v1.DATASET_FORMAT_TRACE)
    return _trace_items(session, f"{dataset} {split}", read_records(BytesIO(rows), "dataset"), limit, grader)


def _trace_items(
    session: Session,
    file: str,
    records: Iterable[Record],
    limit: int | None,
    grader: WantedGrader,
) -> _Read:
    """The questions of traces; says how many were left out, and why."""
    left_out = Lossy()
    most = min(limit or MAX_ITEMS + 1, MAX_ITEMS + 1)
    found = numbered_trace_items(_numbered(records, file), most, grader, left_out)
    if len(found) > MAX_ITEMS:
        raise too_many(found[-1][0], file)
    told = left_out.lines()
    if told and not found:
        raise FormatError(0, f"holds no trace that makes an eval item: {'; '.join(told)}", file=file)
    for line in told:
        session.say(line)
    return _Read(file, [item for _, item in found], [number for number, _ in found])


def _numbered(records: Iterable[Record], file: str) -> Iterator[tuple[int, v1.Trace]]:
    for record in records:
        if record.trace is None:
            raise record.error or FormatError(record.number, "holds no trace", file=file)
        yield record.number, record.trace


@command(
    app,
    "delete",
    prints=DeletedResources,
    example=("tunix-rt evalset delete general", "tunix-rt evalset delete general --force --yes"),
)
def delete(
    session: Session,
    eval_sets: Annotated[
        list[str],
        typer.Argument(metavar="ID", help="Ids of eval sets.", autocompletion=completes("evalSets")),
    ],
    force: ForceOption = False,
    yes: YesOption = False,
) -> None:
    """Delete the items of eval sets that nothing uses. Their digests stay on record, and their ids cannot be
    used for other items."""
    names = [resource_name("evalSets", name) for name in eval_sets]
    delete_resources(session, names, "eval set", force=force, yes=yes)

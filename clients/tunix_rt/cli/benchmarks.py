"""`tunix-rt evalset import bench`: published benchmarks by name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypedDict

import typer

from tunix_rt import Client, v1
from tunix_rt.cli import tables, text
from tunix_rt.cli.command import command
from tunix_rt.cli.eval_sets import app
from tunix_rt.cli.grading import GraderFileOption, errors_of, grader_of_file
from tunix_rt.cli.session import Session
from tunix_rt.errors import FormatError, InvalidArgumentError
from tunix_rt.formats import give_grader
from tunix_rt.formats.benchmark_files import BenchmarkItems, Wanted, read_benchmark
from tunix_rt.formats.benchmarks import BENCHMARKS, Benchmark
from tunix_rt.formats.eval_items import wrong_items
from tunix_rt.formats.task_files import Task, TaskChoice, read_task
from tunix_rt.schema import nearest

_TOLD = 5
# With these as dataset_path, lm-eval reads files that stand in dataset_kwargs.
_BUILDERS = ("json", "parquet", "csv", "text", "arrow")


class BenchmarkDocument(TypedDict):
    """A benchmark that can be imported by name."""

    name: Annotated[str, "What it is called here."]
    hub_id: Annotated[str, "Its data set on the Hugging Face hub."]
    config: Annotated[str, "The configuration that is meant if none is given; empty for the only one."]
    split: Annotated[str, "The split that is meant if none is given."]
    grader: Annotated[str, "How answers are graded."]
    license: Annotated[str, "Its licence."]
    citation: Annotated[str, "How to cite it."]


@dataclass(frozen=True)
class PartOptions:
    """Which part of a benchmark is wanted."""

    config: Annotated[
        str, typer.Option("--config", help="A configuration of the data set, such as an MMLU subject.")
    ] = ""
    split: Annotated[str, typer.Option("--split", help="A split that has the right answers.")] = ""
    revision: Annotated[str, typer.Option("--revision", help="A revision of the data set on the hub.")] = ""
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit", "-n", min=1, help="Take this many rows: the first ones, or random ones with --seed."
        ),
    ] = None
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed", min=0, help="Choose the rows of --limit at random; the same seed chooses the same rows."
        ),
    ] = None
    bare: Annotated[
        bool,
        typer.Option("--bare", help="Ask the question alone, without the benchmark's instruction before it."),
    ] = False

    def wanted(self) -> Wanted:
        """The part; raises typer.BadParameter."""
        if self.seed is not None and self.limit is None:
            raise typer.BadParameter("--seed goes with --limit, which says how many rows are drawn")
        return Wanted(self.config, self.split, self.revision, self.limit, self.seed, self.bare)

    def default_id(self, *names: str) -> str:
        """An id that tells this part from others."""
        seed = None if self.seed is None else f"seed{self.seed}"
        parts = [self.config, self.split, self.limit, seed, "bare" if self.bare else None]
        given = [*names, *(re.sub("_", "-", str(part)) for part in parts if part)]
        made = re.sub(r"[^a-z0-9._-]+", "-", "-".join(filter(None, given)).lower())
        return made.lstrip("._-")[:64]


@dataclass(frozen=True)
class TaskOptions:
    """A task file of lm-eval, and what it leaves open."""

    task_file: Annotated[
        Path | None,
        typer.Option(
            "--task-file",
            metavar="FILE",
            help="A task file of lm-eval (YAML), in place of a benchmark's name.",
        ),
    ] = None
    filter: Annotated[
        str,
        typer.Option("--filter", metavar="NAME", help="The filter to use, if a task has several."),
    ] = ""
    metric: Annotated[
        str,
        typer.Option("--metric", metavar="NAME", help="The metric to use, if a task has several."),
    ] = ""
    num_fewshot: Annotated[
        int | None,
        typer.Option(
            "--num-fewshot",
            min=0,
            max=0,
            help="0: ask without the examples that a task puts before questions.",
        ),
    ] = None
    license: Annotated[
        str, typer.Option("--license", help="The licence of a task's data. \\[default: what its card says]")
    ] = ""

    def task(self, name: str | None) -> Task | None:
        """The task, None for a benchmark by name; raises typer.BadParameter."""
        given = {"--filter": self.filter, "--metric": self.metric, "--license": self.license}
        if self.task_file is None:
            wrong = [option for option, value in given.items() if value]
            if wrong or self.num_fewshot is not None:
                raise typer.BadParameter(f"{(*wrong, '--num-fewshot')[0]} goes with --task-file")
            return None
        if name is not None:
            raise typer.BadParameter(f"give {name!r} or --task-file, not both")
        return read_task(self.task_file, TaskChoice(self.filter, self.metric, self.num_fewshot, self.license))


@command(
    app,
    "import bench",
    example=(
        "tunix-rt evalset import bench --list",
        "tunix-rt evalset import bench gsm8k --limit 200 --seed 1",
        "tunix-rt evalset import bench mmlu --config abstract_algebra",
        "tunix-rt evalset import bench math500 --from test.jsonl --id math500",
        "tunix-rt evalset import bench ifeval --on-error skip",
        "tunix-rt evalset import bench gsm8k --dataset openai/gsm8k --revision 1a2b3c4",
        "tunix-rt evalset import bench --task-file my_task.yaml --from test.jsonl",
    ),
    prints=(v1.EvalSet, list[BenchmarkDocument]),
)
def bench(
    session: Session,
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="The benchmark; --list names them.")
    ] = None,
    part: PartOptions = PartOptions(),
    files: Annotated[
        list[Path] | None,
        typer.Option(
            "--from",
            metavar="PATH",
            help="Read this file, or this folder's files, as the hub has them: Parquet or JSON lines (may be "
            "repeated). \\[default: from the hub]",
        ),
    ] = None,
    dataset: Annotated[
        str,
        typer.Option(
            "--dataset",
            metavar="NAME|FOLDER",
            help="Load this by the `datasets` package: a data set on the hub, or a folder. \\[default for a "
            "task file: its dataset_path]",
        ),
    ] = "",
    task_options: TaskOptions = TaskOptions(),
    eval_set: Annotated[
        str, typer.Option("--id", help="The eval set's id. \\[default: made from the name and the options]")
    ] = "",
    on_error: Annotated[
        Literal["stop", "skip"],
        typer.Option(
            "--on-error", help="What to do about a row without a sure answer: stop, or leave it out."
        ),
    ] = "stop",
    grader_file: GraderFileOption = None,
    list_them: Annotated[bool, typer.Option("--list", help="List the benchmarks.")] = False,
) -> None:
    """Store a published benchmark, or a task of lm-eval, as an eval set: from the hub or from its files.

    A row without a sure answer is refused, and the error has its number. The set records licence, revision
    and digests of the files.
    """
    if list_them:
        _list(session)
        return
    if files and dataset:
        raise typer.BadParameter("give --from or --dataset, not both")
    task = task_options.task(name)
    benchmark = task.benchmark if task else _named(name)
    dataset = dataset or (_dataset_path(task) if task and not files else "")
    wanted, own = part.wanted(), grader_of_file(grader_file)
    read = read_benchmark(benchmark, wanted, files or (), dataset=dataset, skip=on_error == "skip")
    if own is not None:
        give_grader(read.eval_set, own)
    read.eval_set.eval_set_id = eval_set or part.default_id(benchmark.name, task_options.filter)
    read.eval_set.description = _described(benchmark, read.eval_set)
    with session.connect() as client, errors_of(grader_file):
        stored, read = _stored(client, read, skip=on_error == "skip")
    _say_stored(session, stored, read, wanted.limit, task.notes if task else ())


def _described(benchmark: Benchmark, made: v1.EvalSet) -> str:
    return f"{benchmark.name} of {benchmark.hub_id or 'a task file'}, {made.origin.selection}"[:1000]


def _say_stored(
    session: Session, stored: v1.EvalSet, read: BenchmarkItems, limit: int | None, notes: Sequence[str]
) -> None:
    for note in notes:
        session.say(note)
    rows = read.eval_set.origin.row_count
    if limit is not None and limit > rows:
        session.say(f"--limit {limit} takes all: there are only {text.counted(rows, 'row')}")
    _say_left_out(session, read.bad_rows)
    if session.as_json:
        session.print_message(stored)
    else:
        session.out.print(f"{stored.name}: {text.counted(stored.item_count, 'item')}, digest {stored.digest}")


def _say_left_out(session: Session, bad_rows: Sequence[FormatError]) -> None:
    """The first rows that became no item, and why; what would be right, which many have in common, once."""
    told: set[str] = set()
    for bad in bad_rows[:_TOLD]:
        problem, _, advice = str(bad).partition("; ")
        session.say(f"left out: {problem if advice in told else bad}")
        told.add(advice)
    if (more := len(bad_rows) - _TOLD) > 0:
        session.say(f"and {text.counted(more, 'row')} more left out")


def _list(session: Session) -> None:
    fields = BenchmarkDocument.__annotations__
    found = [{field: getattr(one, field) for field in fields} for one in BENCHMARKS.values()]
    if session.as_json:
        session.print_json(found)
        return
    rows = tables.table("NAME", "DATA SET", "CONFIG", "SPLIT", "GRADER", "LICENCE")
    for one in BENCHMARKS.values():
        tables.add_row(rows, one.name, one.hub_id, one.config or "-", one.split, one.grader, one.license)
    tables.print_table(session.out, rows, "no benchmarks")


def _dataset_path(task: Task) -> str:
    """What `datasets` loads for a task; raises typer.BadParameter."""
    found = task.benchmark.hub_id
    if not found or found in _BUILDERS:
        raise typer.BadParameter(
            f"the task's dataset_path is {found or 'missing'}, which names no data set; give rows by --from"
        )
    return found


def _named(name: str | None) -> Benchmark:
    if name is None:
        raise typer.BadParameter(f"give a benchmark: {', '.join(BENCHMARKS)}; or --task-file")
    if name in BENCHMARKS:
        return BENCHMARKS[name]
    if name.endswith((".yaml", ".yml")):
        raise typer.BadParameter(f"a task file of lm-eval is given so: --task-file {name}")
    other = " (to store a file under the id bench: tunix-rt evalset import -- bench FILE)"
    raise typer.BadParameter(
        f"{name!r} is no benchmark; {nearest(name, BENCHMARKS)}{other if Path(name).exists() else ''}"
    )


def _stored(client: Client, read: BenchmarkItems, *, skip: bool) -> tuple[v1.EvalSet, BenchmarkItems]:
    """The stored eval set, and what became of its rows: those that the evaluator refuses are left out too."""
    selection = read.eval_set.origin.selection
    while True:
        if read.bad_rows:
            read.eval_set.origin.selection = f"{selection}, {len(read.bad_rows)} of them left out"
        try:
            return client.evaluator.create_eval_set(read.eval_set), read
        except InvalidArgumentError as error:
            wrong = [(at, f"{found.field}: {found.description}") for at, found in wrong_items(error)]
            first = next(((at, why) for at, why in wrong if ".python." not in why.partition(":")[0]), None)
            if first is None:
                raise
            file, row = read.places[first[0]]
            if not skip or len({at for at, _ in wrong}) == len(read.places):
                raise FormatError(
                    row, f"{first[1]}; --on-error skip leaves such rows out", file=file
                ) from error
            read = read.without(list(dict(reversed(wrong)).items()))

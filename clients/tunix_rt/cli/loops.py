"""`tunix-rt loop`: run a whole loop, traces in, comparison report out."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, TypedDict

import typer
from google.protobuf.duration_pb2 import Duration
from rich.console import Console

from tunix_rt import Client, v1
from tunix_rt.cli import tables, text
from tunix_rt.cli.command import command, group
from tunix_rt.cli.comparisons import print_comparison
from tunix_rt.cli.deleting import ForceOption, YesOption, confirm, kept_of, with_names
from tunix_rt.cli.effects import Effect
from tunix_rt.cli.lookup import completes_tags
from tunix_rt.cli.options import FlipsOption
from tunix_rt.cli.progress import STEPS, Bar, LossLine, Reporter, StageBars
from tunix_rt.cli.session import Session
from tunix_rt.errors import InvalidArgumentError
from tunix_rt.loop import (
    STAGES,
    LoopConfig,
    LoopEvent,
    LoopResult,
    Stage,
    StagePlan,
    plan_loop,
    run_loop,
)
from tunix_rt.loop.removal import plan_removal, remove_loop
from tunix_rt.loop.result import losses_digest

app = group("Run a loop from a YAML file: traces in, comparison report out.")


class LoopTraces(TypedDict):
    """What became of the traces that the loop read."""

    read: Annotated[int, "Traces that were read."]
    created: Annotated[int, "Traces that were stored."]
    skipped: Annotated[int, "Traces that were stored already."]


class LoopDataset(TypedDict):
    """The dataset that was built."""

    name: Annotated[str, "Its name."]
    digest: Annotated[str, "Its digest."]
    rows: Annotated[dict[str, int], "How many rows each split has."]


class LoopEvalSet(TypedDict):
    """The eval set that both models answered."""

    name: Annotated[str, "Its name."]
    digest: Annotated[str, "Its digest."]
    item_count: Annotated[int, "How many items it has."]


class LoopEvaluation(TypedDict):
    """The evaluation of one model."""

    name: Annotated[str, "Its name."]
    correct_count: Annotated[int, "Items that were answered right."]
    item_count: Annotated[int, "Items in all."]
    results_digest: Annotated[str, "Digest of all answers and grades."]
    manifest_digest: Annotated[str, "Digest of its manifest."]


class LoopTraining(TypedDict):
    """The training job."""

    name: Annotated[str, "Its name."]
    losses_digest: Annotated[str, "Digest of the loss at each step."]
    manifest_digest: Annotated[str, "Digest of the run's manifest."]


class LoopCheckpoint(TypedDict):
    """The checkpoint that was evaluated."""

    name: Annotated[str, "Its name."]
    step: Annotated[int, "The optimizer step that it was saved at."]
    digest: Annotated[str, "Its digest."]


class LoopComparison(TypedDict):
    """The comparison of the two evaluations."""

    name: Annotated[str, "Name of the report."]
    digest: Annotated[str, "Digest of the report."]
    verdict: Annotated[str, "The verdict, such as VERDICT_IMPROVED."]


class LoopDocument(TypedDict):
    """What a loop made: names and digests, seconds of each stage, files."""

    name: Annotated[str, "The loop's name."]
    traces: Annotated[
        LoopTraces | None, "What became of its traces; null where the store was used as it was."
    ]
    dataset: Annotated[LoopDataset, "The dataset that was built."]
    eval_set: Annotated[LoopEvalSet, "The questions."]
    evaluation_before: Annotated[LoopEvaluation, "The base model's evaluation."]
    training_job: Annotated[LoopTraining, "The training job."]
    checkpoint: Annotated[LoopCheckpoint, "The checkpoint that was evaluated."]
    evaluation_after: Annotated[LoopEvaluation, "The tuned model's evaluation."]
    comparison: Annotated[LoopComparison, "The comparison of the two evaluations."]
    stage_seconds: Annotated[dict[str, float], "Wall time of each stage in this run, by its name."]
    files: Annotated[dict[str, str], "Path of each file that was written, by its name."]


class LoopStagePlan(TypedDict):
    """What one stage would do."""

    stage: Annotated[str, "Its name, such as training."]
    does: Annotated[str, "What it would do, in words."]
    amounts: Annotated[dict[str, int], "What is known, by unit: traces, rows, items, answers, steps, tokens."]
    bounded: Annotated[bool, "Whether the amounts are at most so many, or about so many, not exactly."]
    seconds: Annotated[float | None, "Estimate of its time; null where there is none."]
    basis: Annotated[str, "How the estimate was made, or why there is none."]


class LoopPlanDocument(TypedDict):
    """What a loop would do; nothing of it was started or stored."""

    name: Annotated[str, "The loop's name."]
    stages: Annotated[list[LoopStagePlan], "Its stages, in order."]
    seconds: Annotated[float | None, "Estimate of the time of all stages that have one."]


@command(
    app,
    "run",
    example=(
        "tunix-rt loop run loop.yaml",
        "tunix-rt loop run loop.yaml --dry-run",
        "tunix-rt loop run loop.yaml --server localhost:50050",
        "tunix-rt loop run loop.yaml --tag nightly --note 'with the new traces'",
    ),
    prints=(LoopDocument, LoopPlanDocument),
)
def run(
    session: Session,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The loop's settings, YAML.")],
    output_dir: Annotated[
        Path | None,
        typer.Option(
            "--output-dir", "-o", metavar="DIR", help="Write reports here instead of where FILE says."
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", help="Run it under this name instead of FILE's: another one starts afresh."),
    ] = None,
    tag: Annotated[
        list[str] | None,
        typer.Option(
            "--tag",
            autocompletion=completes_tags,
            help="Tag all that the loop makes, as FILE may too (may be repeated).",
        ),
    ] = None,
    note: Annotated[
        str | None, typer.Option("--note", help="Note this about all that it makes, instead of FILE's note.")
    ] = None,
    flips: FlipsOption = 3,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Show what each stage would do, and an estimate of its time: the model is loaded where "
            "training and evaluations run, and measured for ten seconds. Nothing is started or stored.",
        ),
    ] = False,
) -> None:
    """Run a loop. Run it again after an interruption, and it continues where it stopped."""
    config = LoopConfig.from_yaml(file).called(name, tag or (), note)
    if output_dir is not None:
        config = config.model_copy(update={"output_dir": output_dir})
    if dry_run:
        _show_plan(session, config)
        return
    with session.connect() as client:
        result = run_with_progress(session, client, config, server=session.server)
    if session.as_json:
        session.print_json(result_document(result))
    else:
        print_result(session.out, result, flips=flips)


class DeletedLoop(TypedDict):
    """What was deleted of a loop."""

    deleted: Annotated[list[str], "Resource names, in the order in which they were deleted."]
    kept: Annotated[dict[str, list[str]], "What others use, by resource name, and what uses it."]
    not_its_own: Annotated[list[str], "Dataset and eval set that the loop had found there; they stay."]
    files: Annotated[list[str], "The deleted ones of the files that the loop had written into its folder."]
    freed_bytes: Annotated[int | None, "By how much the data folder is smaller; null with --server."]


@command(
    app,
    "delete",
    prints=DeletedLoop,
    example=("tunix-rt loop delete loop.yaml", "tunix-rt loop delete loop-output --yes"),
)
def delete(
    session: Session,
    loop: Annotated[
        Path, typer.Argument(metavar="LOOP", help="The loop's YAML file, or the folder of its reports.")
    ],
    force: ForceOption = False,
    yes: YesOption = False,
) -> None:
    """Delete all that a loop made: report, evaluations, training jobs, dataset, eval set, and the reports in
    its folder. What others use is kept. Traces and base models stay."""
    output_dir = loop if loop.is_dir() else _config_of(loop).output_dir
    before = session.data_bytes()
    with session.connect() as client:
        removal = plan_removal(client, output_dir, force=force)
        users = [user for found in removal.kept.values() for user in found]
        named = with_names(client, "\n".join(removal.names), removal.names).splitlines()
        kept_lines = with_names(client, "\n".join(kept_of(removal)), [*removal.kept, *users]).splitlines()
        lines = [*named, *map(str, removal.files), *kept_lines]
        confirm(session, f"Delete these {len(removal.names)} and the files for good?", lines, yes=yes)
        deleted = remove_loop(client, removal, force=force)
    # Files are freed when the server of this process has ended.
    freed = None if before is None else max(0, before - (session.data_bytes() or 0))
    if session.as_json:
        kept = {name: list(users) for name, users in removal.kept.items()}
        files = [str(path) for path in removal.files]
        document = {"deleted": deleted, "kept": kept, "not_its_own": list(removal.not_its_own)}
        session.print_json(document | {"files": files, "freed_bytes": freed})
        return
    told = dict(zip(removal.names, named, strict=True))
    for line in [*(f"deleted {told[name]}" for name in deleted), *kept_lines]:
        session.out.print(line, markup=False, highlight=False, soft_wrap=True)
    if freed is not None:
        session.out.print(f"{text.size(freed)} freed", highlight=False)
    session.out.print(
        "traces and base models stay: tunix-rt traces delete, tunix-rt models delete", style="dim"
    )


def _config_of(given: Path) -> LoopConfig:
    """The settings of a loop's file; an error says which file here is that of a loop of this name."""
    try:
        return LoopConfig.from_yaml(given)
    except InvalidArgumentError as error:
        if not given.exists():
            error.message += "; give a loop's YAML file, or the folder that it wrote its reports into"
            for file in sorted([*Path().glob("*.yaml"), *Path().glob("*.yml")]):
                with suppress(InvalidArgumentError):
                    if LoopConfig.from_yaml(file).name == str(given):
                        error.message += f"; {file} is that of a loop of this name"
        raise


def _show_plan(session: Session, config: LoopConfig) -> None:
    with session.connect(Effect.READS) as client, session.progress() as progress:
        bars = _MeasuringBars(progress)
        plan = plan_loop(config, client, on_measuring=bars.begin)
        bars.end()
    if session.as_json:
        stages = [dataclasses.asdict(stage) for stage in plan.stages]
        session.print_json({"name": plan.name, "stages": stages, "seconds": plan.seconds})
        return
    rows = tables.table("STAGE", "~WOULD", "AMOUNTS", ">TIME")
    for stage in plan.stages:
        seconds = "-" if not stage.seconds else f"{_near(stage)} {text.duration(stage.seconds)}"
        tables.add_row(rows, _LABELS[stage.stage], stage.does, _amounts(stage), seconds)
    together = "-" if plan.seconds is None else f"about {text.duration(plan.seconds)}"
    tables.add_row(rows, "together", "what is estimated", "", together)
    session.out.print(rows)
    session.out.print("how the times were estimated:", style="bold")
    for stage in plan.stages:
        if stage.basis:
            line = f"{_LABELS[stage.stage]}: {stage.basis}"
            session.out.print(line, markup=False, highlight=False, soft_wrap=True)


class _MeasuringBars:
    """A line when a measurement begins, and a bar until it ends."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._bar = Bar()

    def begin(self, what: str) -> None:
        self.end()
        took = "loads and compiles the model, then takes some seconds; nothing is started or stored"
        self._reporter.note(f"measuring {what}: {took}")
        self._bar = self._reporter.bar(f"measuring {what}")

    def end(self) -> None:
        self._bar.finish()
        self._bar = Bar()


def _amounts(stage: StagePlan) -> str:
    told = ", ".join(text.amount(count, unit) for unit, count in stage.amounts.items())
    return f"{_near(stage)} {told}" if stage.bounded and told else told


def _near(stage: StagePlan) -> str:
    """What stands before figures that are not exact."""
    return "about" if stage.stage == "training" else "up to"


_LABELS: dict[Stage, str] = {
    "import": "import",
    "dataset": "dataset",
    "eval_set": "eval set",
    "evaluation_before": "base evaluation",
    "training": "training",
    "evaluation_after": "candidate evaluation",
    "comparison": "comparison",
}


def run_with_progress(
    session: Session, client: Client, config: LoopConfig, *, server: str | None
) -> LoopResult:
    """Run the loop and show each stage; on Ctrl-C say how to go on, and leave with exit code 130.

    ``server`` is None when the client's server lives in this process.
    """
    try:
        with session.progress() as progress:
            return run_loop(config, client, on_event=loop_progress(progress, show_log=session.verbose > 0))
    except KeyboardInterrupt:
        becomes = "stops now" if server is None else "keeps running on the server"
        session.leave_interrupted(f"the running job {becomes}; the same command goes on from here")


def loop_progress(
    reporter: Reporter, *, show_log: bool = False, clock: Callable[[], float] = time.monotonic
) -> Callable[[LoopEvent], None]:
    """What to call with each event of a loop: a bar for what it does, a line for each stage that is done."""
    view = _LoopView(reporter, show_log, clock)
    return view.show


class _LoopView:
    def __init__(self, reporter: Reporter, show_log: bool, clock: Callable[[], float]) -> None:
        self._reporter = reporter
        self._show_log = show_log
        self._clock = clock
        self._bars: StageBars | None = None
        self._begun = 0.0
        self._losses = LossLine()
        self._detail = ""

    def show(self, event: LoopEvent) -> None:
        label = _LABELS[event.stage]
        match event.kind:
            case "started":
                self._bars, self._begun = StageBars(self._reporter, label), self._clock()
            case "progress":
                self._progress(event, label)
            case "log":
                if self._show_log:
                    self._reporter.note(event.message)
            case "finished" | "skipped":
                self._end(event, label)

    def _progress(self, event: LoopEvent, label: str) -> None:
        if self._bars is None:
            return
        if event.metrics is not None:
            self._detail = self._losses.after(event.metrics)
        progress = v1.Progress(
            stage=event.message or label, completed=event.completed, total=event.total, unit=event.unit
        )
        if event.eta_seconds is not None:
            progress.eta.CopyFrom(Duration(seconds=round(event.eta_seconds)))
        self._bars.show(progress, self._detail if event.unit == STEPS else "")

    def _end(self, event: LoopEvent, label: str) -> None:
        if self._bars is not None:
            self._bars.end(True, "")
            self._bars = None
        how = "was done before" if event.kind == "skipped" else text.duration(self._clock() - self._begun)
        parts = (part for part in (event.resource, event.message, how) if part)
        self._reporter.note(f"{label}: {', '.join(parts)}")


def print_result(console: Console, result: LoopResult, *, flips: int = 3) -> None:
    """The comparison, how long each stage took, the digests and where the report is."""
    print_comparison(console, result.report, flips=flips)
    stages = tables.table("STAGE", ">TIME", "~MADE")
    for stage in sorted(result.stage_seconds, key=list(STAGES).index):
        tables.add_row(
            stages, _LABELS[stage], text.duration(result.stage_seconds[stage]), _made(result, stage)
        )
    tables.add_row(stages, "together", text.duration(sum(result.stage_seconds.values())), "")
    console.print(stages)
    console.print("SHA-256 of what two runs of this loop have in common:", style="bold")
    console.print(
        tables.facts((name, digest.removeprefix("sha256:")) for name, digest in digests(result).items())
    )
    console.print(f"\nreport: {result.files['report.html']}", highlight=False, soft_wrap=True)


def digests(result: LoopResult) -> dict[str, str]:
    """What two runs of one loop are compared by."""
    return {
        "dataset": result.dataset.digest,
        "losses": losses_digest(result.report),
        "checkpoint": result.checkpoint.digest,
        "base answers": result.evaluation_before.manifest.results_digest,
        "candidate answers": result.evaluation_after.manifest.results_digest,
    }


def result_document(result: LoopResult) -> dict[str, Any]:
    """A loop's result as JSON values: names and digests, seconds of each stage, files."""
    return {
        **result.summary(),
        "stage_seconds": {stage: round(seconds, 3) for stage, seconds in result.stage_seconds.items()},
        "files": {name: str(path) for name, path in result.files.items()},
    }


def _made(result: LoopResult, stage: Stage) -> str:
    return {
        "import": "" if result.imported is None else f"{text.counted(result.imported.read, 'trace')}",
        "dataset": result.dataset.name,
        "eval_set": result.eval_set.name,
        "evaluation_before": result.evaluation_before.name,
        "training": result.checkpoint.name,
        "evaluation_after": result.evaluation_after.name,
        "comparison": result.report.name,
    }[stage]

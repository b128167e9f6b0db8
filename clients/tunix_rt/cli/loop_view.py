"""A loop while it runs, and what it made."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any

import typer
from google.protobuf.duration_pb2 import Duration
from rich.console import Console

from tunix_rt import Client, v1
from tunix_rt.cli import tables, text
from tunix_rt.cli.comparison_view import print_comparison
from tunix_rt.cli.job_progress import LOSSES, STEPS, StageBars, metrics_line
from tunix_rt.cli.progress import Reporter
from tunix_rt.cli.session import Session
from tunix_rt.loop import STAGES, LoopConfig, LoopEvent, LoopResult, Stage, run_loop
from tunix_rt.loop.result import losses_digest

_INTERRUPTED = 130
_LABELS: dict[Stage, str] = {
    "import": "import",
    "dataset": "dataset",
    "eval_set": "eval set",
    "evaluation_before": "evaluation before",
    "training": "training",
    "evaluation_after": "evaluation after",
    "comparison": "comparison",
}


def run_with_progress(
    session: Session, client: Client, config: LoopConfig, *, server: str | None
) -> LoopResult:
    """Runs the loop and shows each stage; on Ctrl-C says how to go on and leaves with exit code 130.

    ``server`` is None when the client's server lives in this process.
    """
    try:
        with session.progress() as progress:
            return run_loop(config, client, on_event=loop_progress(progress, show_log=session.verbose > 0))
    except KeyboardInterrupt:
        job = "stops now" if server is None else "keeps running on the server"
        line = f"interrupted: the running job {job}; the same command goes on from here"
        session.err.print(line, markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(_INTERRUPTED) from None


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
        self._losses: deque[float] = deque(maxlen=LOSSES)
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
            self._losses.append(event.metrics.loss)
            self._detail = metrics_line(event.metrics, list(self._losses))
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
        "answers before": result.evaluation_before.manifest.results_digest,
        "answers after": result.evaluation_after.manifest.results_digest,
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

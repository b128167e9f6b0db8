"""A loop as it is followed: what it does now, and a line for each stage that is done."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from tunix_rt import v1
from tunix_rt.cli.loops import loop_progress
from tunix_rt.cli.progress import LineReporter
from tunix_rt.loop import LoopEvent

LOSSES = (2.0, 1.5)


def events() -> list[LoopEvent]:
    return [
        LoopEvent("dataset", "started"),
        LoopEvent("dataset", "skipped", resource="datasets/d@1", message="rows: train 80"),
        LoopEvent("training", "started"),
        LoopEvent("training", "progress", message="loading the model"),
        LoopEvent("training", "log", message="peak 2.1 GB"),
        LoopEvent("training", "progress", message="training", total=2, unit="steps"),
        *(
            LoopEvent(
                "training", "progress", message="training", completed=step, total=2, unit="steps",
                eta_seconds=30.0, metrics=v1.TrainingMetrics(step=step, loss=loss),
            )
            for step, loss in enumerate(LOSSES, 1)
        ),
        LoopEvent("training", "finished", resource="trainingJobs/j", message="step 2, loss 1.5000"),
    ]  # fmt: skip


@pytest.mark.parametrize("show_log", [False, True])
def test_stages_are_followed(show_log: bool) -> None:
    sink, now = io.StringIO(), [0.0]
    clock = lambda: now[0]  # noqa: E731
    reporter = LineReporter(Console(file=sink, width=200), clock=clock)
    show = loop_progress(reporter, show_log=show_log, clock=clock)
    for event in events():
        now[0] += 12
        show(event)
    log = ["peak 2.1 GB"] if show_log else []
    assert sink.getvalue().splitlines() == [
        "dataset: datasets/d@1, rows: train 80, was done before",
        *log,
        "training: loading the model: 24 s",
        "training: 1/2 steps loss 2.0000 ▁, 30 s left",
        "training: 2/2 steps loss 1.5000 █▁, 30 s left",
        "training: 2/2 steps loss 1.5000 █▁, 36 s",
        "training: trainingJobs/j, step 2, loss 1.5000, 1 min 12 s",
    ]

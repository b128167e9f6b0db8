"""Progress: lines where there is no terminal, bars where there is one, nothing with --json."""

from __future__ import annotations

import io

import pytest
from google.protobuf.duration_pb2 import Duration
from rich.console import Console

from tunix_rt import v1
from tunix_rt.cli.progress import (
    LineReporter,
    LiveReporter,
    LossLine,
    Reporter,
    dataset_progress,
    evaluation_progress,
    training_progress,
)
from tunix_rt.cli.session import Session, SharedOptions


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sink() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def lines(sink: io.StringIO, clock: Clock) -> LineReporter:
    return LineReporter(Console(file=sink, width=200), clock=clock)


def test_lines_come_at_most_every_ten_seconds(lines: LineReporter, sink: io.StringIO, clock: Clock) -> None:
    bar = lines.bar("storing traces", 300, "traces")
    for step in range(1, 31):
        clock.now += 1
        bar.update(step * 10, detail="ok", seconds_left=30 - step)
    bar.finish()
    assert sink.getvalue().splitlines() == [
        "storing traces: 100/300 traces ok, 20 s left",
        "storing traces: 200/300 traces ok, 10 s left",
        "storing traces: 300/300 traces ok",
        "storing traces: 300/300 traces ok, 30 s",
    ]


def test_line_of_work_that_ended_early_says_how_far_it_came(
    lines: LineReporter, sink: io.StringIO, clock: Clock
) -> None:
    bar = lines.bar("training", 40, "steps")
    bar.update(7)
    clock.now += 65
    bar.stop("cancelled")
    assert sink.getvalue() == "training: cancelled after 7/40 steps, 1 min 05 s\n"


def test_live_bars_show_amount_and_detail() -> None:
    sink = io.StringIO()
    console = Console(file=sink, width=160, force_terminal=True, color_system=None)
    with LiveReporter(console) as reporter:
        bar = reporter.bar("training: steps", 40, "steps")
        bar.update(12, detail="loss [0.5] ▇▁", seconds_left=65.0)
        unknown = reporter.bar("queued")
        unknown.finish()
        bar.finish()
        reporter.note("a line that stays")
    shown = sink.getvalue()
    assert "40/40 steps" in shown
    assert "loss [0.5] ▇▁" in shown
    assert "a line that stays" in shown


def test_json_and_pipes_choose_their_reporter() -> None:
    assert type(Session(SharedOptions(as_json=True)).progress()) is Reporter
    assert isinstance(Session(SharedOptions()).progress(), LineReporter)


def test_dataset_goes_through_its_stages(lines: LineReporter, sink: io.StringIO, clock: Clock) -> None:
    update = dataset_progress(lines)
    states = v1.Dataset
    update(v1.Dataset(state=states.STATE_QUEUED))
    for stage, completed in (("reading traces", 50), ("reading traces", 100), ("writing", 10)):
        clock.now += 2
        update(
            v1.Dataset(
                state=states.STATE_RUNNING,
                progress=v1.Progress(stage=stage, completed=completed, total=100, unit="rows"),
            )
        )
    update(v1.Dataset(state=states.STATE_SUCCEEDED))
    assert sink.getvalue().splitlines() == [
        "dataset: waiting for its turn: 2.0 s",
        "dataset: reading traces: 100/100 rows 4.0 s",
        "dataset: writing: 100/100 rows 0.0 s",
    ]


def test_training_shows_losses_and_tokens(lines: LineReporter, sink: io.StringIO, clock: Clock) -> None:
    event = training_progress(lines, show_log=True)
    running = v1.TrainingJob(
        state=v1.TrainingJob.STATE_RUNNING,
        progress=v1.Progress(stage="training", total=3, unit="steps"),
    )
    event(v1.WatchTrainingJobResponse(training_job=running))
    for step, loss in ((1, 2.0), (2, 1.0)):
        clock.now += 11
        metrics = v1.TrainingMetrics(step=step, loss=loss, tokens_per_second=1234.5, eta=Duration(seconds=20))
        event(v1.WatchTrainingJobResponse(metrics=metrics))
    event(v1.WatchTrainingJobResponse(log_line="compiled in 9 s"))
    last = v1.TrainingMetrics(step=3, loss=0.5, validation_loss=0.7)
    event(v1.WatchTrainingJobResponse(metrics=last))
    event(v1.WatchTrainingJobResponse(training_job=v1.TrainingJob(state=v1.TrainingJob.STATE_SUCCEEDED)))
    assert sink.getvalue().splitlines() == [
        "training: 1/3 steps loss 2.0000 ▁, 1,234 tokens/s, 20 s left",
        "training: 2/3 steps loss 1.0000 █▁, 1,234 tokens/s, 20 s left",
        "compiled in 9 s",
        "training: 3/3 steps loss 0.5000 █▃▁, validation loss 0.7000, 22 s",
    ]


def test_a_job_that_goes_on_from_its_checkpoint_shows_each_step_once() -> None:
    line = LossLine()
    for step, loss in ((1, 8.0), (2, 4.0), (3, 4.0), (2, 2.0), (3, 1.0)):
        shown = line.after(v1.TrainingMetrics(step=step, loss=loss))
    assert shown == "loss 1.0000 █▂▁"


def test_a_job_that_is_beyond_its_steps_shows_its_losses(lines: LineReporter, sink: io.StringIO) -> None:
    event = training_progress(lines)
    job = v1.TrainingJob(
        state=v1.TrainingJob.STATE_RUNNING,
        spec=v1.TrainingSpec(max_steps=3),
        progress=v1.Progress(stage="saving"),
    )
    event(v1.WatchTrainingJobResponse(training_job=job))
    for step in (1, 2, 3):
        event(v1.WatchTrainingJobResponse(metrics=v1.TrainingMetrics(step=step, loss=1.0)))
    event(v1.WatchTrainingJobResponse(training_job=v1.TrainingJob(state=v1.TrainingJob.STATE_SUCCEEDED)))
    assert "training: 3/3 steps loss 1.0000" in sink.getvalue()


def test_training_that_is_broken_off_to_save_shows_the_step_that_it_reached(
    lines: LineReporter, sink: io.StringIO
) -> None:
    event = training_progress(lines)
    for stage, steps in (("training", (1, 2)), ("saving", ()), ("training", (3, 4))):
        total, unit = (4, "steps") if stage == "training" else (0, "")
        progress = v1.Progress(stage=stage, total=total, unit=unit, completed=2 * (steps[:1] == (3,)))
        job = v1.TrainingJob(state=v1.TrainingJob.STATE_RUNNING, progress=progress)
        event(v1.WatchTrainingJobResponse(training_job=job))
        for step in steps:
            event(v1.WatchTrainingJobResponse(metrics=v1.TrainingMetrics(step=step, loss=1.0)))
    event(v1.WatchTrainingJobResponse(training_job=v1.TrainingJob(state=v1.TrainingJob.STATE_SUCCEEDED)))
    shown = [line.split(" loss")[0] for line in sink.getvalue().splitlines()]
    assert shown[0] == "training: 2/4 steps"
    assert shown[-1] == "training: 4/4 steps"


def test_failed_evaluation_keeps_its_place(lines: LineReporter, sink: io.StringIO) -> None:
    update = evaluation_progress(lines, "base evaluation")
    progress = v1.Progress(stage="generating", completed=16, total=40, unit="items")
    update(v1.Evaluation(state=v1.Evaluation.STATE_RUNNING, progress=progress))
    update(v1.Evaluation(state=v1.Evaluation.STATE_FAILED, progress=progress))
    assert sink.getvalue() == "base evaluation: generating: failed after 16/40 items, 0.0 s\n"

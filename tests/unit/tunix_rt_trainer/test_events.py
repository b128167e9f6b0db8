"""A job's facts, folded from its worker's events."""

from __future__ import annotations

from typing import Any

from tunix_rt_trainer.jobs.training import TrainingFacts, WrittenCheckpoint, numbered_lines

METRICS = {
    "step": 1,
    "loss": 2.5,
    "learning_rate": 0.001,
    "grad_norm": 1.5,
    "supervised_tokens": 5,
    "tokens": 9,
    "tokens_per_second": 18,
    "step_duration_s": 0.5,
    "eta_s": 0,
}


def event(kind: str, time: float = 0.0, **values: Any) -> dict[str, Any]:
    return {"kind": kind, "time": time, **values}


def stage(name: str, time: float) -> dict[str, Any]:
    return event("stage", time, stage=name, completed=0, total=4, unit="steps")


def test_a_stage_that_comes_again_is_added_up_and_the_running_one_has_no_time_yet() -> None:
    facts = TrainingFacts(1)
    facts.take(
        [
            event("attempt", number=1),
            stage("training", 10.0),
            stage("validating", 12.0),
            stage("training", 13.5),
            stage("saving", 15.0),
        ]
    )
    assert [(timing.stage, timing.duration_s) for timing in facts.stage_timings] == [
        ("training", 3.5),
        ("validating", 1.5),
    ]
    facts.take([event("exit", 16.0, code=0)])
    assert facts.stage_timings[-1].stage == "saving"
    assert facts.stage_timings[-1].duration_s == 1.0
    assert facts.exit_code == 0


def test_only_the_attempt_that_is_followed_counts() -> None:
    earlier = [
        event("attempt", number=1),
        stage("training", 1.0),
        event("metrics", **METRICS),
        event("checkpoint", step=1, folder="checkpoints/1"),
        event("exit", 2.0, code=1),
    ]
    facts = TrainingFacts(2)
    facts.take(earlier)
    assert (facts.progress, facts.latest_metrics, facts.exit_code) == (None, None, None)
    assert (facts.stage_timings, facts.new_checkpoints) == ((), [])
    facts.take([event("attempt", number=2), event("plan", max_steps=7), event("metrics", **METRICS)])
    assert facts.filled_in == {"max_steps": 7}
    assert facts.latest_metrics is not None
    assert facts.latest_metrics.loss == 2.5


def test_progress_checkpoints_and_errors_are_kept() -> None:
    facts = TrainingFacts(1)
    facts.take(
        [
            event("attempt", number=1),
            event("progress", stage="training", completed=2, total=4, unit="steps", eta_s=1.5),
            event("checkpoint", step=2, folder="checkpoints/2"),
            event("error", code="INTERNAL", reason="WORKER_FAILED", message="m", metadata={"a": "b"}),
        ]
    )
    assert facts.progress is not None
    assert (facts.progress.completed, facts.progress.eta_s) == (2, 1.5)
    assert facts.new_checkpoints == [WrittenCheckpoint(2, "checkpoints/2")]
    assert facts.error is not None
    assert (facts.error.reason, facts.error.metadata) == ("WORKER_FAILED", {"a": "b"})


def test_metrics_and_log_lines_are_numbered_as_one_over_all_attempts() -> None:
    events = [
        event("attempt", number=1),
        event("log", line="one"),
        stage("training", 1.0),
        event("metrics", **METRICS),
        event("attempt", number=2),
        event("log", line="three"),
    ]
    lines = numbered_lines(events, 0)
    assert [(line.number, line.log_line) for line in lines] == [(1, "one"), (2, None), (3, "three")]
    assert lines[1].metrics is not None
    assert lines[1].metrics.loss == 2.5
    assert [line.number for line in numbered_lines(events[3:], 1)] == [2, 3]

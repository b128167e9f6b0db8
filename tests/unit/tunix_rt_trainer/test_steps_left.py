"""How long the rest of a training takes: steps, and the validations and saving between them."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tunix_rt_trainer.worker.train import StepsLeft


def told(
    steps: list[float], validation: float = 0.0, every: int = 0, saving: float = 0.0, save_every: int = 0
) -> list[tuple[int, float, float]]:
    """Step, seconds told and seconds that it took from there, for each step behind which it was told."""
    plan: Any = SimpleNamespace(
        max_steps=len(steps),
        validation_interval_steps=every,
        checkpoint_interval_steps=save_every,
        # Twelve batches forward alone: four steps.
        validation=SimpleNamespace(batches_per_epoch=12) if validation else None,
    )
    left, now, found = StepsLeft(cast("Any", plan)), 0.0, []
    for step, seconds in enumerate(steps, start=1):
        now += seconds
        left.took(seconds)
        last = step == len(steps)
        found.append((step, left.after(step, paused=False), now))
        if validation and (last or (every and step % every == 0)):
            now += validation
            left.validation_took(validation)
        if last or (save_every and step % save_every == 0):
            now += saving
            left.saving_took(saving)
        found.append((step, left.after(step, paused=True), now))
    return [(step, said, now - then) for step, said, then in found if said is not None]


@pytest.mark.parametrize(
    "given",
    [
        {"steps": [10.0] * 30},
        {"steps": [90.0] + [10.0] * 29},
        {"steps": [10.0] * 30, "validation": 40.0, "every": 5, "saving": 3.0, "save_every": 10},
        {"steps": [10.0] * 30, "validation": 60.0},
        {"steps": [random.Random(1).uniform(7, 13) for _ in range(30)], "validation": 25.0, "every": 7},
        {"steps": [10.0, 30.0, 10.0, 31.0] + [10.0] * 20},
    ],
)
def test_what_is_told_is_within_a_factor_of_two(given: dict[str, Any]) -> None:
    found = told(**given)
    assert [entry for entry in found[:-1] if not entry[2] / 2 <= entry[1] <= entry[2] * 2] == []
    assert found[-1] == (len(given["steps"]), 0.0, 0.0)


def test_three_like_steps_behind_the_first_are_enough() -> None:
    assert told([90.0] + [10.0] * 29)[0] == (4, 260.0, 260.0)
    assert told([1.0, 1.0, 1.0]) == [(3, 0.0, 0.0)]


def test_steps_that_differ_tell_nothing_until_the_last_ten_are_alike() -> None:
    assert told([1.0, 1.0, 1.0, 5.0] + [1.0] * 20)[0][0] == 14

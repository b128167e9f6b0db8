"""The learning rate over the steps, and AdamW."""

from __future__ import annotations

import math

import jax.numpy as jnp
import optax
import pytest

from tunix_rt_trainer.jobs.model import OptimizerConfig
from tunix_rt_trainer.worker.step import learning_rate, make_optimizer


def config(**changed: object) -> OptimizerConfig:
    values: dict[str, object] = {
        "learning_rate": 0.01,
        "schedule": "constant",
        "warmup_steps": 0,
        "weight_decay": 0.0,
        "beta1": 0.9,
        "beta2": 0.999,
        "epsilon": 1e-8,
        "max_grad_norm": 0.0,
    }
    return OptimizerConfig.model_validate(values | changed)


def rates(steps: int, **changed: object) -> list[float]:
    schedule = learning_rate(config(**changed), steps)
    return [float(jnp.asarray(schedule(step))) for step in range(steps + 1)]


def test_constant_stays_at_the_peak() -> None:
    assert rates(3) == pytest.approx([0.01] * 4)


def test_linear_falls_to_zero_after_the_last_step() -> None:
    assert rates(4, schedule="linear") == pytest.approx([0.01, 0.0075, 0.005, 0.0025, 0.0])


def test_cosine_falls_on_half_a_cosine() -> None:
    expected = [0.005 * (1 + math.cos(math.pi * step / 4)) for step in range(5)]
    assert rates(4, schedule="cosine") == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_the_warm_up_rises_from_zero_to_the_peak(schedule: str) -> None:
    made = rates(8, schedule=schedule, warmup_steps=4)
    assert made[:5] == pytest.approx([0.0, 0.0025, 0.005, 0.0075, 0.01])
    assert made[8] == pytest.approx(0.01 if schedule == "constant" else 0.0, abs=1e-9)


def first_update(gradient: list[float], **changed: object) -> list[float]:
    optimizer = make_optimizer(config(**changed), 10)
    weights = jnp.ones(len(gradient))
    updates, _ = optimizer.update(jnp.asarray(gradient), optimizer.init(weights), weights)
    return [float(value) for value in optax.tree.cast(updates, jnp.float32)]


def test_the_first_step_of_adam_is_the_learning_rate_by_the_sign_and_decays_weights() -> None:
    assert first_update([3.0, -4.0]) == pytest.approx([-0.01, 0.01], rel=1e-4)
    assert first_update([3.0, -4.0], weight_decay=0.5) == pytest.approx([-0.015, 0.005], rel=1e-4)


def test_gradients_are_clipped_by_their_global_norm() -> None:
    # With an epsilon as big as the clipped gradient, Adam's first step shows the gradient's size.
    assert first_update([3.0, -4.0], max_grad_norm=1.0, epsilon=0.6) == pytest.approx(
        [-0.01 * 0.6 / 1.2, 0.01 * 0.8 / 1.4], rel=1e-4
    )
    assert first_update([3.0, -4.0], max_grad_norm=0.0, epsilon=3.0) == pytest.approx(
        [-0.01 * 0.5, 0.01 * 4 / 7], rel=1e-4
    )

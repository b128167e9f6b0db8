"""Drawn tokens against numpy's sorted top-p, and against the probabilities that they should have."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunix_rt_evaluator.worker.compiled import most_probable, sampled

DRAWN = jax.jit(sampled)
# A program is compiled for each; a block of the sums has 128.
SIZES = (1, 2, 31, 128, 129, 300)


def draw(logits: np.ndarray, *, temperature: float = 1.0, top_p: float = 1.0, seed: int = 0) -> np.ndarray:
    rows = len(logits)
    keys = jnp.asarray(np.random.default_rng(seed).integers(0, 1 << 32, (rows, 2), dtype=np.uint32))
    return np.asarray(
        DRAWN(
            jnp.asarray(logits, jnp.float32),
            keys,
            jnp.zeros(rows, jnp.int32),
            jnp.float32(temperature),
            jnp.float32(top_p),
        )
    )


def nucleus(probabilities: np.ndarray, top_p: float) -> np.ndarray:
    """Which tokens top-p leaves, by sorting."""
    order = np.argsort(-probabilities, kind="stable")
    before = np.cumsum(probabilities[order]) - probabilities[order]
    least = probabilities[order][before < top_p].min()
    return probabilities >= least


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("top_p", [0.3, 0.9, 1.0])
def test_tokens_come_as_often_as_they_are_probable(temperature: float, top_p: float) -> None:
    # A second, which each process that collects the tests would take.
    from scipy import stats

    logits = np.random.default_rng(4).normal(size=300)
    probabilities = np.exp(logits / temperature)
    probabilities /= probabilities.sum()
    left = nucleus(probabilities, top_p)
    drawn = draw(np.tile(logits, (20_000, 1)), temperature=temperature, top_p=top_p, seed=1)
    assert left[drawn].all()
    expected = np.where(left, probabilities, 0) / probabilities[left].sum()
    often = expected * len(drawn) >= 5
    seen = np.bincount(drawn, minlength=300)
    observed = [*seen[often], seen[~often].sum()]
    wanted = [*(expected[often] * len(drawn)), expected[~often].sum() * len(drawn)]
    if wanted[-1] < 1e-9:
        observed, wanted = observed[:-1], wanted[:-1]
    assert stats.chisquare(observed, wanted).pvalue > 1e-4


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(SIZES).flatmap(
        lambda size: st.lists(st.floats(-12, 12, width=32), min_size=size, max_size=size)
    ),
    st.floats(0.05, 1.0),
    st.integers(0, 1 << 30),
)
def test_what_is_drawn_is_in_the_nucleus(logits: list[float], top_p: float, seed: int) -> None:
    (token,) = draw(np.asarray([logits]), top_p=top_p, seed=seed)
    probabilities = np.asarray(jax.nn.softmax(jnp.asarray(logits, jnp.float32)))
    # Sums in another order may differ in the last bits.
    assert nucleus(probabilities, min(1.0, top_p + 1e-5))[token]


def test_a_nucleus_of_one_is_the_most_probable_token() -> None:
    logits = np.random.default_rng(0).normal(size=(50, 1_000))
    assert (draw(logits, top_p=1e-6) == logits.argmax(axis=1)).all()


def test_equal_logits_go_to_the_lowest_id() -> None:
    assert list(most_probable(jnp.asarray([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]]))) == [1, 0]

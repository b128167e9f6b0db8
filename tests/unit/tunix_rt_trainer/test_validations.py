"""When validation losses end training, and which is the best."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tunix_rt_trainer.jobs.model import EarlyStopping
from tunix_rt_trainer.worker.train import Validations

losses = st.lists(st.floats(0, 10), max_size=30)


def stops_at(values: list[float], patience: int, min_delta: float = 0.0) -> int | None:
    """How many losses it took, or None if training went on."""
    seen = Validations(EarlyStopping(patience=patience, min_delta=min_delta))
    for count, value in enumerate(values, 1):
        seen.take(value)
        if seen.exhausted:
            return count
    return None


def test_training_ends_after_as_many_losses_without_a_fall_as_patience_allows() -> None:
    assert stops_at([3.0, 2.0, 2.0, 2.5], 2) == 4
    assert stops_at([3.0, 2.0, 2.5, 1.9, 2.0], 2) is None
    assert stops_at([1.0, 1.0], 1) == 2


def test_a_fall_counts_if_it_is_more_than_min_delta_since_the_last_one_that_counted() -> None:
    slow = [3.0, 2.9, 2.8, 2.7, 2.6]
    assert stops_at(slow, 2, 0.5) == 3
    assert stops_at(slow, 2, 0.15) is None
    assert stops_at(slow, 2) is None


def test_the_best_is_the_first_of_the_lowest() -> None:
    seen = Validations(None)
    assert [seen.take(value) for value in (2.0, 2.0, 1.9, 1.95, 1.9)] == [True, False, True, False, False]
    assert not seen.exhausted


@given(losses, st.integers(0, 30), st.integers(1, 4), st.floats(0, 1))
def test_losses_that_were_measured_before_count_as_those_of_now(
    values: list[float], cut: int, patience: int, delta: float
) -> None:
    stopping = EarlyStopping(patience=patience, min_delta=delta)
    whole, resumed = Validations(stopping, values[:cut]), Validations(stopping)
    for value in values[:cut]:
        resumed.take(value)
    assert [(whole.take(value), whole.exhausted) for value in values[cut:]] == [
        (resumed.take(value), resumed.exhausted) for value in values[cut:]
    ]

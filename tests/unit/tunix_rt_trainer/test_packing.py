"""Which examples share a row, and which rows share a batch."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from tunix_rt_trainer.worker.batches import BatchPlan, seeded_order

CAPACITY = 32
lengths = st.lists(st.integers(1, CAPACITY), max_size=60)


def plan(sizes: list[int], **changed: object) -> BatchPlan:
    options: dict[str, object] = {
        "row_length": CAPACITY,
        "rows_per_batch": 3,
        "packing": True,
        "seed": 1,
        "dataset_digest": "sha256:d",
    }
    ids = [f"example {number}" for number in range(len(sizes))]
    return BatchPlan(ids, sizes, **(options | changed))  # type: ignore[arg-type]


def epoch(made: BatchPlan, number: int) -> list[list[list[int]]]:
    first = number * made.batches_per_epoch
    return [made.batch(step) for step in range(first, first + made.batches_per_epoch)]


def test_each_epoch_has_an_order_and_a_packing_of_its_own() -> None:
    alone, packed = (plan([9, 11, 12] * 10, packing=packing) for packing in (False, True))
    assert len({str(epoch(alone, number)) for number in range(3)}) == 3
    shared = [{frozenset(row) for rows in epoch(packed, number) for row in rows} for number in range(3)]
    assert len(set(map(frozenset, shared))) == 3


def test_an_order_depends_on_its_seed_and_on_nothing_but_the_keys() -> None:
    keys = [f"k{number}" for number in range(50)]
    order = [keys[index] for index in seeded_order(keys, "a", 1)]
    assert order != keys
    assert order != [keys[index] for index in seeded_order(keys, "a", 2)]
    turned = keys[::-1]
    assert order == [turned[index] for index in seeded_order(turned, "a", 1)]


@given(st.lists(st.integers(1, CAPACITY), min_size=1, max_size=40), st.booleans())
def test_each_epoch_takes_each_example_once_in_full_batches_but_the_last(
    sizes: list[int], packing: bool
) -> None:
    made = plan(sizes, packing=packing)
    for number in range(3):
        batches = epoch(made, number)
        seen = Counter(example for batch in batches for row in batch for example in row)
        assert seen == Counter(range(len(sizes)))
        assert all(len(batch) == made.rows_per_batch for batch in batches[:-1])
        assert 1 <= len(batches[-1]) <= made.rows_per_batch
        if not packing:
            assert all(len(row) == 1 for batch in batches for row in batch)


def test_a_batch_is_a_function_of_its_step_alone() -> None:
    sizes = [1 + (7 * number) % CAPACITY for number in range(40)]
    steps = [11, 3, 11, 0, 25, 3]
    one, other = plan(sizes), plan(sizes)
    expected = {step: other.batch(step) for step in sorted(steps)}
    assert [one.batch(step) for step in steps] == [expected[step] for step in steps]


def test_epochs_seeds_and_datasets_have_orders_of_their_own() -> None:
    sizes = [1 + (5 * number) % 9 for number in range(40)]
    made = plan(sizes)
    assert epoch(made, 0) != epoch(made, 1)
    assert epoch(made, 0) != epoch(plan(sizes, seed=2), 0)
    assert epoch(made, 0) != epoch(plan(sizes, dataset_digest="sha256:e"), 0)
    assert epoch(made, 0) == epoch(plan(sizes), 0)


def test_a_batch_is_no_bigger_than_there_are_rows() -> None:
    made = plan([CAPACITY, CAPACITY], rows_per_batch=8)
    assert (made.rows_per_batch, made.batches_per_epoch) == (2, 1)

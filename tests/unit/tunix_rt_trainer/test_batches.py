"""Batches as arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tunix_rt_kit.loss_mask import TokenExample
from tunix_rt_trainer.worker.batches import BatchPlan, BatchSource

LENGTH, PAD = 12, 99


def example(name: str, prompt: list[int], response: list[int]) -> TokenExample:
    return TokenExample.answering(name, (*prompt, *response), len(prompt))


A = example("a", [1, 2, 3], [4, 5])
B = example("b", [6], [7, 8, 9])
C = example("c", [10, 11, 12, 13, 14, 15], [16, 17, 18, 19])
PROMPTLESS = example("p", [], [20, 21, 22])


def source(
    *examples: TokenExample, packing: bool = True, steps: int = 1, rows: int = 4, **changed: int
) -> BatchSource:
    plan = BatchPlan(
        [row.id for row in examples],
        [len(row.ids) for row in examples],
        row_length=LENGTH,
        rows_per_batch=rows,
        packing=packing,
        seed=0,
        dataset_digest="sha256:d",
    )
    return BatchSource(examples, plan, row_length=LENGTH, pad_id=PAD, steps=steps, **changed)


def test_rows_hold_examples_side_by_side_and_padding_after_them() -> None:
    batch = source(A, B, C).batch(0)
    by_ids = dict(zip(batch.example_ids, range(4), strict=False))
    assert set(map(frozenset, by_ids)) == {frozenset("ab"), frozenset("c")}
    shared = next(ids for ids in by_ids if len(ids) == 2)
    row = by_ids[shared]
    first, second = (A, B) if shared == ("a", "b") else (B, A)
    ends = len(first.ids), len(first.ids) + len(second.ids)
    tokens = batch.arrays["tokens"][row].tolist()
    assert tokens == [*first.ids, *second.ids, *[PAD] * (LENGTH - ends[1])]
    assert batch.arrays["segments"][row].tolist() == [1] * ends[0] + [2] * (ends[1] - ends[0]) + [0] * (
        LENGTH - ends[1]
    )
    positions = [*range(len(first.ids)), *range(len(second.ids))]
    assert batch.arrays["positions"][row].tolist()[: ends[1]] == positions
    assert batch.tokens == 5 + 4 + 10


def test_each_response_token_is_learned_at_the_token_before_it_and_nothing_else_is() -> None:
    batch = source(A, B, C).batch(0)
    arrays = batch.arrays
    used = int(arrays["weights"].sum())
    assert used == batch.supervised_tokens == 2 + 3 + 4
    assert arrays["weights"].tolist() == [1.0] * used + [0.0] * (len(arrays["weights"]) - used)
    flat = arrays["tokens"].reshape(-1)
    segments = arrays["segments"].reshape(-1)
    learned = []
    for at, label in zip(arrays["supervised"][:used], arrays["labels"][:used], strict=True):
        assert flat[at + 1] == label
        assert segments[at + 1] == segments[at] > 0
        learned.append(int(label))
    assert sorted(learned) == [4, 5, 7, 8, 9, 16, 17, 18, 19]


def test_the_first_token_of_an_example_without_a_prompt_cannot_be_learned() -> None:
    batch = source(PROMPTLESS).batch(0)
    assert PROMPTLESS.supervised_tokens == batch.supervised_tokens == 2
    assert batch.arrays["labels"][:2].tolist() == [21, 22]


def test_shapes_are_the_same_for_each_step_and_slots_come_by_128() -> None:
    examples = [example(f"e{n}", [1] * (n % 3 + 1), [2] * (n % 8 + 1)) for n in range(60)]
    made = source(*examples, steps=30)
    shapes = {tuple((name, value.shape) for name, value in made.batch(s).arrays.items()) for s in range(30)}
    assert len(shapes) == 1
    assert made.slots == 128
    assert made.batch(0).arrays["tokens"].shape == (4, LENGTH)
    long = [example(f"l{n}", [1], [2] * 11) for n in range(16)]
    assert source(*long, packing=False).slots == 128
    assert source(*long, packing=False, rows=12).slots == 256


def test_the_last_batch_of_an_epoch_is_filled_with_empty_rows() -> None:
    made = source(*[example(f"e{n}", [1], [2] * 9) for n in range(5)], steps=2)
    last = made.batch(1)
    assert len(last.example_ids) == 1
    assert last.arrays["tokens"].shape == (4, LENGTH)
    assert np.all(last.arrays["tokens"][1:] == PAD)
    assert not last.arrays["segments"][1:].any()


# Tokens of prompts and responses that fit into a row together.
sizes_of_examples = st.lists(
    st.integers(0, LENGTH - 2).flatmap(
        lambda prompt: st.tuples(st.just(prompt), st.integers(2, LENGTH - prompt))
    ),
    min_size=1,
    max_size=24,
)


@given(
    sizes_of_examples,
    st.sampled_from([1, 2, 4]),
    st.sampled_from([1, 2]),
    st.booleans(),
    st.integers(0, 5),
)
def test_parts_hold_the_rows_of_the_whole_batch_whatever_step_is_asked_for_first(
    sizes: list[tuple[int, int]], parts: int, row_multiple: int, packing: bool, asked_before: int
) -> None:
    examples = [
        example(f"e{number}", [1 + number] * prompt, [100 + number] * response)
        for number, (prompt, response) in enumerate(sizes)
    ]
    whole = source(*examples, packing=packing, steps=6)
    split = source(*examples, packing=packing, steps=6, microbatches=parts, row_multiple=row_multiple)
    split.batch(asked_before)
    for step in range(6):
        one, other = whole.batch(step), split.batch(step)
        assert one.example_ids == other.example_ids == split.example_ids(step)
        assert (one.tokens, one.supervised_tokens) == (other.tokens, other.supervised_tokens)
        rows = other.arrays["tokens"].reshape(-1, LENGTH)
        count = len(one.example_ids)
        assert rows[:count].tolist() == one.arrays["tokens"][:count].tolist()
        assert np.all(rows[count:] == PAD)
        assert len(rows) % (parts * row_multiple) == 0
        assert learned(one.arrays, 1) == learned(other.arrays, parts)


def learned(arrays: Any, parts: int) -> list[tuple[int, int]]:
    """Each token that is learned, after the token before it."""
    shaped = {name: value if parts > 1 else value[None] for name, value in arrays.items()}
    found = []
    for part in range(parts):
        flat, used = shaped["tokens"][part].reshape(-1), int(shaped["weights"][part].sum())
        for at, label in zip(shaped["supervised"][part][:used], shaped["labels"][part][:used], strict=True):
            assert flat[at + 1] == label
            found.append((int(flat[at]), int(label)))
    return found

"""Batches as arrays."""

from __future__ import annotations

import numpy as np

from tunix_rt_kit.supervision import TokenExample
from tunix_rt_trainer.worker.batches import BatchSource
from tunix_rt_trainer.worker.packing import BatchPlan

LENGTH, PAD = 12, 99


def example(name: str, prompt: list[int], response: list[int]) -> TokenExample:
    return TokenExample(name, (*prompt, *response), len(prompt))


A = example("a", [1, 2, 3], [4, 5])
B = example("b", [6], [7, 8, 9])
C = example("c", [10, 11, 12, 13, 14, 15], [16, 17, 18, 19])
PROMPTLESS = example("p", [], [20, 21, 22])


def source(*examples: TokenExample, packing: bool = True, steps: int = 1, rows: int = 4) -> BatchSource:
    plan = BatchPlan(
        [row.id for row in examples],
        [len(row.ids) for row in examples],
        row_length=LENGTH,
        rows_per_batch=rows,
        packing=packing,
        seed=0,
        dataset_digest="sha256:d",
    )
    return BatchSource(examples, plan, row_length=LENGTH, pad_id=PAD, steps=steps)


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

"""Which prompts are generated together."""

from __future__ import annotations

import random

from tunix_rt_evaluator.worker.batches import CHUNK, Prompt, plan_batches


def prompts(*lengths: int) -> list[Prompt]:
    return [Prompt(f"item-{number}", tuple(range(length))) for number, length in enumerate(lengths)]


def test_prompts_of_like_length_run_together_in_padded_shapes_that_repeat() -> None:
    batches = plan_batches(prompts(70, 5, 40, 6, 33, 128), batch_size=2, max_new_tokens=9)
    assert [[len(prompt.ids) for prompt in batch.prompts] for batch in batches] == [
        [5, 6],
        [33, 40],
        [70, 128],
    ]
    assert [batch.shape.prompt_length for batch in batches] == [32, 64, 128]
    assert {(batch.shape.rows, batch.shape.max_new_tokens) for batch in batches} == {(2, 9)}


def test_the_plan_does_not_depend_on_the_order_of_the_prompts() -> None:
    ordered = prompts(*[7] * 9, *range(20, 60))
    shuffled = random.Random(3).sample(ordered, len(ordered))
    arguments = {"batch_size": 4, "max_new_tokens": 8}
    assert plan_batches(ordered, **arguments) == plan_batches(shuffled, **arguments)


def test_buckets_are_multiples_of_a_chunk_and_little_longer_than_needed() -> None:
    found = set()
    for length in range(1, 3000):
        (batch,) = plan_batches(prompts(length), batch_size=3, max_new_tokens=8)
        bucket = batch.shape.prompt_length
        found.add(bucket)
        assert bucket % CHUNK == 0
        assert length <= bucket <= max(2 * CHUNK, 1.5 * length)
    assert sorted(found)[:9] == [32, 64, 96, 128, 192, 256, 384, 512, 768]

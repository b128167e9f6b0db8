"""Which prompts are generated together."""

from __future__ import annotations

import random

from tunix_rt_evaluator.worker.batches import Prompt, plan_batches


def prompts(*lengths: int) -> list[Prompt]:
    return [Prompt(f"item-{number}", tuple(range(length))) for number, length in enumerate(lengths)]


def test_prompts_of_like_length_run_together_in_padded_shapes_that_repeat() -> None:
    batches = plan_batches(
        prompts(70, 5, 40, 6, 33, 128), batch_size=2, max_new_tokens=9, context_length=4096
    )
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
    arguments = {"batch_size": 4, "max_new_tokens": 8, "context_length": 64}
    assert plan_batches(ordered, **arguments) == plan_batches(shuffled, **arguments)


def test_a_bucket_is_not_longer_than_the_context() -> None:
    (batch,) = plan_batches(prompts(70), batch_size=3, max_new_tokens=8, context_length=100)
    assert batch.shape.prompt_length == 100
    assert batch.shape.rows == 3

"""Tunix's ``PeftTrainer`` as it comes: ``python -m benchmarks.training_tunix TASK``.

Its rows are padded, and its loss is the default one.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
import optax
import qwix
from flax import nnx
from tunix.sft import utils
from tunix.sft.peft_trainer import PeftTrainer, TrainingConfig, TrainingInput

from benchmarks.training_peer import Task, answer, told
from benchmarks.tunix_llama import config_of, load, mesh_of_one


class _Clock:
    """Training hooks that note loss and time of each step."""

    def __init__(self) -> None:
        self.ends: list[float] = []
        self.losses: list[float] = []

    def on_train_start(self, *_: Any) -> None:
        self.ends.append(time.perf_counter())

    def on_train_step_end(self, _trainer: Any, _step: int, loss: Any) -> None:
        self.losses.append(float(loss))
        self.ends.append(time.perf_counter())

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


def train(task: Task) -> tuple[Sequence[float], Sequence[int], Sequence[float]]:
    """Train as a task says; returns the arguments of ``training_peer.answer``."""
    examples = task.examples()
    steps = task.warmup + -(-len(examples) // task.rows_per_batch)
    tokens: list[int] = []
    clock = _Clock()
    with mesh_of_one() as mesh:
        config = TrainingConfig(eval_every_n_steps=1 << 30, max_steps=steps, max_inflight_computations=1)
        trainer = PeftTrainer(
            _model(task, mesh), optax.adamw(task.learning_rate, weight_decay=0.0), config
        ).with_gen_model_input_fn(_model_input)
        trainer.with_training_hooks(clock)
        trainer.train(_batches(task, examples, steps, tokens))
    return clock.ends, tokens, clock.losses


def _model(task: Task, mesh: jax.sharding.Mesh) -> Any:
    model = load(task.base_model, config_of(task.base_model), mesh, task.dtype)
    modules = "|".join(f".*{name}" for name in task.target_modules)
    provider = qwix.LoraProvider(module_path=modules, rank=task.rank, alpha=task.alpha)
    return qwix.apply_lora_to_model(model, provider, rngs=nnx.Rngs(params=0), **model.get_model_input())


def _batches(
    task: Task, examples: Sequence[dict[str, list[int]]], steps: int, tokens: list[int]
) -> Iterator[TrainingInput]:
    order: list[int] = []
    for _ in range(steps):
        shape = (task.rows_per_batch, task.length)
        ids, mask = np.zeros(shape, np.int32), np.zeros(shape, bool)
        order = order or random.Random(0).sample(range(len(examples)), len(examples))
        for row, number in enumerate(order[: task.rows_per_batch]):
            example = examples[number]
            ids[row, : len(example["input_ids"])] = example["input_ids"]
            mask[row, : len(example["input_ids"])] = example["completion_mask"]
        order = order[task.rows_per_batch :]
        tokens.append(int(mask[:, 1:].sum()))
        yield TrainingInput(input_tokens=ids, input_mask=mask)


def _model_input(batch: TrainingInput) -> dict[str, Any]:
    real = batch.input_tokens != 0
    return {
        "input_tokens": batch.input_tokens,
        "input_mask": batch.input_mask,
        "positions": utils.build_positions_from_mask(real),
        "attention_mask": utils.make_causal_attn_mask(real),
    }


if __name__ == "__main__":
    given = told()
    answer(given, *train(given))

"""Tunix's ``Sampler``, the rope base put right: ``python -m benchmarks.generation_sampler TASK``."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from tunix.generate.sampler import CacheConfig, Sampler
from tunix.models.llama3 import model as llama3

from benchmarks.generation_peer import PAD, Task, answer, by_batches, told
from benchmarks.tunix_llama import config_of, load, mesh_of_one


class _Ids:
    """A tokenizer whose text is token ids, as prompts are given so."""

    def __init__(self, stop: int) -> None:
        self._stop = stop

    def encode(self, text: str, **_: Any) -> list[int]:
        return [int(number) for number in text.split()]

    def tokenize(self, text: str, **_: Any) -> Any:
        return np.asarray(self.encode(text))

    def decode(self, ids: Any, **_: Any) -> str:
        return " ".join(str(int(number)) for number in ids)

    def bos_id(self) -> int:
        return PAD

    def eos_id(self) -> int:
        return self._stop

    def pad_id(self) -> int:
        return PAD


def main(task: Task) -> None:
    config = config_of(task.base_model)
    # Tunix takes 1e6 whatever the model says.
    llama3.apply_rope = partial(llama3.apply_rope, rope_theta=config.rope_theta)
    length = -(-task.longest // 32) * 32
    with mesh_of_one() as mesh:
        cache = CacheConfig(
            cache_size=length + task.max_new_tokens,
            num_layers=config.num_layers,
            num_kv_heads=config.num_kv_heads,
            head_dim=config.head_dim,
        )
        sampler = Sampler(load(task.base_model, config, mesh, task.dtype), _Ids(task.stop), cache)

        def batch(prompts: list[list[int]]) -> list[list[int]]:
            # Another number of rows would be compiled for.
            rows = prompts + [prompts[-1]] * (task.rows - len(prompts))
            output = sampler(
                [" ".join(map(str, ids)) for ids in rows],
                max_generation_steps=task.max_new_tokens,
                max_prompt_length=length,
                eos_tokens=[task.stop],
            )
            return [np.asarray(ids).tolist() for ids in output.tokens[: len(prompts)]]

        answer(task, by_batches(task, batch))


if __name__ == "__main__":
    main(told())

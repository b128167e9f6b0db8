"""What a peer's process of the benchmark ``training`` is told, and what it answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

from benchmarks import peers


@dataclass(frozen=True, slots=True)
class Task:
    """LoRA training of a Hugging Face folder on tokenised examples.

    ``tokens`` is a JSON file with a list of ``{"input_ids": [...], "completion_mask": [...]}``, ``warmup``
    how many steps come before those of one epoch that count. ``adapter`` is a folder in PEFT's format to
    begin with, of which B is set to zero; empty for a fresh one. With ``steps`` there are as many, all count,
    and the examples keep their order.
    """

    base_model: str
    tokens: str
    rows_per_batch: int
    length: int
    rank: int
    alpha: float
    target_modules: tuple[str, ...]
    learning_rate: float
    warmup: int
    dtype: str
    packing: bool = False
    adapter: str = ""
    steps: int = 0

    def examples(self) -> list[dict[str, list[int]]]:
        """The tokenised examples."""
        rows: list[dict[str, list[int]]] = json.loads(Path(self.tokens).read_text(encoding="utf-8"))
        return rows


@dataclass(frozen=True, slots=True)
class Answer:
    """Seconds, supervised tokens and loss (nats) of each step that counts; peak RSS in MB (10^6 bytes)."""

    seconds: list[float]
    supervised_tokens: list[int]
    losses: list[float]
    peak_rss_mb: float

    @property
    def supervised_tokens_per_second(self) -> float:
        """Over all steps that count."""
        return sum(self.supervised_tokens) / sum(self.seconds)


def ask(module: str, task: Task, tunables: str) -> Answer:
    """What a peer answers to the task, with ``GLIBC_TUNABLES`` as given; raises as ``peers.ask``."""
    variables = {"GLIBC_TUNABLES": tunables} if tunables else {}
    return Answer(**peers.ask(module, asdict(task), variables))


def told() -> Task:
    """The task, in the peer's process."""
    values = peers.told()
    return Task(**values | {"target_modules": tuple(values["target_modules"])})


def answer(task: Task, ends: Sequence[float], tokens: Sequence[int], losses: Sequence[float]) -> None:
    """Print what was measured: ``ends`` holds the start of the first step and the end of each."""
    first = 0 if task.steps else task.warmup
    seconds = [end - start for start, end in pairwise(ends)]
    count = len(seconds)
    made = Answer(seconds[first:], list(tokens[first:count]), list(losses[first:count]), peers.peak_rss_mb())
    peers.answer(asdict(made))

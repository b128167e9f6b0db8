"""What a side of the benchmark ``generation`` is told, and what it answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Final

from benchmarks import peers

PAD: Final = 0


@dataclass(frozen=True, slots=True)
class Task:
    """Greedy generation by a Hugging Face folder, ``rows`` answers at a time.

    ``prompts`` are token ids, at most ``longest`` each. Answers end after ``max_new_tokens``, and where
    ``stop`` is not negative at that token.
    """

    base_model: str
    prompts: list[list[int]]
    longest: int
    max_new_tokens: int
    rows: int
    dtype: str
    stop: int


@dataclass(frozen=True, slots=True)
class Answer:
    """The tokens of each answer, the one that stopped it included; seconds that they took, and seconds of a
    first batch, which compiles; peak RSS in MB (10^6 bytes)."""

    tokens: list[list[int]]
    seconds: float
    first_batch_seconds: float
    peak_rss_mb: float

    @property
    def tokens_per_second(self) -> float:
        """Of all answers."""
        return sum(map(len, self.tokens)) / self.seconds


def ask(module: str, task: Task, variables: Mapping[str, str]) -> Answer:
    """What a side answers; raises as ``peers.ask``."""
    return Answer(**peers.ask(module, asdict(task), variables))


def told() -> Task:
    """The task, in the side's process."""
    return Task(**peers.told())


def answer(task: Task, generate: Callable[[Sequence[list[int]]], list[list[int]]]) -> None:
    """Measure ``generate``, which completes prompts in order, and answer."""
    started = time.perf_counter()
    generate(task.prompts[: task.rows])
    first = time.perf_counter()
    tokens = generate(task.prompts)
    ended = time.perf_counter()
    peers.answer(asdict(Answer(tokens, ended - first, first - started, peers.peak_rss_mb())))


def by_batches(
    task: Task, batch: Callable[[list[list[int]]], list[list[int]]]
) -> Callable[[Sequence[list[int]]], list[list[int]]]:
    """Completes prompts by ``batch``, each batch of ``rows`` together, until the longest answer has ended."""

    def generate(prompts: Sequence[list[int]]) -> list[list[int]]:
        found: list[list[int]] = []
        for first in range(0, len(prompts), task.rows):
            found += [_ended(ids, task) for ids in batch(list(prompts[first : first + task.rows]))]
        return found

    return generate


def _ended(ids: list[int], task: Task) -> list[int]:
    return ids[: ids.index(task.stop) + 1] if task.stop in ids else ids[: task.max_new_tokens]

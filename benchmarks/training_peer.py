"""What a peer's process of the benchmark ``training`` is told, and what it answers."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.measure import peer_environment


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
    """Run ``python -m MODULE`` on the task, with ``GLIBC_TUNABLES`` as given.

    Raises RuntimeError with the last lines of its output if it fails.
    """
    environment = peer_environment() | ({"GLIBC_TUNABLES": tunables} if tunables else {})
    command = [sys.executable, "-m", module, json.dumps(asdict(task))]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{module} ended with {done.returncode}:\n{done.stderr[-2_000:]}")
    return Answer(**json.loads(done.stdout.splitlines()[-1]))


def told(argv: Sequence[str]) -> Task:
    """The task, in the peer's process."""
    values: dict[str, Any] = json.loads(argv[1])
    return Task(**values | {"target_modules": tuple(values["target_modules"])})


def answer(task: Task, ends: Sequence[float], tokens: Sequence[int], losses: Sequence[float]) -> None:
    """Print what was measured: ``ends`` holds the start of the first step and the end of each."""
    first = 0 if task.steps else task.warmup
    seconds = [end - start for start, end in pairwise(ends)]
    count = len(seconds)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    made = Answer(seconds[first:], list(tokens[first:count]), list(losses[first:count]), round(peak / 1e6, 1))
    print(json.dumps(asdict(made)), flush=True)
    # Threads of the libraries need not be waited for.
    sys.stdout.flush()
    os._exit(0)

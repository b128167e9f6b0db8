"""Sides of a comparison that are processes of their own."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from benchmarks.measure import peer_environment


def ask(module: str, task: Mapping[str, Any], variables: Mapping[str, str]) -> dict[str, Any]:
    """What ``python -m MODULE TASK`` answers, its environment's ``GLIBC_TUNABLES`` only as given.

    Raises RuntimeError with the last lines of its output if it fails.
    """
    command = [sys.executable, "-m", module, json.dumps(task)]
    environment = peer_environment() | dict(variables)
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{module} ended with {done.returncode}:\n{done.stderr[-2_000:]}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def told() -> dict[str, Any]:
    """The task, in the peer's process."""
    task: dict[str, Any] = json.loads(sys.argv[1])
    return task


def answer(values: Mapping[str, Any]) -> None:
    """Answer, in the peer's process, and end it: threads of the libraries need not be waited for."""
    print(json.dumps(values), flush=True)
    sys.stdout.flush()
    os._exit(0)


def peak_rss_mb() -> float:
    """The largest resident set that this process had, in MB (10^6 bytes)."""
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6, 1)

"""What is measured of processes and of times."""

from __future__ import annotations

import math
import os
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import psutil

_SAMPLE_S: Final = 0.05


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest of ``values`` that at least ``percent`` of them do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def cpu_seconds(process: psutil.Process) -> float:
    """User and system time of a process, without its children."""
    times = process.cpu_times()
    return float(times.user + times.system)


def family_cpu_seconds(process: psutil.Process) -> float:
    """User and system time of a process, of its present children, and of those that have ended."""
    times = process.cpu_times()
    total = cpu_seconds(process) + getattr(times, "children_user", 0) + getattr(times, "children_system", 0)
    for child in process.children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            total += cpu_seconds(child)
    return float(total)


class CpuMeter:
    """CPU time of this process as the client, of a server, and of a database that is a process of its own."""

    def __init__(self, server: psutil.Process, database: psutil.Process | None) -> None:
        self._server = server
        self._database = database
        self._before = self._now()

    def seconds(self) -> float:
        """Seconds of all together since the meter was made."""
        return sum(self._now().values()) - sum(self._before.values())

    def milliseconds(self, per: int) -> dict[str, float]:
        """Milliseconds of each since the meter was made, divided by ``per``."""
        return {
            name: round((seconds - self._before[name]) * 1000 / per, 4)
            for name, seconds in self._now().items()
        }

    def _now(self) -> dict[str, float]:
        seconds = {"client": cpu_seconds(psutil.Process()), "server": cpu_seconds(self._server)}
        if self._database is not None:
            seconds["database"] = family_cpu_seconds(self._database)
        return seconds


def peer_environment() -> dict[str, str]:
    """The environment of a peer's process: this one's, with our sources, and no hub to ask."""
    root = str(Path(__file__).resolve().parents[1])
    variables = {key: value for key, value in os.environ.items() if key != "GLIBC_TUNABLES"}
    path = os.pathsep.join([root, *filter(None, sys.path)])
    return {**variables, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}


@contextmanager
def peak_rss(processes: Mapping[str, psutil.Process]) -> Iterator[dict[str, float]]:
    """The largest resident set of each process in MB (10^6 bytes), sampled until the block ends."""
    peaks = dict.fromkeys(processes, 0.0)
    done = threading.Event()

    def sample() -> None:
        while True:
            for name, process in processes.items():
                with suppress(psutil.NoSuchProcess):
                    peaks[name] = max(peaks[name], round(process.memory_info().rss / 1e6, 1))
            if done.wait(_SAMPLE_S):
                return

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield peaks
    finally:
        done.set()
        thread.join()

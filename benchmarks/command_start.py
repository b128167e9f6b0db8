"""What a command costs before it answers: the root, and commands that read a data folder without a server.

Beside them the libraries that such a command cannot do without, imported and nothing else. CPU time is that
of the whole process, user and system, which other programs on the machine disturb less than wall time.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final

import tunix_rt_local
from benchmarks import data
from benchmarks.measure import peer_environment
from benchmarks.options import Options
from tunix_rt import Client
from tunix_rt.importing import import_traces

COUNT: Final = 10_000
_COMMANDS: Final = {
    "version": ("--version",),
    "traces_list": ("traces", "list", "--json"),
    "train_list": ("train", "list", "--json"),
    "evaluation_list": ("evaluation", "list", "--json"),
    "dataset_list": ("dataset", "list", "--json"),
}
_LIBRARIES: Final = "import grpc.aio, pydantic_settings, rich.table, sqlalchemy.orm, typer"


def run(options: Options) -> dict[str, Any]:
    """CPU and wall seconds of each command, the median of its runs, and its CPU time over the libraries'."""
    count = options.count or COUNT
    with tempfile.TemporaryDirectory() as folder:
        with tunix_rt_local.embedded(Path(folder)) as server, Client(server.address) as client:
            import_traces(client, data.traces(options, count))
        environment = peer_environment() | {"TUNIX_RT_DATA_DIR": folder}
        for name in ("TUNIX_RT_SERVER", "PYTHONDONTWRITEBYTECODE"):
            environment.pop(name, None)
        commands = {"libraries": [sys.executable, "-c", _LIBRARIES]} | {
            name: [sys.executable, "-m", "tunix_rt.cli", *words] for name, words in _COMMANDS.items()
        }
        runs: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        # The first writes what Python compiles.
        for number in range(options.repeats + 1):
            for name, command in commands.items():
                seconds = _seconds(command, environment)
                if number:
                    runs[name].append(seconds)
    figures = {
        name: {"cpu_s": round(median(cpu), 3), "wall_s": round(median(wall), 3)}
        for name, pairs in runs.items()
        for cpu, wall in [tuple(zip(*pairs, strict=True))]
    }
    ratio = figures["traces_list"]["cpu_s"] / figures["libraries"]["cpu_s"]
    return {"count": count, "repeats": options.repeats, **figures, "ratio_to_libraries": round(ratio, 2)}


def _seconds(command: Sequence[str], environment: dict[str, str]) -> tuple[float, float]:
    """CPU and wall seconds of a process."""
    begun = time.perf_counter()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    return used.ru_utime + used.ru_stime, time.perf_counter() - begun

"""Our programs as processes of their own, each forked from one that has imported what servers import.

They start in a tenth of the time that ``python -m`` takes, most of which is a server's imports.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    [f"tunix_rt_{service}.wiring" for service in ("trace_store", "exporter", "trainer", "evaluator")]
)


class Program:
    """``python -m module arguments``, with as much of ``subprocess.Popen`` as tests use.

    Args:
        module: what runs.
        arguments: its command line.
        log: the file that takes what it writes to standard output and error, behind what is there.
        environment: its environment; this process's if None.
    """

    def __init__(
        self, module: str, arguments: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        given = dict(os.environ if environment is None else environment)
        self.args = [sys.executable, "-m", module, *arguments]
        self._process = _context.Process(
            target=_run, args=(module, list(arguments), str(log), given), daemon=True
        )
        self._process.start()
        self.pid = self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.wait()

    @property
    def returncode(self) -> int | None:
        return self.poll()

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        code = self._process.exitcode
        if code is None:
            assert timeout is not None
            raise subprocess.TimeoutExpired(self.args, timeout)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            assert self.pid is not None
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _run(module: str, arguments: Sequence[str], log: str, environment: Mapping[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)

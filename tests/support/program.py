"""Our programs and workers as processes, each forked from one that has imported what they import.

They start in a tenth of the time that ``python -m`` takes, most of which is imports: three seconds of
processor time for a trainer's worker.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, Self
from unittest.mock import patch

import psutil

from tunix_rt_kit.jobs import files
from tunix_rt_kit.jobs.process import WorkerProcess

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    [
        # First, as in our programs: it says how much gRPC logs, which gRPC reads when it is imported.
        "tunix_rt_kit.serving",
        *(f"tunix_rt_{service}.wiring" for service in ("trace_store", "exporter", "trainer", "evaluator")),
        "tunix_rt_trainer.worker.train",
        "tunix_rt_evaluator.worker.local",
    ]
)
_server: Any = forkserver._forkserver  # type: ignore[attr-defined]
_starting = threading.Lock()

_environment: Final[dict[str, str]] = {}
"""The environment of the process that they are forked from."""
_TOLD_S: Final = 2.0
QUICK: Final = "JAX_DISABLE_MOST_OPTIMIZATIONS"
"""Has JAX compile quickly. JAX is told of it again where it was imported in another environment."""
_READ_AT_IMPORT: Final = ("JAX_", "PYTHON", "LD_", "OMP_", "OPENBLAS_", "MALLOC_", "TF_")
"""How names begin that Python and its packages read when they are imported."""


class Program:
    """``python -m module arguments``, with as much of ``subprocess.Popen`` as tests and services use.

    Args:
        module: what runs.
        arguments: its command line.
        log: the file that takes what it writes to standard output and error, behind what is there.
        environment: its environment; this process's if None.
        reads: it has a standard input, which is ``stdin``.
        session: it leads a session of its own, and goes on when this process has ended.
    """

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        log: Path,
        environment: Mapping[str, str] | None = None,
        *,
        reads: bool = False,
        session: bool = False,
    ) -> None:
        self.args = [sys.executable, "-m", module, *arguments]
        self.stdin: BinaryIO | None = None
        self._polling = threading.Lock()
        given = dict(os.environ if environment is None else environment)
        reader, writer = _context.Pipe(duplex=False) if reads else (None, None)
        with _starting:
            origin = (fork_server(_environment), dict(_environment))
            what = (module, list(arguments), str(log.absolute()), given)
            self._process = _context.Process(target=_run, args=(*origin, *what, reader, session), daemon=True)
            self._process.start()
            if session:
                multiprocessing.process._children.discard(self._process)  # type: ignore[attr-defined]
        if reader is not None and writer is not None:
            reader.close()
            self.stdin = os.fdopen(os.dup(writer.fileno()), "wb")
            writer.close()
        assert self._process.pid is not None
        self.pid: int = self._process.pid
        while session and self.poll() is None and os.getsid(self.pid) != self.pid:
            time.sleep(0.001)

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
        with self._polling:
            if self._process.exitcode is None and not _alive(self.pid):
                # The process that it was forked from tells of its end a moment later.
                wait([self._process.sentinel], _TOLD_S)
            return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        wait([self._process.sentinel], timeout)
        code = self.poll()
        if code is None:
            assert timeout is not None
            raise subprocess.TimeoutExpired(self.args, timeout)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _alive(pid: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        return files.alive(psutil.Process(pid))
    return False


def forked_workers(environment: Mapping[str, str]) -> AbstractContextManager[object]:
    """Within this context the workers that this process starts are forked as well, but for those that differ
    in what Python and its packages read when they are imported.

    Args:
        environment: that of the process that they are forked from.
    """
    _environment.clear()
    _environment.update(environment)
    return patch.object(WorkerProcess, "_started", _started)


def fork_server(environment: Mapping[str, str]) -> str:
    """Start the process that they are forked from, unless it is there, and return its address.

    Args:
        environment: its environment.
    """
    if _server._forkserver_address is None:
        with patch.dict(os.environ, environment, clear=True):
            _server.ensure_running()
    address: str = _server._forkserver_address
    return address


def share_fork_server(address: str) -> None:
    """Have them forked from the process at ``address``, which another process started and which ends with
    that one."""
    _server._forkserver_address, _server.ensure_running = address, lambda: None
    # What is forked is handed it, as the end of a pipe that keeps the server of its parent alive.
    _server._forkserver_alive_fd = os.open(os.devnull, os.O_WRONLY)


started_anew = WorkerProcess._started
"""How a service starts a worker: ``python -m``."""


def _started(worker: WorkerProcess) -> Any:
    given = {**files.passed_on(), **worker._env}
    read = _read_at_import(_environment)
    if _read_at_import(os.environ) != read or not _read_at_import(given).items() <= read.items():
        return started_anew(worker)
    log = worker.path / files.LOG
    return Program(worker.module, [str(worker.path.absolute())], log, given, reads=worker._warm, session=True)


def _read_at_import(environment: Mapping[str, str]) -> dict[str, str]:
    found = {name: value for name, value in environment.items() if name.startswith(_READ_AT_IMPORT)}
    # A child has the module path of its parent.
    for name in ("PYTHONPATH", QUICK):
        found.pop(name, None)
    return found


def _run(
    server: str,
    origin: Mapping[str, str],
    module: str,
    arguments: Sequence[str],
    log: str,
    environment: Mapping[str, str],
    reader: Connection | None,
    session: bool,
) -> None:
    if session:
        os.setsid()
    os.environ.clear()
    os.environ.update(environment)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    os.close(descriptor)
    if reader is not None:
        os.dup2(reader.fileno(), 0)
        reader.close()
        sys.stdin = os.fdopen(0, closefd=False)
    # What it starts comes of the same process.
    _server._forkserver_address, _server.ensure_running = server, lambda: None
    multiprocessing.current_process()._config["daemon"] = False  # type: ignore[attr-defined]
    if "jax" in sys.modules:
        sys.modules["jax"].config.update("jax_disable_most_optimizations", QUICK in environment)
    sys.argv = [module, *arguments]
    with forked_workers(origin):
        runpy.run_module(module, run_name="__main__", alter_sys=True)

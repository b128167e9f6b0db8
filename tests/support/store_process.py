"""A trace store as a process of its own, which a test can kill and start again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from support.threaded import free_address

_START_S = 60


def environment() -> dict[str, str]:
    """The environment of a child that imports what this process does."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


class StoreProcess:
    """``python -m tunix_rt_trace_store`` on one address and one database; migrated and started by ``with``.

    ``wrapper`` is a command that runs the server, its further arguments: ``prlimit`` and the like.
    """

    def __init__(self, database_url: str, folder: Path, wrapper: Sequence[str] = ()) -> None:
        self.address = free_address()
        self._database_url = database_url
        self._log = folder / "trace-store.log"
        self._wrapper = list(wrapper)
        self._options = ["--database-url", database_url, "--data-dir", str(folder / "data")]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        # SQLite is migrated by the server.
        if self._database_url.startswith("postgresql"):
            migrate = self._command("migrate")
            migrated = subprocess.run(migrate, env=environment(), capture_output=True, text=True)
            assert migrated.returncode == 0, migrated.stderr
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end(signal.SIGTERM)

    @property
    def log(self) -> str:
        """What the servers of this address wrote."""
        return self._log.read_text(encoding="utf-8")

    def start(self) -> None:
        """Start the server and wait until it listens."""
        command = [*self._wrapper, *self._command("serve", "--listen", self.address)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, env=environment(), stderr=log)
        host, _, port = self.address.rpartition(":")
        end = time.monotonic() + _START_S
        while True:
            assert self._process.poll() is None, self.log
            try:
                socket.create_connection((host, int(port)), timeout=1).close()
                return
            except OSError:
                assert time.monotonic() < end, "the server does not listen"
                time.sleep(0.02)

    def kill(self) -> None:
        """End the server as ``kill -9`` does."""
        assert self._process is not None
        assert self._process.poll() is None, self.log
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(30)

    def _command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "tunix_rt_trace_store", *arguments, *self._options]

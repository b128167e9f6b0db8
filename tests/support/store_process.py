"""A trace store as a process of its own, which a test can kill and start again."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from support.program import Program
from support.server_process import ServerProcess, environment
from support.threaded import free_address


class StoreProcess(ServerProcess):
    """``python -m tunix_rt_trace_store`` on one address and one database; migrated and started by ``with``.

    ``wrapper`` is a command that runs the server, its further arguments: ``prlimit`` and the like.
    """

    def __init__(self, database_url: str, folder: Path, wrapper: Sequence[str] = ()) -> None:
        self._database_url = database_url
        self._program = [sys.executable, "-m", "tunix_rt_trace_store"]
        self._options = ["--database-url", database_url, "--data-dir", str(folder / "data")]
        address = free_address()
        command = [*wrapper, *self._program, "serve", "--listen", address, *self._options]
        super().__init__(command, address, folder / "trace-store.log")

    def __enter__(self) -> Self:
        # SQLite is migrated by the server.
        if self._database_url.startswith("postgresql"):
            migrating = Program(self._program[2], ["migrate", *self._options], self._log, environment())
            assert migrating.wait(60) == 0, self.log
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._process is not None:
            self.end(signal.SIGTERM)

    def kill(self) -> None:
        """End the server, which must be running, as ``kill -9`` does."""
        assert self._process is not None
        assert self._process.poll() is None, self.log
        super().kill()

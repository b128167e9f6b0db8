"""A server as a process of its own, which a test can kill and start again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from support.program import Program
from support.timing import eventually


def environment() -> dict[str, str]:
    """The environment of a child that imports what this process does."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


class ServerProcess:
    """The server that ``command`` starts, which listens at ``address``.

    Args:
        command: the command line.
        address: host and port.
        log: the file that takes what all servers of this address write to standard error.
    """

    def __init__(self, command: Sequence[str], address: str, log: Path) -> None:
        self.address = address
        self._command = list(command)
        self._log = log
        self._process: subprocess.Popen[bytes] | Program | None = None

    @property
    def log(self) -> str:
        """What the servers of this address wrote."""
        return self._log.read_text(encoding="utf-8")

    def start(self, *, wait: bool = True) -> None:
        """Start the server and, unless told otherwise, wait until it listens."""
        self._process = process = self._started()
        host, _, port = self.address.rpartition(":")

        def listens() -> bool:
            assert process.poll() is None, self.log
            with suppress(OSError):
                socket.create_connection((host, int(port)), timeout=1).close()
                return True
            return False

        if wait:
            eventually(listens, "the server does not listen")

    def _started(self) -> subprocess.Popen[bytes] | Program:
        if self._command[:2] == [sys.executable, "-m"]:
            return Program(self._command[2], self._command[3:], self._log, environment())
        with self._log.open("ab") as log:
            return subprocess.Popen(self._command, env=environment(), stderr=log)

    def kill(self) -> None:
        """End the server as ``kill -9`` does."""
        self.end(signal.SIGKILL)

    def end(self, number: signal.Signals) -> int:
        """Send the server a signal, and return its exit code."""
        assert self._process is not None
        self._process.send_signal(number)
        return self._process.wait(60)

"""A child process that answers one line for each line it is given, and is ended when it takes too long."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Final

from tunix_rt_kit.callers import CallerLeft, check, holding
from tunix_rt_kit.jobs.files import passed_on

_START_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 1.0
_LOOK_SECONDS: Final = 0.25


class ChildGone(Exception):
    """The child ended instead of answering, most likely for want of memory.

    ``out_of_time`` where the system ended it, as its limit of CPU time was reached.
    """

    def __init__(self, *, out_of_time: bool = False) -> None:
        super().__init__()
        self.out_of_time = out_of_time


class ChildTooSlow(Exception):
    """The child had not answered in time and was killed."""


class ChildNotStarted(Exception):
    """The child did not say that it is ready."""


class LineChild:
    """Runs ``script`` with this Python at the first exchange, and again after it had to be killed. Safe for
    threads.

    The script says one line when it is ready, and then answers each line of its standard input with one. A
    process that was forked has a child of its own. Of this process's environment the script gets only what
    a Python needs, and it iterates sets in one order.

    Args:
        script: a file; its own folder is not put onto the module path.
    """

    def __init__(self, script: Path) -> None:
        self._script = script
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self._unread = b""

    @property
    def pid(self) -> int | None:
        """The process id of the child, None before the first exchange."""
        return None if self._child is None else self._child.pid

    def exchange(self, request: bytes, seconds: float) -> bytes:
        """The answer to one line (given and returned without its end), within ``seconds`` of wall time.

        Raises ChildGone, ChildTooSlow, ChildNotStarted; the next exchange starts another child. So it does
        after a caller who left while the child was busy.
        """
        with holding(self._lock):
            child = self._running()
            assert child.stdin is not None
            try:
                child.stdin.write(request + b"\n")
                child.stdin.flush()
                return self._read_line(child, seconds)
            except (BrokenPipeError, EOFError):
                self.close()
                raise ChildGone(out_of_time=child.returncode == -signal.SIGXCPU) from None
            except TimeoutError:
                child.kill()
                self.close()
                raise ChildTooSlow from None
            except CallerLeft:
                child.kill()
                self.close()
                raise

    def close(self) -> None:
        """End the child, if there is one; the next exchange starts another."""
        child, self._child, self._unread = self._child, None, b""
        if child is None or self._owner != os.getpid():
            return
        assert child.stdin is not None
        assert child.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            child.stdin.close()
        try:
            child.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        child.stdout.close()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._child is not None and self._owner == os.getpid() and self._child.poll() is None:
            return self._child
        self.close()
        child = subprocess.Popen(
            [sys.executable, "-P", str(self._script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # A fixed hash seed keeps sets in one order.
            env={**passed_on(), "PYTHONHASHSEED": "0"},
        )
        self._child, self._owner = child, os.getpid()
        try:
            self._read_line(child, _START_SECONDS)
        except (EOFError, TimeoutError):
            self.close()
            raise ChildNotStarted from None
        except CallerLeft:
            self.close()
            raise
        return child

    def _read_line(self, child: subprocess.Popen[bytes], seconds: float) -> bytes:
        assert child.stdout is not None
        deadline = time.monotonic() + seconds
        parts, data = [], self._unread
        while b"\n" not in data:
            parts.append(data)
            left = max(0.0, deadline - time.monotonic())
            ready, _, _ = select.select([child.stdout], [], [], min(left, _LOOK_SECONDS))
            if not ready:
                check()
                if left <= _LOOK_SECONDS:
                    raise TimeoutError
                data = b""
                continue
            data = os.read(child.stdout.fileno(), 1 << 20)
            if not data:
                raise EOFError
        end, _, self._unread = data.partition(b"\n")
        return b"".join([*parts, end])

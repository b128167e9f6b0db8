"""Runs a model's own Jinja chat template where it can do no harm: in a child with bounded time and memory."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tunix_rt_kit.errors import InvalidArgument, Unavailable

MAX_SOURCE_BYTES: Final = 64 * 1024
MAX_RENDERED_CHARS: Final = 8 * 1024 * 1024
CPU_SECONDS: Final = 2.0
"""CPU time that one rendering may take."""
_WALL_SECONDS: Final = 30.0
"""Backstop for code that no signal interrupts, such as one huge power; then the child is killed."""
_START_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 1.0
_WORKER: Final = Path(__file__).with_name("jinja_worker.py")


class JinjaSandbox:
    """One child process, started at the first rendering and again after it had to be killed. Safe for
    threads."""

    def __init__(self, *, cpu_seconds: float = CPU_SECONDS, wall_seconds: float = _WALL_SECONDS) -> None:
        self._cpu_seconds = cpu_seconds
        self._wall_seconds = wall_seconds
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self._unread = b""

    def render(self, source: str, renderings: Sequence[Mapping[str, Any]]) -> list[str]:
        """The text of each of ``renderings`` (template variables as JSON values), in order.

        Raises InvalidArgument: CHAT_TEMPLATE_INVALID when the template fails, loops, grows or reaches for
        what it must not, CHAT_MESSAGES_INVALID when it refuses the conversation by its own
        ``raise_exception``.
        """
        if len(source.encode("utf-8", "surrogatepass")) > MAX_SOURCE_BYTES:
            raise _invalid(f"is longer than {MAX_SOURCE_BYTES} bytes")
        request = {
            "source": source,
            "renderings": list(renderings),
            "cpu_seconds": self._cpu_seconds,
            "max_chars": MAX_RENDERED_CHARS,
        }
        wall_seconds = self._wall_seconds + self._cpu_seconds * len(renderings)
        with self._lock:
            reply = self._exchange(json.dumps(request).encode() + b"\n", wall_seconds)
        if "texts" in reply:
            texts: list[str] = reply["texts"]
            return texts
        if reply["kind"] == "messages":
            raise InvalidArgument(f"messages: {reply['error']}", reason="CHAT_MESSAGES_INVALID")
        raise _invalid(reply["error"])

    def close(self) -> None:
        """End the child, if there is one; the next rendering starts another."""
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

    def _exchange(self, request: bytes, wall_seconds: float) -> dict[str, Any]:
        child = self._running()
        assert child.stdin is not None
        try:
            child.stdin.write(request)
            child.stdin.flush()
            line = self._read_line(child, wall_seconds)
        except (BrokenPipeError, EOFError):
            self.close()
            raise _invalid("makes its process end, most likely for want of memory") from None
        except TimeoutError:
            self.close()
            raise _invalid(f"is not done after {wall_seconds:g} s") from None
        reply: dict[str, Any] = json.loads(line)
        return reply

    def _running(self) -> subprocess.Popen[bytes]:
        if self._child is not None and self._owner == os.getpid() and self._child.poll() is None:
            return self._child
        self.close()
        # -P keeps the worker's own folder off the module path; the fixed hash seed keeps sets in one order.
        child = subprocess.Popen(
            [sys.executable, "-P", str(_WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONHASHSEED": "0"},
        )
        self._child, self._owner = child, os.getpid()
        try:
            self._read_line(child, _START_SECONDS)
        except (EOFError, TimeoutError):
            self.close()
            raise Unavailable(
                "the process that renders chat templates did not start", reason="CHAT_SANDBOX_UNAVAILABLE"
            ) from None
        return child

    def _read_line(self, child: subprocess.Popen[bytes], seconds: float) -> bytes:
        assert child.stdout is not None
        deadline = time.monotonic() + seconds
        while b"\n" not in self._unread:
            ready, _, _ = select.select([child.stdout], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise TimeoutError
            data = os.read(child.stdout.fileno(), 1 << 20)
            if not data:
                raise EOFError
            self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        return line


def _invalid(problem: str) -> InvalidArgument:
    return InvalidArgument(f"chat_template.jinja {problem}", reason="CHAT_TEMPLATE_INVALID")


SANDBOX: Final = JinjaSandbox()
"""The process-wide sandbox that `ChatTemplate` uses."""
atexit.register(SANDBOX.close)

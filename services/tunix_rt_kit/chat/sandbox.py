"""Runs a model's own Jinja chat template in a child process with bounded time and memory."""

from __future__ import annotations

import atexit
import contextlib
import json
import queue
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tunix_rt_kit.callers import check
from tunix_rt_kit.errors import InvalidArgument, Unavailable
from tunix_rt_kit.jobs.line_child import ChildGone, ChildNotStarted, ChildTooSlow, LineChild

MAX_SOURCE_BYTES: Final = 64 * 1024
MAX_RENDERED_CHARS: Final = 8 * 1024 * 1024
CPU_SECONDS: Final = 2.0
"""CPU time of the renderings of one request; the child is killed about a second later."""
CHILDREN: Final = 3
_WALL_SECONDS: Final = 30.0
"""Ends a child that gets no CPU time."""
_WAIT_SECONDS: Final = 30.0
_LOOK_SECONDS: Final = 0.25
# Renderings of one request: they take a small part of the time above, so that nobody waits long for a child.
_TOGETHER: Final = 64
_TOGETHER_BYTES: Final = 1 << 20
_WORKER: Final = Path(__file__).with_name("jinja_worker.py")


class JinjaSandbox:
    """A few child processes that render templates. Safe for threads.

    Each is started when those before it are busy, and again after it had to be killed.
    """

    def __init__(self, *, cpu_seconds: float = CPU_SECONDS, wall_seconds: float = _WALL_SECONDS) -> None:
        self._cpu_seconds = cpu_seconds
        self._wall_seconds = wall_seconds
        self._children = [LineChild(_WORKER) for _ in range(CHILDREN)]
        self._last = self._children[0]
        # Last in, first out: callers that come one at a time need one child.
        self._free: queue.LifoQueue[LineChild] = queue.LifoQueue()
        for child in reversed(self._children):
            self._free.put(child)

    @property
    def pid(self) -> int | None:
        """The process id of the child that rendered last, None before the first rendering."""
        return self._last.pid

    def render(self, source: str, renderings: Sequence[Mapping[str, Any]]) -> list[str]:
        """The text of each of ``renderings`` (template variables as JSON values), in order.

        Raises InvalidArgument: CHAT_TEMPLATE_INVALID when the template fails, loops, grows or reaches for
        what it must not, CHAT_MESSAGES_INVALID when it refuses the conversation by its own
        ``raise_exception``. Raises Unavailable: CHAT_SANDBOX_BUSY when other templates take all the time.
        """
        if len(source.encode("utf-8", "surrogatepass")) > MAX_SOURCE_BYTES:
            raise _invalid(f"is longer than {MAX_SOURCE_BYTES} bytes")
        texts: list[str] = []
        for together in _parts([json.dumps(rendering) for rendering in renderings]):
            request = (
                f'{{"source": {json.dumps(source)}, "renderings": [{", ".join(together)}], '
                f'"cpu_seconds": {self._cpu_seconds}, "max_chars": {MAX_RENDERED_CHARS}}}'
            )
            reply = self._exchange(request.encode())
            if "texts" not in reply:
                if reply["kind"] == "messages":
                    raise InvalidArgument(f"messages: {reply['error']}", reason="CHAT_MESSAGES_INVALID")
                raise _invalid(reply["error"])
            texts += reply["texts"]
        return texts

    def close(self) -> None:
        """End the children; the next rendering starts another."""
        for child in self._children:
            child.close()

    def _exchange(self, request: bytes) -> dict[str, Any]:
        child = self._last = self._taken()
        wall_seconds = self._wall_seconds + self._cpu_seconds
        try:
            reply: dict[str, Any] = json.loads(child.exchange(request, wall_seconds))
        except ChildGone as gone:
            if gone.out_of_time:
                raise _invalid(f"is not done after {self._cpu_seconds:g} s of CPU time") from None
            raise _invalid("makes its process end, most likely for want of memory") from None
        except ChildTooSlow:
            raise _invalid(f"is not done after {wall_seconds:g} s") from None
        except ChildNotStarted:
            raise Unavailable(
                "the process that renders chat templates did not start", reason="CHAT_SANDBOX_UNAVAILABLE"
            ) from None
        finally:
            self._free.put(child)
        return reply

    def _taken(self) -> LineChild:
        """A child that is not busy; raises CallerLeft when the caller leaves."""
        deadline = time.monotonic() + _WAIT_SECONDS
        while time.monotonic() < deadline:
            check()
            with contextlib.suppress(queue.Empty):
                return self._free.get(timeout=_LOOK_SECONDS)
        raise Unavailable(
            "other chat templates take all the time there is for them; try again", reason="CHAT_SANDBOX_BUSY"
        )


def _parts(encoded: Sequence[str]) -> Iterator[Sequence[str]]:
    """The renderings of each request."""
    part: list[str] = []
    size = 0
    for one in encoded:
        if part and (len(part) == _TOGETHER or size + len(one) > _TOGETHER_BYTES):
            yield part
            part, size = [], 0
        part.append(one)
        size += len(one)
    if part:
        yield part


def _invalid(problem: str) -> InvalidArgument:
    return InvalidArgument(f"chat_template.jinja {problem}", reason="CHAT_TEMPLATE_INVALID")


SANDBOX: Final = JinjaSandbox()
"""The process-wide sandbox that `ChatTemplate` uses."""
atexit.register(SANDBOX.close)

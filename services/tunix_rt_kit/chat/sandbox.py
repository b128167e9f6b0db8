"""Runs a model's own Jinja chat template where it can do no harm: in a child with bounded time and memory."""

from __future__ import annotations

import atexit
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tunix_rt_kit.errors import InvalidArgument, Unavailable
from tunix_rt_kit.jobs.line_child import ChildGone, ChildNotStarted, ChildTooSlow, LineChild

MAX_SOURCE_BYTES: Final = 64 * 1024
MAX_RENDERED_CHARS: Final = 8 * 1024 * 1024
CPU_SECONDS: Final = 2.0
"""CPU time that one rendering may take."""
_WALL_SECONDS: Final = 30.0
"""Backstop for code that no signal interrupts, such as one huge power; then the child is killed."""
_WORKER: Final = Path(__file__).with_name("jinja_worker.py")


class JinjaSandbox:
    """One child process, started at the first rendering and again after it had to be killed. Safe for
    threads."""

    def __init__(self, *, cpu_seconds: float = CPU_SECONDS, wall_seconds: float = _WALL_SECONDS) -> None:
        self._cpu_seconds = cpu_seconds
        self._wall_seconds = wall_seconds
        self._child = LineChild(_WORKER)

    @property
    def pid(self) -> int | None:
        """The process id of the child, None before the first rendering."""
        return self._child.pid

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
        reply = self._exchange(json.dumps(request).encode(), wall_seconds)
        if "texts" in reply:
            texts: list[str] = reply["texts"]
            return texts
        if reply["kind"] == "messages":
            raise InvalidArgument(f"messages: {reply['error']}", reason="CHAT_MESSAGES_INVALID")
        raise _invalid(reply["error"])

    def close(self) -> None:
        """End the child, if there is one; the next rendering starts another."""
        self._child.close()

    def _exchange(self, request: bytes, wall_seconds: float) -> dict[str, Any]:
        try:
            reply: dict[str, Any] = json.loads(self._child.exchange(request, wall_seconds))
        except ChildGone:
            raise _invalid("makes its process end, most likely for want of memory") from None
        except ChildTooSlow:
            raise _invalid(f"is not done after {wall_seconds:g} s") from None
        except ChildNotStarted:
            raise Unavailable(
                "the process that renders chat templates did not start", reason="CHAT_SANDBOX_UNAVAILABLE"
            ) from None
        return reply


def _invalid(problem: str) -> InvalidArgument:
    return InvalidArgument(f"chat_template.jinja {problem}", reason="CHAT_TEMPLATE_INVALID")


SANDBOX: Final = JinjaSandbox()
"""The process-wide sandbox that `ChatTemplate` uses."""
atexit.register(SANDBOX.close)

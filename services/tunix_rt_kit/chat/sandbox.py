"""Runs a model's own Jinja chat template in a child process with bounded time and memory."""

from __future__ import annotations

import atexit
import contextlib
import json
import queue
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
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
# How many messages, and bytes of them, are rendered for one request of conversations.
_MESSAGES_AT_ONCE: Final = 4_000
_BYTES_AT_ONCE: Final = 2 << 20
_SLOW_ONES: Final = 3
_WORKER: Final = Path(__file__).with_name("jinja_worker.py")


@dataclass(frozen=True, slots=True)
class Beginnings:
    """The first messages of a conversation, several times.

    Args:
        variables: of the template, ``messages`` among them, as JSON values.
        wanted: of each rendering how many messages, and whether with the generation prompt.
    """

    variables: Mapping[str, Any]
    wanted: Sequence[tuple[int, bool]]


@dataclass(frozen=True, slots=True)
class Rendered:
    """A rendering, and where in it the ``{% generation %}`` blocks stand: first character, and that behind.

    Its text is the first ``length`` characters of ``source``, which many renderings share.
    """

    source: str
    length: int
    blocks: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of(cls, whole: str, text: str, blocks: tuple[tuple[int, int], ...] = ()) -> Rendered:
        """The rendering ``text``, kept as a beginning of ``whole`` if it is one."""
        return cls(whole if whole.startswith(text) else text, len(text), blocks)

    @property
    def text(self) -> str:
        return self.source[: self.length]


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
        texts: list[str] = []
        for together in _parts([json.dumps(rendering) for rendering in renderings]):
            texts += self._ask(source, "renderings", together)["texts"]
        return texts

    def render_beginnings(
        self, source: str, conversations: Sequence[Beginnings]
    ) -> list[list[Rendered] | InvalidArgument]:
        """Of each conversation the renderings that it wants, in order, or why the template cannot write it.

        One that takes too much time is such a conversation, too, unless there are several. Raises as
        `render`.
        """
        found: list[list[Rendered] | InvalidArgument] = [[] for _ in conversations]
        left = _SLOW_ONES
        for request in _pieces(conversations):
            waiting = [request]
            while waiting:
                together = waiting.pop()
                try:
                    replies = self._ask(source, "conversations", [text for _, text in together])
                except InvalidArgument as error:
                    left -= len(together) == 1
                    if left < 0:
                        raise
                    if len(together) == 1:
                        found[together[0][0]] = error
                    else:
                        waiting += [[alone] for alone in together]
                    continue
                for (index, _), reply in zip(together, replies["conversations"], strict=True):
                    found[index] = _joined(found[index], reply)
        return found

    def _ask(self, source: str, kind: str, encoded: Sequence[str]) -> dict[str, Any]:
        if len(source.encode("utf-8", "surrogatepass")) > MAX_SOURCE_BYTES:
            raise _invalid(f"is longer than {MAX_SOURCE_BYTES} bytes")
        request = (
            f'{{"source": {json.dumps(source)}, "{kind}": [{", ".join(encoded)}], '
            f'"cpu_seconds": {self._cpu_seconds}, "max_chars": {MAX_RENDERED_CHARS}}}'
        )
        reply = self._exchange(request.encode())
        if "error" in reply:
            raise _problem(reply)
        return reply

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


def _pieces(conversations: Sequence[Beginnings]) -> Iterator[list[tuple[int, str]]]:
    """The conversations of each request, encoded, by their numbers; a long one is in several."""
    request: list[tuple[int, str]] = []
    messages = size = 0
    for index, conversation in enumerate(conversations):
        variables = json.dumps(conversation.variables)
        count = len(conversation.variables["messages"])
        step = max(1, min(_MESSAGES_AT_ONCE // max(count, 1), _BYTES_AT_ONCE // len(variables)))
        for start in range(0, len(conversation.wanted), step):
            wanted = conversation.wanted[start : start + step]
            more, longer = len(wanted) * count, len(wanted) * len(variables)
            if request and (messages + more > _MESSAGES_AT_ONCE or size + longer > _BYTES_AT_ONCE):
                yield request
                request, messages, size = [], 0, 0
            request.append((index, f'{{"variables": {variables}, "beginnings": {json.dumps(wanted)}}}'))
            messages, size = messages + more, size + longer
    if request:
        yield request


def _joined(
    found: list[Rendered] | InvalidArgument, reply: Mapping[str, Any]
) -> list[Rendered] | InvalidArgument:
    """What is found of a conversation with another request's reply; the first error stays."""
    if isinstance(found, InvalidArgument):
        return found
    if "renderings" not in reply:
        return _problem(reply)
    first = reply["renderings"][0]["rest"]
    whole = found[0].source if found else first
    for each in reply["renderings"]:
        blocks = tuple((start, end) for start, end in each["blocks"])
        found.append(Rendered.of(whole, first[: each["shared"]] + each["rest"], blocks))
    return found


def _problem(reply: Mapping[str, str]) -> InvalidArgument:
    if reply["kind"] == "messages":
        return InvalidArgument(f"messages: {reply['error']}", reason="CHAT_MESSAGES_INVALID")
    return _invalid(reply["error"])


def _invalid(problem: str) -> InvalidArgument:
    return InvalidArgument(f"chat_template.jinja {problem}", reason="CHAT_TEMPLATE_INVALID")


SANDBOX: Final = JinjaSandbox()
"""The process-wide sandbox that `ChatTemplate` uses."""
atexit.register(SANDBOX.close)

"""Spans of OpenTelemetry as they come: stored first, made into conversations when no more are expected."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

from tunix_rt_kit.errors import InvalidArgument
from tunix_rt_kit.serving.logging import get_logger
from tunix_rt_kit.serving.requests import Paging
from tunix_rt_kit.values import Page, Position
from tunix_rt_trace_store.traces.model import NewTrace, TraceDraft
from tunix_rt_trace_store.traces.validation import checked_traces

MAX_WAITING_BYTES: Final = 64 << 20
"""Of the spans of one trace that wait."""

_log = get_logger("tunix_rt.spans")
# How often due traces are looked for, at most; where little is waited it is every half of that.
_LOOK_S: Final = 0.5
_LEAST_LOOK_S: Final = 0.05
# What one transaction settles; other writers wait for it.
_AT_ONCE: Final = 10
_BYTES_AT_ONCE: Final = 1 << 20
# Spans that come go first, for so long, unless a trace is this late.
_GIVE_WAY_S: Final = 0.05
_LATE: Final = timedelta(seconds=2)
# For so long a span that is sent again is known, and one that was refused can be looked at.
_KNOWN: Final = timedelta(days=7)
_FORGET_EVERY: Final = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class NewSpan:
    """A span with good ids: ``encoded`` is what is made into conversations later."""

    trace_id: bytes
    span_id: bytes
    is_root: bool
    encoded: bytes


@dataclass(frozen=True, slots=True)
class DueTrace:
    """A trace of OpenTelemetry whose spans are to become conversations: since when, how often spans came for
    it, and the size of those that wait."""

    trace_id: bytes
    due_time: datetime
    arrivals: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class SettledTrace:
    """What became of the spans of a trace: the traces that were ``made``, and by id the spans that are
    ``refused``, and why; an empty id means all of them."""

    due: DueTrace
    made: Sequence[NewTrace]
    refused: Mapping[str, str]
    left_out: Mapping[str, int] = field(default_factory=dict)
    silent: int = 0


@dataclass(frozen=True, slots=True)
class Assembled:
    """What spans give: conversations with the ids of their spans; spans that are refused, and why; by kind
    how much is left out; and where there is no conversation, how many calls are without messages."""

    conversations: Sequence[tuple[TraceDraft, Sequence[str]]] = ()
    refused: Mapping[str, str] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)
    silent: int = 0


@dataclass(frozen=True, slots=True)
class RefusedTrace:
    """Spans of a trace that became no conversation: why, by id, of which an empty one means all of them; and
    how many calls were ``silent``, without messages."""

    trace_id: bytes
    refuse_time: datetime
    refused: Mapping[str, str]
    silent: int


@dataclass(frozen=True, slots=True)
class Windows:
    """How long a trace waits for another span: ``after_root`` once its root has ended, else ``idle``."""

    after_root: timedelta
    idle: timedelta


class SpanRepository(Protocol):
    """Where spans wait."""

    def add(self, batch: Sequence[NewSpan], windows: Windows, now: datetime) -> Sequence[NewSpan]: ...
    def due(self, now: datetime, limit: int) -> Sequence[DueTrace]: ...
    def waiting(self, trace_ids: Sequence[bytes]) -> Mapping[bytes, Sequence[bytes]]: ...
    def settle(self, traces: Sequence[SettledTrace], now: datetime) -> Sequence[SettledTrace]: ...
    def forget(self, before: datetime) -> None: ...
    def refused(self, after: Position | None, limit: int) -> Sequence[tuple[RefusedTrace, Position]]: ...


class LiveSpans:
    """Takes spans, and makes conversations of those of a trace once no other came for a while.

    Spans that come later wait again, and become conversations of their own.

    Args:
        repository: where spans wait.
        windows: for how long they do.
        assemble: makes conversations of the encoded spans of the trace with that id.
    """

    def __init__(
        self,
        repository: SpanRepository,
        windows: Windows,
        assemble: Callable[[bytes, Sequence[bytes]], Assembled],
    ) -> None:
        self._repository = repository
        self._windows = windows
        self._assemble = assemble
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._forgotten = datetime.now(UTC)
        self._arriving = _Arriving()

    @contextmanager
    def arriving(self) -> Iterator[None]:
        """A request of spans is being taken, which does not wait for conversations to be made: they do."""
        with self._arriving:
            yield

    def take(self, batch: Sequence[NewSpan]) -> Sequence[NewSpan]:
        """Store spans, each once however often it is sent; returns those that there was no room for."""
        return self._repository.add(batch, self._windows, datetime.now(UTC)) if batch else ()

    def list_refused(self, page_size: int, page_token: str) -> Page[RefusedTrace]:
        """One page of the traces of which spans were refused, the newest first."""
        paging = Paging(page_size, page_token, method="ListRefusedSpans")
        return paging.placed(self._repository.refused(paging.after("at"), paging.limit + 1))

    def assemble_due(self, now: datetime) -> int:
        """Make conversations of the traces whose time has come; returns of how many."""
        due = self._repository.due(now, _AT_ONCE)
        while due and sum(trace.size_bytes for trace in due[1:]) > _BYTES_AT_ONCE:
            due = due[: len(due) // 2]
        if due:
            is_late = now - due[0].due_time > _LATE
            waiting = self._repository.waiting([trace.trace_id for trace in due])
            made: list[SettledTrace] = []
            for trace in due:
                self._give_way(is_late)
                made.append(self._made(trace, waiting.get(trace.trace_id, ())))
            self._give_way(is_late)
            # Others came meanwhile for those that are not among them.
            for settled in self._repository.settle(made, now):
                _tell(settled)
        if now - self._forgotten > _FORGET_EVERY:
            self._repository.forget(now - _KNOWN)
            self._forgotten = now
        return len(due)

    def _give_way(self, is_late: bool) -> None:
        """Both take the interpreter's lock and the database's; who sends spans waits for an answer."""
        if not is_late:
            self._arriving.wait_for_none(_GIVE_WAY_S)

    def _made(self, trace: DueTrace, encoded: Sequence[bytes]) -> SettledTrace:
        try:
            found = self._assemble(trace.trace_id, encoded)
        except Exception as error:
            # It would fail again and again, before all others. What it holds is kept.
            _log.error("spans_not_assembled", trace_id=trace.trace_id.hex(), exc_info=error)
            return SettledTrace(trace, (), {"": f"internal error: {type(error).__name__}"})
        made: list[NewTrace] = []
        refused = dict(found.refused)
        for draft, span_ids in found.conversations:
            try:
                made += checked_traces([draft], 1, "conversation")
            except InvalidArgument as error:
                refused.update(dict.fromkeys(span_ids, error.message))
        return SettledTrace(trace, made, refused, found.left_out, found.silent)

    def start(self) -> None:
        """Look for due traces from now on, in a thread."""
        self._thread = threading.Thread(target=self._run, name="tunix-rt-spans", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End that thread, after the trace that it is at."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        failing = False
        look_s = min(_LOOK_S, max(_LEAST_LOOK_S, self._windows.after_root.total_seconds() / 2))
        while not self._stop.wait(look_s):
            try:
                while self.assemble_due(datetime.now(UTC)) and not self._stop.is_set():
                    pass
                failing = False
            except Exception as error:
                # The database is away, most likely; every call of a client says so too.
                if not failing:
                    _log.error("spans_wait", error=str(error))
                failing = True


class _Arriving:
    """How many requests are being taken."""

    def __init__(self) -> None:
        self._count = 0
        self._changed = threading.Condition()

    def __enter__(self) -> None:
        with self._changed:
            self._count += 1

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._count -= 1
            if not self._count:
                self._changed.notify_all()

    def wait_for_none(self, at_most_s: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._count, at_most_s)


def _tell(settled: SettledTrace) -> None:
    shown, made, left_out = settled.due.trace_id.hex(), len(settled.made), dict(settled.left_out)
    if made or left_out:
        _log.info("spans_assembled", trace_id=shown, conversations=made, left_out=left_out)
    for span_id, reason in settled.refused.items():
        _log.warning("span_refused", trace_id=shown, span_id=span_id, reason=reason)

"""Who sends spans does not wait for conversations to be made."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import pytest

from tunix_rt_kit.values import Position
from tunix_rt_trace_store.traces.live_spans import (
    Assembled,
    DueTrace,
    LiveSpans,
    NewSpan,
    RefusedTrace,
    SettledTrace,
    Windows,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
WINDOWS = Windows(timedelta(seconds=5), timedelta(seconds=300))


class OneTrace:
    """A repository in which one trace is due, since ``since``."""

    def __init__(self, since: datetime) -> None:
        self._due = [DueTrace(bytes(16), since, 1, 100)]

    def add(self, batch: Sequence[NewSpan], windows: Windows, now: datetime) -> Sequence[NewSpan]:
        raise NotImplementedError

    def due(self, now: datetime, limit: int) -> Sequence[DueTrace]:
        assert (now, limit) > (NOW - timedelta(1), 0)
        return self._due

    def waiting(self, trace_ids: Sequence[bytes]) -> Mapping[bytes, Sequence[bytes]]:
        return dict.fromkeys(trace_ids, ())

    def settle(self, traces: Sequence[SettledTrace], now: datetime) -> Sequence[SettledTrace]:
        assert now == NOW
        return traces

    def forget(self, before: datetime) -> None:
        raise NotImplementedError

    def refused(self, after: Position | None, limit: int) -> Sequence[tuple[RefusedTrace, Position]]:
        raise NotImplementedError


@pytest.mark.parametrize(("late_s", "waits"), [(0, True), (60, False)])
def test_conversations_are_made_after_the_requests_that_are_being_taken_unless_they_are_late(
    late_s: int, waits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunix_rt_trace_store.traces.live_spans._GIVE_WAY_S", 30)
    made = threading.Event()

    def assemble(_: bytes, __: Sequence[bytes]) -> Assembled:
        made.set()
        return Assembled()

    spans = LiveSpans(OneTrace(NOW - timedelta(seconds=late_s)), WINDOWS, assemble)
    thread = threading.Thread(target=spans.assemble_due, args=[NOW])
    with spans.arriving():
        thread.start()
        assert made.wait(0.3 if waits else 20) is not waits
    thread.join(20)
    assert made.is_set()
    assert not thread.is_alive()

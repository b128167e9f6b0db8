"""Whether anybody still waits for what a thread does: work whose caller has left is ended.

``check`` stands in loops that may take long, ``ended_by_leaving`` around what waits in one go. Outside a
call, as in a job, neither does anything.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

_LOOK_S: Final = 0.25


class CallerLeft(BaseException):
    """Ends the work of a call that nobody waits for. No Exception: nobody is left to be told of it."""


class Caller:
    """Who waits for the work of one call. Safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ways_to_end: list[Callable[[], None]] = []
        self._left = self._bound = False

    @property
    def left(self) -> bool:
        """Whether the work is to end."""
        return self._left and not self._bound

    def leave(self) -> None:
        """Nobody waits any more; work that was not carried too far ends soon."""
        self._left = True
        if self._ways_to_end:
            # One may ask a database over the network, and who leaves may be an event loop.
            threading.Thread(target=self._end, name="tunix-rt-caller-left", daemon=True).start()

    def bind(self) -> None:
        """Something was stored: from now on the work is done to its end."""
        self._bound = True

    def add(self, end: Callable[[], None]) -> None:
        """Have ``end`` called, in some thread, when the caller leaves."""
        with self._lock:
            self._ways_to_end.append(end)

    def remove(self, end: Callable[[], None]) -> None:
        """``end`` is not called any more once this has returned."""
        with self._lock:
            self._ways_to_end.remove(end)

    def _end(self) -> None:
        with self._lock:
            if self.left:
                for end in self._ways_to_end:
                    end()


_caller: ContextVar[Caller | None] = ContextVar("tunix_rt_caller", default=None)


def current_caller() -> Caller | None:
    """Who waits for what runs here; None outside any call."""
    return _caller.get()


def begin_call() -> None:
    """What runs in this context from now on is done for a caller of its own."""
    _caller.set(Caller())


@contextmanager
def for_nobody() -> Iterator[None]:
    """What runs inside is done whether or not anybody waits."""
    token = _caller.set(None)
    try:
        yield
    finally:
        _caller.reset(token)


def check() -> None:
    """Raise CallerLeft if nobody waits any more for what runs here."""
    caller = _caller.get()
    if caller is not None and caller.left:
        raise CallerLeft


@contextmanager
def ended_by_leaving(end: Callable[[], None]) -> Iterator[None]:
    """Around something that waits or computes in one go: ``end`` makes it end early, from another thread.

    Raises CallerLeft for whatever it raises then, and if the caller has left before.
    """
    caller = _caller.get()
    if caller is None:
        yield
        return
    caller.add(end)
    try:
        check()
        yield
    except Exception:
        check()
        raise
    finally:
        caller.remove(end)


@contextmanager
def holding(lock: threading.Lock) -> Iterator[None]:
    """Hold ``lock`` as its ``with`` does; raises CallerLeft where nobody waits for what it is held for."""
    check()
    while not lock.acquire(timeout=_LOOK_S):
        check()
    try:
        yield
    finally:
        lock.release()

"""The call that is being served: its request id, its service, and whether anybody still waits for it.

Work whose caller has left ends early: ``check`` stands in loops that may take long, ``ended_by_leaving``
around what waits in one go. Outside a call, as in a job, neither does anything.
"""

from __future__ import annotations

import re
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_LOOK_S: Final = 0.25
_request_id: ContextVar[str] = ContextVar("tunix_rt_request_id", default="")
_service: ContextVar[str] = ContextVar("tunix_rt_service", default="")
_caller: ContextVar[Caller | None] = ContextVar("tunix_rt_caller", default=None)


class CallerLeft(BaseException):
    """Ends the work of a call that nobody waits for. It is no Exception, as nobody is left to tell."""


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
        """Note that nobody waits any more. The work ends soon, unless `bind` was called."""
        self._left = True
        if self._ways_to_end:
            # One may ask a database over the network, and who leaves may be an event loop.
            threading.Thread(target=self._end, name="tunix-rt-caller-left", daemon=True).start()

    def bind(self) -> None:
        """Note that something was stored: from now on the work is done to its end."""
        self._bound = True

    def add(self, end: Callable[[], None]) -> None:
        """Call ``end``, in some thread, when the caller leaves."""
        with self._lock:
            self._ways_to_end.append(end)

    def remove(self, end: Callable[[], None]) -> None:
        """Do not call ``end`` any more once this has returned."""
        with self._lock:
            self._ways_to_end.remove(end)

    def _end(self) -> None:
        with self._lock:
            if self.left:
                for end in self._ways_to_end:
                    end()


def current_caller() -> Caller | None:
    """Who waits for what runs here; None outside any call."""
    return _caller.get()


def current_request_id() -> str:
    """The request id of this call; empty outside any."""
    return _request_id.get()


def current_service() -> str:
    """The full name of the service that is called; empty outside any call."""
    return _service.get()


def begin_call(offered: str = "", method: str = "") -> str:
    """Start a call in this context, with a caller of its own, and return its request id.

    Args:
        offered: the id that the caller sent. It is taken if it is a plain token; else one is made.
        method: ``/package.Service/Method``.
    """
    request_id = offered if _REQUEST_ID.fullmatch(offered) else uuid.uuid4().hex
    _request_id.set(request_id)
    _service.set(method.rpartition("/")[0].removeprefix("/"))
    _caller.set(Caller())
    return request_id


@contextmanager
def for_nobody() -> Iterator[None]:
    """Do what runs inside whether or not anybody waits."""
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
    """Let ``end``, called from another thread, end what runs inside when the caller leaves.

    Raises CallerLeft for whatever is raised inside then, and if the caller has left before.
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
    """Hold ``lock`` as its ``with`` does. Raises CallerLeft if the caller leaves while this waits."""
    check()
    while not lock.acquire(timeout=_LOOK_S):
        check()
    try:
        yield
    finally:
        lock.release()

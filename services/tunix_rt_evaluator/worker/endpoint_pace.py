"""How many requests an endpoint gets at once, and when: fewer and later while it is busy."""

from __future__ import annotations

import time
from typing import Final

_FIRST_PAUSE_S: Final = 0.5
_LONGEST_PAUSE_S: Final = 8.0


class Pace:
    """Requests at once: ``most`` of them, or as many as the endpoint takes.

    Where one is refused for now, it takes as many as it did not refuse. When it has answered so many, one
    more is tried. Nothing is sent for as long as the server says; where it does not say and takes none, for
    half a second, and twice as long each time, up to 8 s.

    Args:
        most: requests at once, where the endpoint takes them.
        patience_s: how long a busy endpoint may leave every request without an answer, in seconds; also the
            longest wait that a server may ask for.
    """

    def __init__(self, most: int, patience_s: float) -> None:
        self._most = self._limit = most
        self._patience_s = patience_s
        self._answers = 0
        self._answered_at = self._open_at = time.perf_counter()
        self._next_pause_s = _FIRST_PAUSE_S

    @property
    def pause_s(self) -> float:
        """How long nothing may be sent, from now on."""
        return max(0.0, self._open_at - time.perf_counter())

    def room(self, under_way: int) -> int:
        """How many requests may be sent now, beside so many that are under way."""
        return 0 if self.pause_s else max(0, self._limit - under_way)

    def answered(self) -> None:
        """An answer came."""
        self._answered_at = time.perf_counter()
        self._next_pause_s = _FIRST_PAUSE_S
        self._answers += 1
        if self._answers >= self._limit:
            self._answers = 0
            self._limit = min(self._most, self._limit + 1)

    def refused(self, taken: int, retry_after_s: float | None) -> bool:
        """The endpoint was too busy for a request; returns whether to send that again.

        Not when it takes none, and has answered none for as long as the patience lasts.

        Args:
            taken: how many requests it had then that it did not refuse.
            retry_after_s: how long the server wants to be left alone; None where it does not say.
        """
        now = time.perf_counter()
        if not taken and now - self._answered_at >= self._patience_s:
            return False
        self._answers = 0
        self._limit = max(1, min(self._limit, taken))
        pause_s = min(retry_after_s or 0.0, self._patience_s)
        if not taken and not pause_s and not self.pause_s:
            pause_s = self._next_pause_s
            self._next_pause_s = min(_LONGEST_PAUSE_S, 2 * pause_s)
        self._open_at = max(self._open_at, now + pause_s)
        return True

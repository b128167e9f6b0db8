"""Children that hold a model after their evaluation: the next one of the same model need not load it."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Final

from tunix_rt_kit.jobs import WarmWorker
from tunix_rt_kit.models.runtime import on_gpu

DEFAULT_KEEP_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class _Idle:
    model: str
    child: WarmWorker
    timer: threading.Timer


class WarmWorkers:
    """Children that wait for a job, each for ``keep_s`` seconds; safe for threads.

    With those that have a job there are at most ``most``.

    ``keep_s`` 0 keeps none; None is 60 s, and on a GPU 0, whose memory the next program needs.
    """

    def __init__(self, most: int, keep_s: float | None = None) -> None:
        self._most = most
        self._keep_s = keep_s if keep_s is not None else 0.0 if on_gpu() else DEFAULT_KEEP_S
        self._lock = threading.Lock()
        self._idle: list[_Idle] = []

    @property
    def keeps(self) -> bool:
        """Whether any child is kept."""
        return self._keep_s > 0

    def take(self, model: str, running: int = 1) -> WarmWorker | None:
        """A child that holds ``model``, for a job; room is made for those ``running``, this one included."""
        with self._lock:
            found = next((idle for idle in self._idle if idle.model == model), None)
            if found is not None:
                self._idle.remove(found)
                found.timer.cancel()
            crowding = self._idle[: max(0, len(self._idle) + running - self._most)]
        for idle in crowding:
            self._end(idle)
        return found.child if found is not None else None

    def give(self, model: str, child: WarmWorker) -> None:
        """Keep a child that holds ``model`` and has done its job."""
        timer = threading.Timer(self._keep_s, lambda: self._end(idle))
        timer.daemon = True
        idle = _Idle(model, child, timer)
        with self._lock:
            self._idle.append(idle)
            crowding = self._idle[: -self._most]
        timer.start()
        for other in crowding:
            self._end(other)

    def close(self) -> None:
        """End all that wait."""
        with self._lock:
            waiting = list(self._idle)
        for idle in waiting:
            self._end(idle)

    def _end(self, idle: _Idle) -> None:
        with self._lock:
            if idle not in self._idle:
                return
            self._idle.remove(idle)
        idle.timer.cancel()
        idle.child.close()

"""Runs symbolic mathematics and foreign schemas, which may never end, in a child with limits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tunix_rt_evaluator.grading.model import CannotGrade
from tunix_rt_kit.jobs.line_child import ChildGone, ChildNotStarted, ChildTooSlow, LineChild

SECONDS: Final = 10.0
"""Wall time of one task."""


class GradingSandbox:
    """One child process for all tasks; it starts at the first, and again after it was killed. Thread-safe."""

    def __init__(self, seconds: float | None = None) -> None:
        self._seconds = SECONDS if seconds is None else seconds
        self._child = LineChild(Path(__file__).with_name("sandbox_worker.py"))

    def run(self, task: str, **values: Any) -> Mapping[str, Any]:
        """The answer of ``sandbox_worker`` to a task; raises CannotGrade if it takes too long or fails."""
        request = json.dumps({"task": task, **values}).encode()
        try:
            reply: Mapping[str, Any] = json.loads(self._child.exchange(request, self._seconds))
        except ChildTooSlow:
            raise CannotGrade(f"it is not done after {self._seconds:g} s") from None
        except ChildGone:
            raise CannotGrade("the process that does it ended, most likely for want of memory") from None
        except ChildNotStarted:
            raise CannotGrade("the process that does it did not start; the server's log says why") from None
        if "error" in reply:
            raise CannotGrade(str(reply["error"]))
        return reply

    def close(self) -> None:
        """End the child, if there is one."""
        self._child.close()

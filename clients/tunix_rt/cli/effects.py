"""What each command does to the data folder and its jobs."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final


class Effect(Enum):
    """What a command that has no server does to the data folder.

    The value is what becomes of the folder's jobs, as ``tunix_rt_local.embedded`` takes it.
    """

    READS = "leave"
    """It looks. No job starts or goes on, and others may use the folder meanwhile."""
    WRITES = "end"
    """It changes what is stored. No job starts or goes on; one that is cancelled ends."""
    WORKS = "run"
    """It runs jobs: its own, and all that were interrupted or wait."""


_READS, _WRITES, _WORKS = Effect.READS, Effect.WRITES, Effect.WORKS

EFFECTS: Final[Mapping[str, Effect]] = {
    "compare": _WRITES,
    "dataset audit": _READS,
    "dataset build": _WORKS,
    "dataset cancel": _WRITES,
    "dataset delete": _WRITES,
    "dataset dropped": _READS,
    "dataset export": _READS,
    "dataset list": _READS,
    "dataset preview": _READS,
    "dataset show": _READS,
    "dataset update": _WRITES,
    "demo": _WORKS,
    "doctor": _READS,
    "du": _READS,
    "evalset delete": _WRITES,
    "evalset generate": _WRITES,
    "evalset import": _WRITES,
    "evalset import bench": _WRITES,
    "evalset list": _READS,
    "evalset show": _READS,
    "evalset update": _WRITES,
    "evaluate": _WORKS,
    "evaluation cancel": _WRITES,
    "evaluation delete": _WRITES,
    "evaluation items": _READS,
    "evaluation list": _READS,
    "evaluation regrade": _WORKS,
    "evaluation resume": _WORKS,
    "evaluation show": _READS,
    "evaluation update": _WRITES,
    "evaluation watch": _READS,
    "grade": _READS,
    "gc": _WRITES,
    "loop delete": _WRITES,
    "loop run": _WORKS,
    "models delete": _WRITES,
    "models list": _READS,
    "models pull": _WRITES,
    "models verify": _READS,
    "reports delete": _WRITES,
    "reports improvements": _READS,
    "reports list": _READS,
    "reports regressions": _READS,
    "reports show": _READS,
    "reports update": _WRITES,
    "traces compare": _READS,
    "traces delete": _WRITES,
    "traces export": _READS,
    "traces generate": _WRITES,
    "traces import": _WRITES,
    "traces list": _READS,
    "traces score": _WRITES,
    "traces show": _READS,
    "traces spans": _READS,
    "train cancel": _WRITES,
    "train checkpoints": _READS,
    "train delete": _WRITES,
    "train export": _WRITES,
    "train list": _READS,
    "train resume": _WORKS,
    "train show": _READS,
    "train start": _WORKS,
    "train update": _WRITES,
    "train watch": _READS,
    "up": _WORKS,
}
"""The effect of each command, by its words. A new command has its line here."""


def effect_of(command: str) -> Effect:
    """The effect of a command; one that is not in the table does not start work by mistake."""
    return EFFECTS.get(command, Effect.WRITES)

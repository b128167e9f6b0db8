"""What a job is told that does not fit into memory, by whoever finds out: the worker, or the server."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tunix_rt_trainer.jobs.model import TrainingSpec

_COUNTERS: Final = Path("/proc/vmstat")


def advice(spec: TrainingSpec) -> str:
    """The settings that take less memory, of those that can still be changed."""
    settings = ["a smaller rows_per_batch"]
    if spec.gradient_accumulation_steps < spec.rows_per_batch:
        settings.append("more gradient_accumulation_steps")
    if spec.remat != "full":
        settings.append('remat "full"')
    settings.append("a shorter max_length")
    return f"{', '.join(settings[:-1])} or {settings[-1]} takes less"


def rows_at_a_time(spec: TrainingSpec) -> str:
    """How many rows of which length are computed at a time."""
    rows = spec.rows_per_batch // spec.gradient_accumulation_steps
    return f"{rows} rows of {spec.max_length} tokens at a time"


def processes_killed_for_memory() -> int | None:
    """How many processes the system has killed since its start because memory ran out; None if unknown."""
    try:
        lines = _COUNTERS.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), None)

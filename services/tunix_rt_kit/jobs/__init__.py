"""Long work beside a server: an engine that runs the jobs of a queue in the database, and child processes
that report through a folder."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tunix_rt_kit.jobs.child import JobCancelled, JobDir, run_worker

if TYPE_CHECKING:
    from tunix_rt_kit.jobs.engine import JobEngine, JobKind
    from tunix_rt_kit.jobs.process import WarmWorker, WorkerProcess
    from tunix_rt_kit.jobs.run import JobInterrupted, Run

__all__ = [
    "JobCancelled",
    "JobDir",
    "JobEngine",
    "JobInterrupted",
    "JobKind",
    "Run",
    "WarmWorker",
    "WorkerProcess",
    "run_worker",
]

# Imported when first asked for: a child process, which asks for none of them, starts in half the time.
_FOR_SERVERS = {
    "JobEngine": "engine",
    "JobKind": "engine",
    "JobInterrupted": "run",
    "Run": "run",
    "WarmWorker": "process",
    "WorkerProcess": "process",
}


def __getattr__(name: str) -> Any:
    if name not in _FOR_SERVERS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_FOR_SERVERS[name]}"), name)

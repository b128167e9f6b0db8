"""Long work beside a server: an engine that runs the jobs of a queue in the database, and child processes
that report through a folder."""

from tunix_rt_kit.jobs.child import JobCancelled, JobDir, run_worker
from tunix_rt_kit.jobs.engine import JobEngine, JobKind
from tunix_rt_kit.jobs.process import WarmWorker, WorkerProcess
from tunix_rt_kit.jobs.run import JobInterrupted, Run
from tunix_rt_kit.jobs.runner import JobRunner

__all__ = [
    "JobCancelled",
    "JobDir",
    "JobEngine",
    "JobInterrupted",
    "JobKind",
    "JobRunner",
    "Run",
    "WarmWorker",
    "WorkerProcess",
    "run_worker",
]

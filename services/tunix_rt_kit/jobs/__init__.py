"""Long work beside a server: a queue with slots, and a child process that reports through a folder."""

from tunix_rt_kit.jobs.child import JobCancelled, JobDir, run_worker
from tunix_rt_kit.jobs.process import KeptChild, WorkerProcess
from tunix_rt_kit.jobs.runner import JobRunner

__all__ = ["JobCancelled", "JobDir", "JobRunner", "KeptChild", "WorkerProcess", "run_worker"]

"""A child process that tells one thing, or fails, as its spec says."""

from __future__ import annotations

import sys

from tunix_rt_kit.errors import FailedPrecondition
from tunix_rt_kit.jobs.child import JobDir, run_worker


def main(job: JobDir) -> None:
    """Tell what the spec holds under ``told``; without it, fail or tell nothing."""
    if job.spec.get("fails"):
        raise FailedPrecondition("it does not fit", reason="TOO_LARGE", metadata={"size": "9"})
    if "told" in job.spec:
        job.emit("speed", **job.spec["told"])


if __name__ == "__main__":
    sys.exit(run_worker(main))

"""``python -m tunix_rt_trainer.worker JOB_DIR``: does a job, or measures for a plan."""

from __future__ import annotations

import sys

from tunix_rt_kit.jobs.child import JobDir, run_worker
from tunix_rt_trainer.worker.reporter import Reporter


def main(job: JobDir) -> None:
    """Do the job; JAX and Tunix are imported here, so that their seconds are a stage that can be seen."""
    if "measure" in job.spec:
        from tunix_rt_trainer.worker.measure import measure

        measure(job)
        return
    reporter = Reporter(job)
    reporter.attempt(job.spec["attempt"])
    reporter.stage("starting")
    from tunix_rt_trainer.worker.train import run

    run(job)


if __name__ == "__main__":
    sys.exit(run_worker(main))

"""``python -m tunix_rt_evaluator.worker JOB_DIR``."""

from __future__ import annotations

import sys

from tunix_rt_evaluator.worker.job import Evaluations
from tunix_rt_kit.jobs.child import run_worker

if __name__ == "__main__":
    sys.exit(run_worker(Evaluations().evaluate))

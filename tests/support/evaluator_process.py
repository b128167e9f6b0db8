"""An evaluator process with ``support.scripted_evaluator`` as its worker."""

from __future__ import annotations

import sys

from tunix_rt_evaluator.evaluations import job_folders
from tunix_rt_evaluator.wiring import EvaluatorSettings, build, migrate
from tunix_rt_kit.serving.server import run_service

if __name__ == "__main__":
    job_folders.WORKER_MODULE = "support.scripted_evaluator"  # type: ignore[misc]
    sys.exit(run_service(EvaluatorSettings, build, migrate, program="evaluator"))

"""The trainer's command line, whose jobs are acted out by ``support.scripted_trainer``."""

from __future__ import annotations

import sys

from tunix_rt_trainer.__main__ import main
from tunix_rt_trainer.jobs import training

if __name__ == "__main__":
    training.WORKER_MODULE = "support.scripted_trainer"  # type: ignore[misc]
    sys.exit(main())

"""``python -m tunix_rt_trainer [serve | migrate] [--flags]``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from tunix_rt_kit.serving.server import run_service
from tunix_rt_trainer.wiring import TrainerSettings, build, migrate


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until told to stop, or migrate; returns the exit code."""
    return run_service(TrainerSettings, build, migrate, program="tunix-rt-trainer", argv=argv)


if __name__ == "__main__":
    sys.exit(main())

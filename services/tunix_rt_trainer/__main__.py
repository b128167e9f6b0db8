"""``python -m tunix_rt_trainer [serve | migrate] [--flags]``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from tunix_rt_kit.serving.main import opened, run_service
from tunix_rt_trainer.settings import TrainerSettings
from tunix_rt_trainer.wiring import build, migrate


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until told to stop, or migrate; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["serve"]:
        del arguments[0]
    return run_service(
        TrainerSettings,
        lambda settings, stop: opened(build(settings, stop)),
        program="tunix-rt-trainer",
        argv=arguments,
        commands={"migrate": migrate},
    )


if __name__ == "__main__":
    sys.exit(main())

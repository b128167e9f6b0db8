"""``python -m tunix_rt_evaluator [serve | migrate] [--flags]``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from tunix_rt_evaluator.settings import EvaluatorSettings
from tunix_rt_evaluator.wiring import build, migrate
from tunix_rt_kit.serving.main import opened, run_service


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until told to stop, or migrate; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["serve"]:
        del arguments[0]
    return run_service(
        EvaluatorSettings,
        lambda settings, stop: opened(build(settings, stop)),
        program="tunix-rt-evaluator",
        argv=arguments,
        commands={"migrate": migrate},
    )


if __name__ == "__main__":
    sys.exit(main())

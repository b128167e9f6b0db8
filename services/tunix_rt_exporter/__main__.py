"""``python -m tunix_rt_exporter [serve | migrate] [--flags]``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from tunix_rt_exporter.settings import ExporterSettings
from tunix_rt_exporter.wiring import build, migrate
from tunix_rt_kit.serving.main import opened, run_service


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until told to stop, or migrate; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["serve"]:
        del arguments[0]
    return run_service(
        ExporterSettings,
        lambda settings, stop: opened(build(settings, stop)),
        program="tunix-rt-exporter",
        argv=arguments,
        commands={"migrate": migrate},
    )


if __name__ == "__main__":
    sys.exit(main())

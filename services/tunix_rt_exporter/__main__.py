"""``python -m tunix_rt_exporter [serve | migrate] [--flags]``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from tunix_rt_exporter.wiring import ExporterSettings, build, migrate
from tunix_rt_kit.serving.server import run_service


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until told to stop, or migrate; returns the exit code."""
    return run_service(ExporterSettings, build, migrate, program="tunix-rt-exporter", argv=argv)


if __name__ == "__main__":
    sys.exit(main())

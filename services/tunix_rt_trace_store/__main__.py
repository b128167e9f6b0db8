"""``python -m tunix_rt_trace_store [serve | migrate] [--flags]``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from tunix_rt_kit.serving.server import run_service
from tunix_rt_trace_store.wiring import TraceStoreSettings, build, migrate


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until told to stop, or migrate; returns the exit code."""
    return run_service(TraceStoreSettings, build, migrate, program="tunix-rt-trace-store", argv=argv)


if __name__ == "__main__":
    sys.exit(main())

"""``python -m tunix_rt_trace_store [serve | migrate] [--flags]``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from tunix_rt_kit.serving.main import opened, run_service
from tunix_rt_trace_store.settings import TraceStoreSettings
from tunix_rt_trace_store.wiring import build, migrate


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until told to stop, or migrate; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["serve"]:
        del arguments[0]
    return run_service(
        TraceStoreSettings,
        lambda settings, stop: opened(build(settings, stop)),
        program="tunix-rt-trace-store",
        argv=arguments,
        commands={"migrate": migrate},
    )


if __name__ == "__main__":
    sys.exit(main())

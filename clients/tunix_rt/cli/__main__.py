"""The entry point of `tunix-rt`, which `python -m tunix_rt.cli` is too.

To load the command line takes half a second. What stops it meanwhile is told as it is later.
"""

from __future__ import annotations

import signal
import sys


def main() -> None:
    """Load the command line, and run it."""
    signal.signal(signal.SIGTERM, _leave)
    try:
        from tunix_rt.cli.main import main as run
    except KeyboardInterrupt:
        _stop("INTERRUPTED", "interrupted", 128 + signal.SIGINT)
    except SystemExit:
        _stop("TERMINATED", "terminated by SIGTERM", 128 + signal.SIGTERM)
    run()


def _leave(number: int, frame: object) -> None:  # noqa: ARG001
    raise SystemExit(128 + number)


def _stop(reason: str, message: str, exit_code: int) -> None:
    """As ``tunix_rt.cli.errors`` does it, which may not be there yet."""
    given = sys.argv[1:]
    told = f"error: {message}"
    if "--json" in given[: given.index("--") if "--" in given else None]:
        told = (
            f'{{"code": "CANCELLED", "reason": "{reason}", "message": "{message}", "violations": [], '
            f'"metadata": {{}}, "exit_code": {exit_code}}}'
        )
    print(told, file=sys.stderr)
    raise SystemExit(exit_code)


if __name__ == "__main__":
    main()

"""Runs the benchmarks: ``python -m benchmarks [NAME ...]``; all of them without a name."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping

from benchmarks import trace_import

BENCHMARKS: Mapping[str, Callable[[], dict[str, float]]] = {"trace-import": trace_import.run}


def main(names: list[str]) -> None:
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        sys.exit(f"no benchmark is called {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    for name in names or list(BENCHMARKS):
        print(json.dumps({"benchmark": name, **BENCHMARKS[name]()}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])

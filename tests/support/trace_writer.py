"""``python -m support.trace_writer ADDRESS NUMBER COUNT`` imports traces as one of many writers.

It makes one import of every few; each has the same id and traces whenever the writer is started. A line on
standard output tells each that was answered.
"""

from __future__ import annotations

import sys

from support.traces import trace
from tunix_rt import Client
from tunix_rt.importing import import_traces

BATCH = 10


def main(address: str, writer: int, count: int) -> None:
    with Client(address) as client:
        for first in range(0, count, BATCH):
            import_traces(
                client,
                (trace(writer * count + index) for index in range(first, min(first + BATCH, count))),
                duplicate_policy="keep",
                import_id=f"writer-{writer}-{first}",
            )
            print(first + BATCH, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))

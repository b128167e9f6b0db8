"""``python -m support.trace_writer ADDRESS NUMBER COUNT`` imports traces as one of many writers.

The same writer's import has the same id and traces whenever it is started. A line on standard output tells
each batch that was answered.
"""

from __future__ import annotations

import sys

from support.traces import trace
from tunix_rt import Client
from tunix_rt.importing import import_traces

BATCH = 10


def main(address: str, writer: int, count: int) -> None:
    with Client(address) as client:
        import_traces(
            client,
            (trace(writer * count + index) for index in range(count)),
            duplicate_policy="keep",
            batch_size=BATCH,
            import_id=f"writer-{writer}",
            on_progress=lambda result: print(result.read, flush=True),
        )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))

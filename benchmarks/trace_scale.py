"""Many traces: memory of server and client, time per trace from first to last, and far pages."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Iterator, Mapping
from statistics import median
from typing import Any, Final

import psutil
from google.protobuf.struct_pb2 import Value

from benchmarks import data
from benchmarks.databases import database_server
from benchmarks.measure import peak_rss
from benchmarks.options import Options
from benchmarks.processes import trace_store
from tunix_rt import Client, v1
from tunix_rt.importing import ImportResult, import_traces

COUNT: Final = 300_000
PAGE: Final = 100
_SHARE: Final = 10
_PAGE_READS: Final = 40

FILTERS: Final[Mapping[str, v1.TraceFilter | None]] = {
    "no_filter": None,
    "source": v1.TraceFilter(sources=["bench-3"]),
    "metadata": v1.TraceFilter(metadata=[v1.MetadataCondition(key="tenth", equals=Value(number_value=3))]),
}
"""What is listed; the filters keep one trace in ten."""


def run(options: Options) -> dict[str, Any]:
    """For each database: peak RSS in MB, the last tenth's time per trace over the first's, and page costs.

    The client is this process, whose memory holds the distinct rows of the data too.
    """
    count = max(options.count or COUNT, data.SOURCES * PAGE * 4)
    figures: dict[str, Any] = {"count": count, "page_size": PAGE}
    for dialect in options.dialects:
        with database_server(dialect, options) as server, server.empty() as url:
            figures[dialect] = _on(url, options, count)
    return figures


def _on(url: str, options: Options, count: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with trace_store(url) as process, Client(process.address) as client:
        watched = {"client": psutil.Process(), "server": process.process}
        with peak_rss(watched) as peaks:
            found["import"] = _import(client, data.traces(options, count), count)
        found["import"] |= {f"peak_rss_mb_{name}": value for name, value in peaks.items()}
        with peak_rss(watched) as peaks:
            found["stream"] = _growth(_moments(client.trace_store.stream_traces()), count)
        found["stream"] |= {f"peak_rss_mb_{name}": value for name, value in peaks.items()}
        found["pages"] = {name: _pages(client, wanted) for name, wanted in FILTERS.items()}
    return found


def _import(client: Client, traces: Iterable[v1.Trace], count: int) -> dict[str, float]:
    moments = [(0, time.perf_counter())]

    def progress(result: ImportResult) -> None:
        moments.append((result.read, time.perf_counter()))

    result = import_traces(client, traces, on_progress=progress)
    if result.created != count:
        raise RuntimeError(f"{result.created} of {count} traces were stored")
    return _growth(moments, count)


def _moments(traces: Iterable[v1.Trace]) -> Iterator[tuple[int, float]]:
    """How many traces have come by when, every thousand."""
    number = 0
    yield 0, time.perf_counter()
    for number, _ in enumerate(traces, start=1):
        if number % 1_000 == 0:
            yield number, time.perf_counter()
    yield number, time.perf_counter()


def _growth(moments: Iterable[tuple[int, float]], count: int) -> dict[str, float]:
    """Traces a second in all, in the first tenth and in the last, and how much longer a trace takes then."""
    seen = list(moments)
    if seen[-1][0] != count:
        raise RuntimeError(f"{seen[-1][0]} of {count} traces came by")
    share = count // _SHARE
    first = _rate(seen[0], next(moment for moment in seen if moment[0] >= share))
    last = _rate(next(moment for moment in seen if moment[0] >= count - share), seen[-1])
    return {
        "traces_per_second": round(_rate(seen[0], seen[-1])),
        "first_traces_per_second": round(first),
        "last_traces_per_second": round(last),
        "last_over_first": round(first / last, 3),
    }


def _rate(start: tuple[int, float], end: tuple[int, float]) -> float:
    return (end[0] - start[0]) / (end[1] - start[1])


def _pages(client: Client, wanted: v1.TraceFilter | None) -> dict[str, float]:
    """Milliseconds of the first page and of one near the end, medians of reads in turns."""
    last_token = _far_token(client, wanted)
    times: dict[str, list[float]] = {"": [], last_token: []}
    for _ in range(_PAGE_READS):
        for token in random.sample(list(times), len(times)):
            begun = time.perf_counter()
            page = next(
                client.trace_store.list_traces(filter=wanted, page_size=PAGE, page_token=token).pages()
            )
            times[token].append(time.perf_counter() - begun)
            if len(page.traces) != PAGE:
                raise RuntimeError(f"a page holds {len(page.traces)} traces, not {PAGE}")
    first, far = (median(values) * 1000 for values in times.values())
    return {"first_ms": round(first, 3), "far_ms": round(far, 3), "far_over_first": round(far / first, 3)}


def _far_token(client: Client, wanted: v1.TraceFilter | None) -> str:
    """The token of the last page of which a full ``PAGE`` can be had."""
    token = ""
    for page in client.trace_store.list_traces(filter=wanted, page_size=PAGE).pages():
        if page.next_page_token and len(page.traces) == PAGE:
            previous, token = token, page.next_page_token
    return previous

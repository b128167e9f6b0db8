"""Many traces: memory of server and client, time per trace from first to last, and far pages."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Mapping
from statistics import median
from typing import Any, Final

import psutil
from google.protobuf.struct_pb2 import Value

from benchmarks import data
from benchmarks.databases import DatabaseServer, database_server
from benchmarks.measure import CpuMeter, peak_rss
from benchmarks.options import Options
from benchmarks.processes import trace_store
from tunix_rt import Client, v1
from tunix_rt.importing import import_traces

COUNT: Final = 300_000
# A tenth must be more than one batch, and a filtered listing several pages.
LEAST: Final = 20_000
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
    count = max(options.count or COUNT, LEAST)
    figures: dict[str, Any] = {"count": count, "page_size": PAGE}
    for dialect in options.dialects:
        with database_server(dialect, options) as server, server.empty() as url:
            figures[dialect] = _on(server, url, options, count)
    return figures


def _on(server: DatabaseServer, url: str, options: Options, count: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with trace_store(url) as process, Client(process.address) as client:
        watched = {"client": psutil.Process(), "server": process.process}
        steps: dict[str, Callable[[_Laps], None]] = {
            "import": lambda laps: _import(client, data.traces(options, count), laps),
            "stream": lambda laps: _stream(client, laps),
        }
        for name, step in steps.items():
            with peak_rss(watched) as peaks:
                laps = _Laps(CpuMeter(process.process, server.process), count)
                step(laps)
                found[name] = laps.growth()
            found[name] |= {f"peak_rss_mb_{who}": value for who, value in peaks.items()}
        found["pages"] = {name: _pages(client, wanted) for name, wanted in FILTERS.items()}
    return found


class _Laps:
    """When the first tenth of ``count`` traces was done, when the last began, and the CPU time until then."""

    def __init__(self, meter: CpuMeter, count: int) -> None:
        self._meter = meter
        self._marks = [0, count // _SHARE, count - count // _SHARE, count]
        self._laps: list[tuple[int, float, float]] = []
        self.passed(0)

    def passed(self, number: int) -> None:
        """``number`` traces are done."""
        if len(self._laps) < len(self._marks) and number >= self._marks[len(self._laps)]:
            self._laps.append((number, time.perf_counter(), self._meter.seconds()))

    def growth(self) -> dict[str, float]:
        """Traces a second in all, in the first tenth and in the last; and what a trace of the last costs in
        time, and in CPU time of client, server and database, over one of the first."""
        if [lap[0] for lap in self._laps[::3]] != [0, self._marks[-1]]:
            raise RuntimeError(f"not all of the {self._marks[-1]} traces came by")
        start, first, before_last, end = self._laps
        first_s, first_cpu_s = _per_trace(start, first)
        last_s, last_cpu_s = _per_trace(before_last, end)
        return {
            "traces_per_second": round(1 / _per_trace(start, end)[0]),
            "first_traces_per_second": round(1 / first_s),
            "last_traces_per_second": round(1 / last_s),
            "last_over_first": round(last_s / first_s, 3),
            "last_over_first_cpu": round(last_cpu_s / first_cpu_s, 3),
        }


def _per_trace(start: tuple[int, float, float], end: tuple[int, float, float]) -> tuple[float, float]:
    count = end[0] - start[0]
    return (end[1] - start[1]) / count, (end[2] - start[2]) / count


def _import(client: Client, traces: Iterable[v1.Trace], laps: _Laps) -> None:
    import_traces(client, traces, on_progress=lambda result: laps.passed(result.created))


def _stream(client: Client, laps: _Laps) -> None:
    for number, _ in enumerate(client.trace_store.stream_traces(), start=1):
        if number % 1_000 == 0:
            laps.passed(number)
    laps.passed(number)


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

"""Reading traces: one by name, alone and under 8 clients, beside a REST baseline's GET; and a whole snapshot.

Every client is a process with one connection. A streamed trace is parsed and handed to the caller.
"""

from __future__ import annotations

import multiprocessing
import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.synchronize import Barrier
from statistics import median
from typing import Any, Final, Literal

import httpx

from benchmarks import data
from benchmarks.databases import DatabaseServer, database_server
from benchmarks.measure import percentile
from benchmarks.options import Options
from benchmarks.processes import rest_baseline, trace_store
from tunix_rt import Client, v1
from tunix_rt.importing import import_traces

COUNT: Final = 30_000
BATCH: Final = 1_000
READS: Final = 1_000
CLIENTS: Final = 8
_WARM_UP: Final = 50

Subject = Literal["tunix_rt", "rest"]
_start: Barrier | None = None


def run(options: Options) -> dict[str, Any]:
    """For each database: p50 and p99 of both, and the stream in traces and MB (10^6 bytes) a second."""
    count = options.count or COUNT
    messages = list(data.traces(options, count))
    figures: dict[str, Any] = {"count": count, "reads": READS, "repeats": options.repeats}
    for dialect in options.dialects:
        with database_server(dialect, options) as server:
            figures[dialect] = _on(server, messages, options.repeats)
    return figures


def _on(server: DatabaseServer, messages: Sequence[v1.Trace], repeats: int) -> dict[str, Any]:
    with (
        server.empty() as ours_url,
        server.empty() as peer_url,
        trace_store(ours_url) as ours,
        rest_baseline(peer_url) as peer,
    ):
        targets: dict[Subject, tuple[str, list[str]]] = {
            "rest": (peer.address, _fill_rest(peer.address, messages)),
            "tunix_rt": (ours.address, _fill_trace_store(ours.address, messages)),
        }
        found: dict[str, Any] = {}
        for clients in (1, CLIENTS):
            samples: dict[Subject, list[dict[str, float]]] = {"tunix_rt": [], "rest": []}
            for repeat in range(repeats):
                for subject in samples:
                    samples[subject].append(_latencies(subject, *targets[subject], clients, repeat))
            found[f"get_{clients}_client" + ("s" if clients > 1 else "")] = {
                subject: {name: round(median(run[name] for run in runs), 3) for name in runs[0]}
                for subject, runs in samples.items()
            }
        found["stream"] = _stream(ours.address, len(messages), repeats)
    return found


def _fill_trace_store(address: str, messages: Sequence[v1.Trace]) -> list[str]:
    with Client(address) as client:
        import_traces(client, messages, batch_size=BATCH)
        return [trace.name for trace in client.trace_store.list_traces(page_size=1_000)]


def _fill_rest(address: str, messages: Sequence[v1.Trace]) -> list[str]:
    ids: list[str] = []
    with _http(address) as client:
        for start in range(0, len(messages), BATCH):
            batch = [data.as_document(trace) for trace in messages[start : start + BATCH]]
            answer = client.post("/traces:batchCreate", json={"traces": batch}).raise_for_status()
            ids += answer.json()["ids"]
    return ids


def _latencies(
    subject: Subject, address: str, names: Sequence[str], clients: int, seed: int
) -> dict[str, float]:
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(clients)
    chosen = [
        random.Random(f"{seed} {number}").choices(names, k=READS + _WARM_UP) for number in range(clients)
    ]
    with ProcessPoolExecutor(clients, context, _share, (barrier,)) as pool:
        runs = list(pool.map(_read, [subject] * clients, [address] * clients, chosen))
    latencies = [value for run in runs for value in run]
    return {
        "p50_ms": percentile(latencies, 50) * 1000,
        "p99_ms": percentile(latencies, 99) * 1000,
        "reads_per_second": len(latencies) / max(sum(run) for run in runs),
    }


def _share(barrier: Barrier) -> None:
    global _start
    _start = barrier


def _read(subject: Subject, address: str, names: Sequence[str]) -> list[float]:
    """Seconds of each read, made in a process of its own after all have warmed up."""
    assert _start is not None
    with _reader(subject, address) as read:
        for name in names[:_WARM_UP]:
            read(name)
        _start.wait()
        seconds = []
        for name in names[_WARM_UP:]:
            begun = time.perf_counter()
            read(name)
            seconds.append(time.perf_counter() - begun)
        # Nobody leaves while others are still measuring under the load of all.
        _start.wait()
    return seconds


@contextmanager
def _reader(subject: Subject, address: str) -> Iterator[Callable[[str], object]]:
    if subject == "tunix_rt":
        with Client(address) as client:
            yield client.trace_store.get_trace
    else:
        with _http(address) as http:
            yield lambda trace_id: http.get(f"/traces/{trace_id}").raise_for_status().json()


def _http(address: str) -> httpx.Client:
    return httpx.Client(base_url=f"http://{address}", timeout=60, trust_env=False)


def _stream(address: str, count: int, repeats: int) -> dict[str, float]:
    with Client(address) as client:
        size = sum(trace.ByteSize() for trace in client.trace_store.stream_traces())
        seconds = []
        for _ in range(repeats):
            begun = time.perf_counter()
            streamed = sum(1 for _ in client.trace_store.stream_traces())
            seconds.append(time.perf_counter() - begun)
            if streamed != count:
                raise RuntimeError(f"{streamed} of {count} traces were streamed")
    return {
        "traces_per_second": round(count / median(seconds)),
        "mb_per_second": round(size / median(seconds) / 1e6, 1),
    }

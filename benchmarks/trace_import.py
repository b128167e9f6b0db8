"""Importing traces, 1,000 a call from one client, beside a REST baseline and beside what the database allows.

Each figure is the median of interleaved repeats, each in an empty database. Both clients hold their traces
ready (messages, dicts) before the clock starts, so that encoding and sending are measured and reading a file
is not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from statistics import median
from typing import Any, Final

import httpx

from benchmarks import ceilings, data
from benchmarks.databases import DatabaseServer, database_server
from benchmarks.measure import CpuMeter
from benchmarks.options import Options
from benchmarks.processes import ServerProcess, rest_baseline, trace_store
from tunix_rt import Client, v1
from tunix_rt.importing import import_traces

COUNT: Final = 30_000
BATCH: Final = 1_000

_Sample = dict[str, float]


def run(options: Options) -> dict[str, Any]:
    """For each database: traces a second, the ratio to the baseline, and CPU milliseconds a trace."""
    count = options.count or COUNT
    messages = list(data.traces(options, count))
    documents = [data.as_document(trace) for trace in messages]
    figures: dict[str, Any] = {"count": count, "batch": BATCH, "repeats": options.repeats}
    for dialect in options.dialects:
        with database_server(dialect, options) as server:
            figures[dialect] = _on(server, messages, documents, options.repeats)
    return figures


def _on(
    server: DatabaseServer, messages: Sequence[v1.Trace], documents: Sequence[dict[str, Any]], repeats: int
) -> dict[str, Any]:
    subjects: dict[str, Callable[[], _Sample]] = {
        "tunix_rt": lambda: _served(server, trace_store, lambda at: _import(at, messages), len(messages)),
        "rest": lambda: _served(server, rest_baseline, lambda at: _post(at, documents), len(documents)),
        "rest_refresh": lambda: _served(
            server, _rest_refresh, lambda at: _post(at, documents), len(documents)
        ),
        "executemany": lambda: _alone(server, ceilings.executemany_seconds, documents),
    }
    if server.dialect == "postgresql":
        subjects["copy"] = lambda: _alone(server, ceilings.copy_seconds, documents)
        subjects["validate_and_copy"] = lambda: _alone(server, ceilings.validate_and_copy_seconds, documents)
    samples: dict[str, list[_Sample]] = {name: [] for name in subjects}
    for _ in range(repeats):
        for name, measure in subjects.items():
            samples[name].append(measure())
    found: dict[str, Any] = {name: _medians(runs) for name, runs in samples.items()}
    if server.version:
        found["server_version"] = server.version
    for peer in ("rest", "rest_refresh"):
        ratio = found["tunix_rt"]["traces_per_second"] / found[peer]["traces_per_second"]
        found[f"ratio_to_{peer}"] = round(ratio, 2)
    return found


def _rest_refresh(database_url: str) -> AbstractContextManager[ServerProcess]:
    return rest_baseline(database_url, "--refresh")


def _served(
    server: DatabaseServer,
    serve: Callable[[str], AbstractContextManager[ServerProcess]],
    send: Callable[[ServerProcess], None],
    count: int,
) -> _Sample:
    with server.empty() as url, serve(url) as process:
        meter = CpuMeter(process.process, server.process)
        begun = time.perf_counter()
        send(process)
        seconds = time.perf_counter() - begun
        cpu = meter.milliseconds(count)
    return {
        "traces_per_second": round(count / seconds),
        **{f"cpu_ms_{name}": value for name, value in cpu.items()},
        "cpu_ms": round(sum(cpu.values()), 4),
    }


def _alone(
    server: DatabaseServer,
    seconds: Callable[[str, Sequence[dict[str, Any]], int], float],
    documents: Sequence[dict[str, Any]],
) -> _Sample:
    with server.empty() as url:
        return {"traces_per_second": round(len(documents) / seconds(url, documents, BATCH))}


def _import(server: ServerProcess, messages: Sequence[v1.Trace]) -> None:
    with Client(server.address) as client:
        result = import_traces(client, messages, batch_size=BATCH)
    if result.created != len(messages):
        raise RuntimeError(f"{result.created} of {len(messages)} traces were stored")


def _post(server: ServerProcess, documents: Sequence[dict[str, Any]]) -> None:
    created = 0
    with httpx.Client(base_url=f"http://{server.address}", timeout=60, trust_env=False) as client:
        for start in range(0, len(documents), BATCH):
            answer = client.post("/traces:batchCreate", json={"traces": documents[start : start + BATCH]})
            answer.raise_for_status()
            created += len(answer.json()["ids"])
    if created != len(documents):
        raise RuntimeError(f"{created} of {len(documents)} traces were stored")


def _medians(samples: Sequence[Mapping[str, float]]) -> _Sample:
    return {name: median(sample[name] for sample in samples) for name in samples[0]}

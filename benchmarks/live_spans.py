"""Spans of OpenTelemetry, sent at an even rate by several applications while the store makes conversations.

The spans are those of agents' runs: a root, four calls of a model with all that was said before, three tools
and two requests of HTTP. Applications are as many connections; each sends requests of 50 spans, of runs that
begin and end within it or go on in the next one. A request's time counts from the moment when it was to be
sent, so that one which waits behind another is not told as fast.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from statistics import median
from typing import Any, Final

import psutil
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from benchmarks.databases import DatabaseServer, database_server
from benchmarks.measure import CpuMeter, percentile
from benchmarks.options import Options
from benchmarks.processes import ServerProcess, trace_store
from tunix_rt import Client
from tunix_rt.wire import open_channel

SPANS_A_SECOND: Final = 2_000
SECONDS: Final = 20
REQUEST: Final = 50
APPLICATIONS: Final = 4
CALLS: Final = 4
SPANS_A_RUN: Final = 1 + 2 * CALLS + 1
_SETTLED_S: Final = 60.0


def run(options: Options) -> dict[str, Any]:
    """For each database: milliseconds of a request, and CPU microseconds of the server for a span, with
    the making of conversations; ``--count`` is the number of spans, at 2,000 a second."""
    count = options.count or SPANS_A_SECOND * SECONDS
    runs = max(1, count // SPANS_A_RUN)
    figures: dict[str, Any] = {"spans": runs * SPANS_A_RUN, "spans_a_second": SPANS_A_SECOND}
    figures |= {"spans_a_request": REQUEST, "repeats": options.repeats}
    for dialect in options.dialects:
        with database_server(dialect, options) as server:
            samples = [_sample(server, runs) for _ in range(options.repeats)]
        figures[dialect] = {name: median(sample[name] for sample in samples) for name in samples[0]}
    return figures


def _sample(server: DatabaseServer, runs: int) -> dict[str, float]:
    requests = list(_requests(runs, random.Random(1)))
    with server.empty() as url, trace_store(url) as store:
        cores = os.sched_getaffinity(0)
        # The server has one core; the senders and the database have the others.
        with suppress(psutil.Error, IndexError):
            store.process.cpu_affinity([max(cores)])
            if len(cores) > 1:
                psutil.Process().cpu_affinity(sorted(cores)[:-1])
        try:
            return _measured(server, store, requests, runs)
        finally:
            psutil.Process().cpu_affinity(sorted(cores))


def _measured(
    server: DatabaseServer, store: ServerProcess, requests: Sequence[bytes], runs: int
) -> dict[str, float]:
    meter = CpuMeter(store.process, server.process)
    begun = time.perf_counter() + 0.5
    with ThreadPoolExecutor(APPLICATIONS) as pool:
        sent = [pool.submit(_send, store.address, requests, number, begun) for number in range(APPLICATIONS)]
        times = [seconds for sending in sent for seconds in sending.result()]
    seconds = time.perf_counter() - begun
    _wait_for_conversations(store.address, runs)
    cpu = meter.milliseconds(runs * SPANS_A_RUN)
    return {
        "spans_per_second": round(runs * SPANS_A_RUN / seconds),
        **{f"export_p{percent}_ms": round(percentile(times, percent) * 1000, 1) for percent in (50, 95, 99)},
        "export_max_ms": round(max(times) * 1000, 1),
        **{f"cpu_us_{name}": round(value * 1000, 1) for name, value in cpu.items() if name != "client"},
    }


def _send(address: str, requests: Sequence[bytes], first: int, begun: float) -> list[float]:
    """Send every so manieth request when it is due; returns how long each took."""
    times = []
    with open_channel(address) as channel:
        export = channel.unary_unary("/opentelemetry.proto.collector.trace.v1.TraceService/Export")
        for at in range(first, len(requests), APPLICATIONS):
            due = begun + at * REQUEST / SPANS_A_SECOND
            time.sleep(max(0.0, due - time.perf_counter()))
            export(requests[at])
            times.append(time.perf_counter() - due)
    return times


def _wait_for_conversations(address: str, runs: int) -> None:
    end = time.monotonic() + _SETTLED_S
    with Client(address) as client:
        while time.monotonic() < end:
            newest = next(iter(client.trace_store.list_traces(page_size=1)), None)
            if newest is not None and newest.sequence >= runs:
                return
            time.sleep(0.5)
    raise RuntimeError(f"{runs} runs were sent, and fewer conversations made of them")


def _requests(runs: int, random_: random.Random) -> Iterator[bytes]:
    """The spans of all runs as they end, the first request half full so that runs go on in the next one."""
    spans = [span for number in range(runs) for span in _run(number, random_)]
    for start in range(-REQUEST // 2, len(spans), REQUEST):
        scope = ScopeSpans(spans=spans[max(0, start) : start + REQUEST])
        of_resource = ResourceSpans(scope_spans=[scope])
        of_resource.resource.attributes.append(_attribute("service.name", "agents"))
        yield ExportTraceServiceRequest(resource_spans=[of_resource]).SerializeToString()


_SENTENCE: Final = "the order was sent on and arrives by noon if rain holds off so we ask again for its date"
_WORDS: Final = _SENTENCE.split(" ")
_TOOL: Final = {
    "type": "function",
    "name": "look_up",
    "description": "Looks an order up by its number.",
    "parameters": {"type": "object", "properties": {"number": {"type": "string"}}, "required": ["number"]},
}


def _run(number: int, random_: random.Random) -> Iterator[Span]:
    """The spans of one run of an agent, those inside others first."""

    def words(count: int) -> str:
        return " ".join(random_.choices(_WORDS, k=count))

    def span(index: int, attributes: dict[str, str], parent: int = 1) -> Span:
        start = (number * SPANS_A_RUN + index) * 1_000_000
        return Span(
            trace_id=random_id,
            span_id=index.to_bytes(8, "big"),
            parent_span_id=parent.to_bytes(8, "big") if parent else b"",
            start_time_unix_nano=start,
            end_time_unix_nano=start + 900_000,
            attributes=[_attribute(key, value) for key, value in attributes.items()],
        )

    random_id = random_.randbytes(16)
    said: list[dict[str, Any]] = [_message("system", words(60)), _message("user", f"{number}: {words(25)}")]
    for call in range(CALLS):
        last = call == CALLS - 1
        used = {
            "type": "tool_call",
            "id": f"call-{call}",
            "name": "look_up",
            "arguments": {"number": words(2)},
        }
        answer = _message("assistant", words(50)) if last else {"role": "assistant", "parts": [used]}
        attributes = {
            "gen_ai.operation.name": "chat",
            "gen_ai.request.model": "model-1",
            "gen_ai.input.messages": json.dumps(said),
            "gen_ai.output.messages": json.dumps([answer]),
            "gen_ai.tool.definitions": json.dumps([_TOOL]),
        }
        yield span(2 * call + 2, attributes)
        result = {"type": "tool_call_response", "id": f"call-{call}", "response": words(80)}
        said += [answer, {"role": "tool", "parts": [result]}]
        inner = {"http.request.method": "POST"} if last else {"gen_ai.operation.name": "execute_tool"}
        yield span(2 * call + 3, inner)
    yield span(2 * CALLS + 2, {"http.request.method": "GET"})
    yield span(1, {"gen_ai.operation.name": "invoke_agent"}, 0)


def _message(role: str, content: str) -> dict[str, Any]:
    return {"role": role, "parts": [{"type": "text", "content": content}]}


def _attribute(key: str, value: str) -> KeyValue:
    return KeyValue(key=key, value=AnyValue(string_value=value))

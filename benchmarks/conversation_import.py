"""Importing conversations of ten messages, 1,000 a call from one client, beside traces of one answer.

Each figure is the median of interleaved repeats, each in an empty database, and each client holds its traces
ready, as in ``trace-import``. The first form's traces have about as much text as a conversation.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any, Final

from benchmarks.databases import DatabaseServer, database_server
from benchmarks.measure import CpuMeter
from benchmarks.options import Options
from benchmarks.processes import trace_store
from tunix_rt import Client, v1
from tunix_rt.importing import import_traces

COUNT: Final = 20_000
BATCH: Final = 1_000
MESSAGES: Final = 10
_TOOL: Final = json.dumps(
    {
        "type": "function",
        "function": {
            "name": "look_up",
            "description": "Looks an order up by its number.",
            "parameters": {"type": "object", "properties": {"number": {"type": "integer"}}},
        },
    }
)
_SENTENCE: Final = "we sent your order on Monday and it is at the door by noon unless rain holds the driver"
_WORDS: Final = _SENTENCE.split(" ")


def run(options: Options) -> dict[str, Any]:
    """For each database: messages a second, and CPU microseconds of each side for a message."""
    count = options.count or COUNT
    conversations = list(_conversations(count, random.Random(1)))
    figures: dict[str, Any] = {"conversations": count, "messages": MESSAGES, "repeats": options.repeats}
    figures["bytes_a_conversation"] = round(sum(trace.ByteSize() for trace in conversations) / count)
    for dialect in options.dialects:
        with database_server(dialect, options) as server:
            samples = [_sample(server, conversations) for _ in range(options.repeats)]
        figures[dialect] = {name: median(sample[name] for sample in samples) for name in samples[0]}
    return figures


def _sample(server: DatabaseServer, conversations: Sequence[v1.Trace]) -> dict[str, float]:
    messages = len(conversations) * MESSAGES
    with server.empty() as url, trace_store(url) as store, Client(store.address) as client:
        meter = CpuMeter(store.process, server.process)
        begun = time.perf_counter()
        result = import_traces(client, conversations, batch_size=BATCH)
        seconds = time.perf_counter() - begun
        cpu = meter.milliseconds(messages)
    if result.created != len(conversations):
        raise RuntimeError(f"{result.created} of {len(conversations)} conversations were stored")
    return {
        "messages_per_second": round(messages / seconds),
        **{f"cpu_us_{name}": round(value * 1000, 1) for name, value in cpu.items()},
    }


def _conversations(count: int, random_: random.Random) -> Iterator[v1.Trace]:
    """Conversations that all differ: a user, an assistant and a tool, of 40 words a message."""

    def message(role: v1.Message.Role, **fields: Any) -> v1.Message:
        text = v1.ContentPart(type="text", text=" ".join(random_.choices(_WORDS, k=40)))
        return v1.Message(role=role, content=[text], **fields)

    for number in range(count):
        trace = v1.Trace(trace_version="1.0", source="bench", tools=[v1.Tool(definition_text=_TOOL)])
        trace.metadata.fields["number"].number_value = number
        for turn in range(3):
            trace.messages.append(message(v1.Message.ROLE_USER))
            if turn < 2:
                call = v1.ToolCall(id=f"call-{turn}", name="look_up")
                call.arguments_text = json.dumps({"number": number})
                trace.messages.append(v1.Message(role=v1.Message.ROLE_ASSISTANT, tool_calls=[call]))
                trace.messages.append(message(v1.Message.ROLE_TOOL, tool_call_id=call.id))
            trace.messages.append(message(v1.Message.ROLE_ASSISTANT))
        yield trace

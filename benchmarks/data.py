"""The traces that are measured with."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

from benchmarks.options import Options
from tunix_rt import v1
from tunix_rt.formats import read_traces, trace_from_json, trace_to_json
from tunix_rt.generate import capacity, generate_traces

# Traces that come from one of ten sources in turn, so that a filter keeps one in ten wherever a page stands.
SOURCES: Final = 10
_NUMBER: Final = re.compile(r"\d+")


def traces(options: Options, count: int) -> Iterator[v1.Trace]:
    """``count`` traces that all differ: each has its number in the metadata, and one of ten sources.

    Raises ValueError if the file of the options holds none.
    """
    rows = _rows(options, count)
    for number in range(count):
        trace = v1.Trace()
        trace.CopyFrom(rows[number % len(rows)])
        trace.source = f"bench-{number % SOURCES}"
        trace.metadata.fields["number"].number_value = number
        trace.metadata.fields["tenth"].number_value = number % SOURCES
        yield trace


def variants(options: Options, count: int) -> Iterator[v1.Trace]:
    """``count`` traces of different prompts: those of the data again and again, with another first number.

    Raises ValueError if the file of the options holds none.
    """
    rows = _rows(options, count)
    for number in range(count):
        trace = v1.Trace()
        trace.CopyFrom(rows[number % len(rows)])
        turn = number // len(rows)
        if turn:
            trace.prompt = _with_first_number_raised(trace.prompt, turn)
            trace.final_answer += f" ({turn})"
        yield trace


def _with_first_number_raised(text: str, by: int) -> str:
    return _NUMBER.sub(lambda found: str(int(found[0]) + by), text, count=1)


def as_document(trace: v1.Trace) -> dict[str, Any]:
    """The trace as a REST client holds it."""
    document: dict[str, Any] = json.loads(trace_to_json(trace))
    return document


def _rows(options: Options, count: int) -> list[v1.Trace]:
    if options.data is not None:
        rows = list(read_traces(options.data))
        if not rows:
            raise ValueError(f"{options.data} holds no traces")
        return rows
    # As many as GSM8K's training set has.
    distinct = min(count, 7_473, capacity())
    return [trace_from_json(trace.to_json()) for trace in generate_traces(distinct, seed=1)]

"""`tunix-rt traces generate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from google.protobuf.json_format import ParseDict

from tunix_rt import v1
from tunix_rt.cli import text
from tunix_rt.cli.command import command
from tunix_rt.cli.files import write_lines
from tunix_rt.cli.problem_options import ProblemOptions
from tunix_rt.cli.session import Session
from tunix_rt.cli.traces.app import app
from tunix_rt.cli.traces.storing import Duplicates, DuplicatesOption, say_result, store
from tunix_rt.formats import trace_to_json


@command(
    app,
    "generate",
    example=(
        "tunix-rt traces generate --count 512 --seed 7",
        "tunix-rt traces generate --count 100 --difficulty easy -o traces.jsonl",
    ),
)
def generate(
    session: Session,
    problems: ProblemOptions,
    count: Annotated[int, typer.Option("--count", "-n", min=1, max=1_000_000, help="How many traces.")] = 512,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write JSON lines here (- for stdout) instead of storing."),
    ] = None,
    duplicates: DuplicatesOption = Duplicates.SKIP,
) -> None:
    """Make arithmetic and word problems with correct steps, and store them."""
    traces = (ParseDict(trace.to_dict(), v1.Trace()) for trace in problems.generated(count))
    if output is not None:
        written = write_lines(output, (trace_to_json(trace) for trace in traces))
        if str(output) != "-":
            session.say(f"{text.counted(written, 'trace')} written to {output}")
        return
    with session.connect() as client:
        result = store(session, client, traces, count, duplicates)
    say_result(session, result)

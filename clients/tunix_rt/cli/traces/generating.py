"""`tunix-rt traces generate`."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from google.protobuf.json_format import ParseDict

from tunix_rt import v1
from tunix_rt.cli import text
from tunix_rt.cli.command import command
from tunix_rt.cli.files import write_lines
from tunix_rt.cli.session import Session
from tunix_rt.cli.traces.app import app
from tunix_rt.cli.traces.storing import Duplicates, DuplicatesOption, say_result, store
from tunix_rt.formats import trace_to_json
from tunix_rt.generate import generate_traces


class Difficulty(StrEnum):
    """How hard generated problems are."""

    EASY = "easy"
    MEDIUM = "medium"
    HARD = "hard"


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
    count: Annotated[int, typer.Option("--count", "-n", min=1, max=1_000_000, help="How many traces.")] = 512,
    seed: Annotated[int, typer.Option("--seed", min=0, help="The same seed gives the same traces.")] = 0,
    families: Annotated[
        list[str] | None,
        typer.Option("--families", help="Kinds of problem, joined by commas. Left out: all."),
    ] = None,
    difficulty: Annotated[
        Difficulty, typer.Option("--difficulty", help="How hard they are.")
    ] = Difficulty.EASY,
    start: Annotated[
        int,
        typer.Option("--start", min=0, help="Leave out this many: what follows shares no prompt with them."),
    ] = 0,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write JSON lines here (- for stdout) instead of storing."),
    ] = None,
    duplicates: DuplicatesOption = Duplicates.SKIP,
) -> None:
    """Make arithmetic and word problems with correct steps, and store them."""
    traces = _generated(count, seed, families, difficulty, start)
    if output is not None:
        written = write_lines(output, (trace_to_json(trace) for trace in traces))
        if str(output) != "-":
            session.say(f"{text.counted(written, 'trace')} written to {output}")
        return
    with session.connect() as client:
        result = store(session, client, traces, count, duplicates)
    say_result(session, result)


def _generated(
    count: int, seed: int, families: list[str] | None, difficulty: Difficulty, start: int
) -> Iterator[v1.Trace]:
    names = [name.strip() for given in families or () for name in given.split(",")]
    try:
        traces = generate_traces(
            count, seed, families=names or None, difficulty=difficulty.value, start=start
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    return (ParseDict(trace.to_dict(), v1.Trace()) for trace in traces)

"""`tunix-rt traces export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tunix_rt.cli import text
from tunix_rt.cli.command import command
from tunix_rt.cli.files import output_stream
from tunix_rt.cli.filter_options import FilterOptions
from tunix_rt.cli.session import Session
from tunix_rt.cli.traces.app import app
from tunix_rt.formats import compressing, trace_to_json

_EVERY = 500


@command(
    app,
    "export",
    example=(
        "tunix-rt traces export -o traces.jsonl.zst",
        "tunix-rt traces export --source gsm8k --as-of 7473 -o gsm8k.jsonl.gz",
        "tunix-rt traces export | wc -l",
    ),
)
def export(
    session: Session,
    wanted: FilterOptions,
    as_of: Annotated[int, typer.Option("--as-of", min=0, help="A snapshot; 0: the newest.")] = 0,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Where to; .gz and .zst are compressed, - is stdout."),
    ] = Path("-"),
) -> None:
    """Write the traces of a snapshot as JSON lines, in the order in which they were stored.

    What is written can be imported again, to the same content digests. A file appears whole or not at all.
    """
    condition = wanted.filter()
    to_stdout = str(output) == "-"
    with session.connect() as client, session.progress() as progress:
        with output_stream(output) as stream, compressing(stream, output) as file:
            found = client.trace_store.stream_traces(filter=condition, as_of=as_of)
            snapshot = found.as_of
            bar = progress.bar("writing traces", None, "traces")
            written = 0
            for trace in found:
                file.write(trace_to_json(trace).encode() + b"\n")
                written += 1
                if written % _EVERY == 0:
                    bar.update(written)
        bar.update(written)
        bar.finish()
    if to_stdout:
        return
    if session.as_json:
        session.print_json({"as_of": snapshot, "traces": written, "file": str(output)})
    else:
        line = f"{text.counted(written, 'trace')} of snapshot {snapshot} written to {output}"
        session.out.print(line, markup=False, soft_wrap=True)

"""`tunix-rt loop`: run a loop from a YAML file, traces in, comparison report out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tunix_rt.cli.command import command, group
from tunix_rt.cli.loop_view import print_result, result_document, run_with_progress
from tunix_rt.cli.session import Session
from tunix_rt.loop import LoopConfig

app = group("Run a loop from a YAML file: traces in, comparison report out.")


@command(
    app,
    "run",
    example=("tunix-rt loop run loop.yaml", "tunix-rt loop run loop.yaml --server localhost:50050"),
)
def run(
    session: Session,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The loop's settings, YAML.")],
    output_dir: Annotated[
        Path | None,
        typer.Option(
            "--output-dir", "-o", metavar="DIR", help="Write reports here instead of where FILE says."
        ),
    ] = None,
    flips: Annotated[
        int, typer.Option("--flips", min=0, help="Items shown whose verdict changed, each way.")
    ] = 3,
) -> None:
    """Run a loop; run again after an interruption, it goes on where it stopped."""
    config = LoopConfig.from_yaml(file)
    if output_dir is not None:
        config = config.model_copy(update={"output_dir": output_dir})
    with session.connect() as client:
        result = run_with_progress(session, client, config, server=session.server)
    if session.as_json:
        session.print_json(result_document(result))
    else:
        print_result(session.out, result, flips=flips)

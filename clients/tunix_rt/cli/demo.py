"""`tunix-rt demo`: a whole loop on generated traces and a real model, on this computer."""

from __future__ import annotations

import shutil
import time
from importlib import resources
from pathlib import Path
from typing import Annotated

import typer

from tunix_rt.cli import text
from tunix_rt.cli.command import command, single
from tunix_rt.cli.loops import LoopDocument, print_result, result_document, run_with_progress
from tunix_rt.cli.options import FlipsOption
from tunix_rt.cli.session import Session
from tunix_rt.cli.this_computer import pull_with_progress
from tunix_rt.errors import FailedPreconditionError
from tunix_rt.files import write_atomically
from tunix_rt.loop import LoopConfig

demo_app = single()

# Tells a folder that the demo made from one that it must not delete.
_MARK = ".tunix-rt-demo"
_CONFIG = "demo.yaml"
_DATA = "data"
_MODELS = "models"


@command(
    demo_app,
    "demo",
    example=("tunix-rt demo", "tunix-rt demo --fresh --output ./demo-2"),
    prints=LoopDocument,
)
def demo(
    session: Session,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            help="Folder of the reports; the server's data goes into its subfolder data.",
        ),
    ] = Path("demo-output"),
    fresh: Annotated[
        bool,
        typer.Option("--fresh", help="Delete what the demo made before, except base models, and start over."),
    ] = False,
    flips: FlipsOption = 3,
) -> None:
    """Fine-tune SmolLM2-135M on generated traces, on this computer, and show that it got better.

    Run it again after an interruption, and it continues where it stopped.
    """
    if session.given.server is not None:
        raise typer.BadParameter("the demo runs on this computer; for a server use: tunix-rt loop run FILE")
    data_dir = (session.given.data_dir or output / _DATA).expanduser().absolute()
    if fresh:
        _start_afresh(output, data_dir)
    _prepare(output)
    _prepare(data_dir)
    write_atomically(output / _CONFIG, resources.files("tunix_rt.data").joinpath(_CONFIG).read_bytes())
    config = LoopConfig.from_yaml(output / _CONFIG).model_copy(update={"output_dir": output})
    begun = time.monotonic()
    pull_with_progress(session, config.training.base_model, data_dir)
    pulled = time.monotonic() - begun
    with session.embedded_client(data_dir) as client:
        result = run_with_progress(session, client, config, server=None)
    if session.as_json:
        document = result_document(result)
        document["stage_seconds"] = {"model": round(pulled, 3), **document["stage_seconds"]}
        session.print_json(document)
        return
    print_result(session.out, result, flips=flips)
    session.out.print(f"settings: {output / _CONFIG}", highlight=False, soft_wrap=True)
    session.out.print(f"base model ready after {text.duration(pulled)}", highlight=False)
    session.out.print(
        f"look around: tunix-rt evaluation list --data-dir {data_dir}", highlight=False, soft_wrap=True
    )


def _prepare(folder: Path) -> None:
    """Make the folder, and mark it as the demo's own if it was not there or empty."""
    folder.mkdir(parents=True, exist_ok=True)
    if not any(folder.iterdir()):
        (folder / _MARK).touch()


def _start_afresh(output: Path, data_dir: Path) -> None:
    """Delete what the demo made before, except base models.

    Raises FailedPreconditionError, with nothing deleted, for a folder that the demo did not make and for one
    that a running server uses.
    """
    folders = {output: _DATA, data_dir: _MODELS}
    for folder in folders:
        if folder.exists() and any(folder.iterdir()) and not (folder / _MARK).exists():
            raise FailedPreconditionError(
                f"{folder} was not made by the demo, so --fresh does not delete it; choose another folder",
                reason="FOLDER_NOT_OWN",
            )
    import tunix_rt_local

    tunix_rt_local.require_free(data_dir)
    for folder, kept in folders.items():
        if folder.exists():
            _clear(folder, kept)


def _clear(folder: Path, kept: str) -> None:
    for entry in folder.iterdir():
        if entry.name in (_MARK, kept):
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()

"""Traces on their way into the store, as `import` and `generate` show it."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from tunix_rt import Client, v1
from tunix_rt.cli import text
from tunix_rt.cli.session import Session
from tunix_rt.cli.traces.bad_lines import BadLines
from tunix_rt.importing import ImportResult, ImportStoppedError, import_traces


class Duplicates(StrEnum):
    """What becomes of a trace whose content is stored already."""

    SKIP = "skip"
    KEEP = "keep"


DuplicatesOption = Annotated[
    Duplicates, typer.Option("--duplicates", help="Traces whose content is stored already.")
]


def store(
    session: Session,
    client: Client,
    traces: Iterable[v1.Trace],
    total: int | None,
    duplicates: Duplicates,
    bad: BadLines | None = None,
) -> ImportResult:
    """Stores traces with a progress bar; ``bad`` takes those that the server refuses.

    Raises ImportStoppedError.
    """
    with session.progress() as progress:
        bar = progress.bar("storing traces", total, "traces")

        def show(so_far: ImportResult) -> None:
            if bad is not None:
                bad.answered(so_far)
            bar.update(so_far.read)

        try:
            result = import_traces(
                client,
                traces,
                duplicate_policy=duplicates.value,
                on_progress=show,
                on_refused=bad.refused if bad is not None else None,
            )
        except ImportStoppedError as stopped:
            bar.stop("stopped")
            # These count from the first trace of a batch; the message counts from the first of all.
            stopped.field_violations.clear()
            raise
        bar.finish()
    return result


def say_result(session: Session, result: ImportResult, bad: int = 0, errors: Path | None = None) -> None:
    """What became of the lines; ``bad`` of them were left out and stand in ``errors``."""
    read = result.read - result.refused + bad
    if session.as_json:
        document = {"read": read, "created": result.created, "skipped": result.skipped}
        session.print_json(document | ({"bad": bad} if errors else {}))
        return
    line = (
        f"{text.counted(read, 'trace')} read, {text.count(result.created)} stored, "
        f"{text.count(result.skipped)} skipped as stored already"
    )
    if bad:
        line += f", {text.count(bad)} bad: see {errors}"
    session.out.print(line, markup=False, soft_wrap=True)

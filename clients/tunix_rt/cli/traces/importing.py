"""`tunix-rt traces import`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import StrEnum
from itertools import chain
from pathlib import Path
from typing import Annotated

import typer

from tunix_rt import v1
from tunix_rt.cli.command import command
from tunix_rt.cli.session import Session
from tunix_rt.cli.traces.app import app
from tunix_rt.cli.traces.bad_lines import BadLines
from tunix_rt.cli.traces.storing import Duplicates, DuplicatesOption, say_result, store
from tunix_rt.formats import (
    FormatError,
    Record,
    is_compressed,
    is_parquet,
    name_of,
    read_records,
    row_count,
)


class Format(StrEnum):
    """What the lines of a file hold."""

    AUTO = "auto"
    NATIVE = "native"
    GSM8K = "gsm8k"
    CHAT = "chat"
    DATASET = "dataset"
    PARQUET = "parquet"


class OnError(StrEnum):
    """What a bad line does."""

    STOP = "stop"
    SKIP = "skip"


@command(
    app,
    "import",
    example=(
        "tunix-rt traces import traces.jsonl.zst",
        "tunix-rt traces import chats.jsonl --on-error skip --errors bad.jsonl",
        "tunix-rt traces import sums.parquet --column prompt=problem --column steps=solution "
        "--column final_answer=answer",
        "zcat traces.jsonl.gz | tunix-rt traces import -",
    ),
)
def import_(
    session: Session,
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE", help="JSON lines, may be compressed by gzip or Zstandard; Parquet; - is stdin."
        ),
    ],
    format: Annotated[
        Format, typer.Option("--format", "-f", help="What its lines or rows hold.")
    ] = Format.AUTO,
    column: Annotated[
        list[str] | None,
        typer.Option(
            "--column", metavar="FIELD=COLUMN", help="Parquet: the column of a field (may be repeated)."
        ),
    ] = None,
    duplicates: DuplicatesOption = Duplicates.SKIP,
    on_error: Annotated[
        OnError, typer.Option("--on-error", help="What becomes of an import with a bad line.")
    ] = OnError.STOP,
    errors: Annotated[
        Path | None,
        typer.Option(
            "--errors", metavar="FILE", help="Where skipped lines go: mend them there, and import FILE."
        ),
    ] = None,
) -> None:
    """Store the traces of a file.

    Exit code 0: all lines are stored, or, with `--on-error skip`, the good ones. 1: it stopped, or there was
    no good line.
    """
    _check_errors_file(on_error, errors)
    records = _begun(read_records(file, format.value, columns=_mapping(column or ())), file)
    total = _total(file)
    if errors is None:
        with session.connect() as client:
            result = store(session, client, _good(records), total, duplicates)
        say_result(session, result)
        return
    with BadLines(errors) as bad, session.connect() as client:
        result = store(session, client, bad.traces(records), total, duplicates, bad)
    if result.read == result.refused:
        raise FormatError(0, f"has no good line; {errors} says what is wrong with each", file=name_of(file))
    say_result(session, result, bad.count, errors)


def _begun(records: Iterator[Record], file: str) -> Iterator[Record]:
    """The records, the first of which was read: a file that is wrong as a whole is known before all else."""
    first = next(records, None)
    if first is None:
        raise FormatError(0, "holds no traces", file=name_of(file))
    return chain((first,), records)


def _good(records: Iterable[Record]) -> Iterator[v1.Trace]:
    for record in records:
        if record.trace is None:
            raise record.error or FormatError(record.number, "holds no trace")
        yield record.trace


def _mapping(given: Iterable[str]) -> dict[str, str]:
    """The column of each field."""
    found: dict[str, str] = {}
    for text in given:
        field, equals, column = text.partition("=")
        if not (field and equals and column):
            raise typer.BadParameter(f"--column takes FIELD=COLUMN, such as prompt=question, not {text!r}")
        if field in found:
            raise typer.BadParameter(f"--column gives {field} twice: {found[field]} and {column}")
        found[field] = column
    return found


def _check_errors_file(on_error: OnError, errors: Path | None) -> None:
    if on_error is OnError.STOP:
        if errors is not None:
            raise typer.BadParameter("--errors goes with --on-error skip")
    elif errors is None or str(errors) == "-":
        raise typer.BadParameter("--on-error skip needs --errors FILE for the lines that are left out")
    elif errors.is_file() and errors.stat().st_size:
        raise typer.BadParameter(f"--errors {errors} is there already; give another file, or delete it")


def _total(file: str) -> int | None:
    """Number of rows or lines of a regular file; None when it cannot be told without reading it all."""
    path = Path(file)
    if not path.is_file():
        return None
    if is_parquet(file):
        return row_count(file)
    with path.open("rb") as stream:
        if is_compressed(stream):
            return None
        return sum(block.count(b"\n") for block in iter(lambda: stream.read(1 << 20), b"")) or None

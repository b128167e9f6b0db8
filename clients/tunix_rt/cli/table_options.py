"""Options of commands that read tables: which column holds which field, and what separates the cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer


@dataclass(frozen=True)
class TableOptions:
    """How the cells of a file are told apart and named."""

    column: Annotated[
        list[str] | None,
        typer.Option(
            "--column",
            metavar="FIELD=COLUMN",
            help="CSV, TSV, Parquet: the column of a field; prompt-completion: its key (may be repeated).",
        ),
    ] = None
    delimiter: Annotated[
        str | None,
        typer.Option(
            "--delimiter",
            metavar="CHAR",
            help="CSV, TSV: what separates cells, such as ';' or tab. \\[default: a comma, for TSV a tab]",
        ),
    ] = None

    def columns(self) -> dict[str, str]:
        """The column of each field; raises typer.BadParameter."""
        found: dict[str, str] = {}
        for pair in self.column or ():
            field, equals, column = pair.partition("=")
            if not (field and equals and column):
                raise typer.BadParameter(
                    f"--column takes FIELD=COLUMN, such as prompt=question, not {pair!r}"
                )
            if field in found:
                raise typer.BadParameter(f"--column gives {field} twice: {found[field]} and {column}")
            found[field] = column
        return found

    def character(self) -> str | None:
        """The character that parts cells; raises typer.BadParameter."""
        given = self.delimiter
        delimiter = {"tab": "\t", "\\t": "\t"}.get(given or "", given)
        if delimiter is not None and (len(delimiter) != 1 or delimiter in '"\r\n' or ord(delimiter) > 0x7F):
            raise typer.BadParameter(f"--delimiter takes one ASCII character, or tab, not {given!r}")
        return delimiter

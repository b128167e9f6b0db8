"""The look of tables and fact sheets, the same for every command."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC

from google.protobuf.timestamp_pb2 import Timestamp
from rich import box
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from tunix_rt import v1
from tunix_rt.cli import text

_STATE_STYLES = {
    "SUCCEEDED": "green",
    "FAILED": "bold red",
    "CANCELLED": "yellow",
    "CANCELLING": "yellow",
    "RUNNING": "cyan",
    "QUEUED": "dim",
}


def table(*columns: str) -> Table:
    """A table with these headings.

    One that begins with `>` is a column of figures; one that begins with `~` folds long texts.
    """
    made = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for column in columns:
        if column.startswith("~"):
            made.add_column(column[1:], overflow="fold")
        elif column.startswith(">"):
            made.add_column(column[1:], justify="right", no_wrap=True)
        else:
            made.add_column(column, overflow="ellipsis", no_wrap=True)
    return made


def add_row(made: Table, *cells: str | Text) -> None:
    """A row whose strings stand as they are: no markup is read in them."""
    made.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in cells))


def print_table(console: Console, made: Table, none: str) -> None:
    """The table, or the line ``none`` when it has no row."""
    if made.row_count:
        console.print(made)
    else:
        console.print(none, markup=False, highlight=False)


def facts(rows: Iterable[tuple[str, RenderableType]]) -> Table:
    """A sheet of names and values; rows with an empty value are left out."""
    sheet = Table.grid(padding=(0, 2))
    sheet.add_column(style="bold")
    sheet.add_column(overflow="fold")
    for name, value in rows:
        if isinstance(value, str):
            if value:
                sheet.add_row(name, Text(value))
        else:
            sheet.add_row(name, value)
    return sheet


def state(name: str) -> Text:
    """A job's state in its colour."""
    plain = name.removeprefix("STATE_")
    return Text(plain.lower(), style=_STATE_STYLES.get(plain, ""))


def moment(stamp: Timestamp, *, known: bool = True) -> str:
    """A time in the local zone, to the second; a dash when it is not ``known``."""
    if not known:
        return "-"
    return f"{stamp.ToDatetime(tzinfo=UTC).astimezone():%Y-%m-%d %H:%M:%S}"


def stage_line(timings: Iterable[v1.StageTiming]) -> str:
    """How long each stage of a job took, on one line."""
    return ", ".join(
        f"{timing.stage} {text.duration(timing.duration.ToTimedelta().total_seconds())}" for timing in timings
    )

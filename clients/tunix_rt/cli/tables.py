"""The look of tables and fact sheets, the same for every command."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, TypeAlias

from google.protobuf.timestamp_pb2 import Timestamp
from rich import box
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from tunix_rt import v1
from tunix_rt.cli import text
from tunix_rt.escapes import visible

Row: TypeAlias = tuple[str | Text, ...]
"""The cells of a row."""
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

    One that begins with `>` is a column of figures, with `!` of short words; one that begins with `~` wraps
    long texts. Where the window is too narrow, texts are cut; figures, short words and the first column stay
    whole, so that a name can be copied.
    """
    made = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for number, column in enumerate(columns):
        if column.startswith("~"):
            made.add_column(column[1:], overflow="fold")
        elif column.startswith(">"):
            made.add_column(column[1:], justify="right", no_wrap=True)
        else:
            whole = number == 0 or column.startswith("!")
            heading = Text(column.removeprefix("!"), no_wrap=True, overflow="ellipsis")
            made.add_column(heading, overflow="ellipsis", no_wrap=whole)
    return made


def add_row(made: Table, *cells: str | Text) -> None:
    """A row whose strings stand as they are: no markup is read in them."""
    row = [cell if isinstance(cell, Text) else Text(visible(cell)) for cell in cells]
    for cell, column in zip(row, made.columns, strict=True):
        # A column that may wrap is the first to give way; its cells are cut all the same.
        cell.no_wrap = column.overflow != "fold"
        cell.overflow = column.overflow
    made.add_row(*row)


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
                sheet.add_row(visible(name), Text(visible(value)))
        else:
            sheet.add_row(visible(name), value)
    return sheet


def state(name: str) -> Text:
    """A job's state in its colour."""
    plain = name.removeprefix("STATE_")
    return Text(plain.lower(), style=_STATE_STYLES.get(plain, ""))


def moment(stamp: Timestamp) -> str:
    """A time in the local zone, to the second."""
    return f"{stamp.ToDatetime(tzinfo=UTC).astimezone():%Y-%m-%d %H:%M:%S}"


def deleted(resource: Any) -> str:
    """When a resource was deleted; empty while it is there."""
    return moment(resource.delete_time) if resource.HasField("delete_time") else ""


def age(stamp: Timestamp) -> str:
    """How long ago a time was, such as `5 min` or `3 d`."""
    return text.age((datetime.now(UTC) - stamp.ToDatetime(tzinfo=UTC)).total_seconds())


def stage_line(timings: Iterable[v1.StageTiming]) -> str:
    """How long each stage of a job took, on one line."""
    return ", ".join(
        f"{timing.stage} {text.duration(timing.duration.ToTimedelta().total_seconds())}" for timing in timings
    )

"""The look of tables and fact sheets, the same for every command."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Final, NamedTuple, TypeAlias

from google.protobuf.timestamp_pb2 import Timestamp
from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
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
_USEFUL: Final = 12
_USEFUL_WRAPPED: Final = 20
"""Cells of a text that tell what it is about, on one line and over several."""


class Brief(str):
    """A cell that has a shorter form, for windows that are too narrow for all columns."""

    brief: str

    def __new__(cls, whole: str, brief: str) -> Brief:
        """The cell ``whole``, and what stands for it where room is short."""
        made = super().__new__(cls, whole)
        made.brief = brief
        return made


class Listing:
    """Rows under headings, legible in a window of any width.

    Where the window is too narrow for all columns, the least important ones are left out whole, and a line
    below says which. Columns that say the same in every row go first: that line says what. What is written
    to a pipe or a file always has all columns.
    """

    def __init__(self, columns: Sequence[str], important: Sequence[str]) -> None:
        self._marks = ["" if column[:1] not in (">", "!", "~") else column[0] for column in columns]
        self._headings = [
            visible(column[len(mark) :]) for mark, column in zip(self._marks, columns, strict=True)
        ]
        self._rows: list[tuple[_Cell, ...]] = []
        ranks = {heading: rank for rank, heading in enumerate(important)}
        others = range(1, len(columns))
        self._ranked = sorted(others, key=lambda number: ranks.get(self._headings[number], len(ranks)))

    @property
    def row_count(self) -> int:
        """How many rows there are."""
        return len(self._rows)

    def add(self, cells: Sequence[str | Text]) -> None:
        """A row, whose strings stand as they are."""
        if len(cells) != len(self._headings):
            raise ValueError(f"{len(cells)} cells under {len(self._headings)} headings")
        self._rows.append(tuple(map(_Cell.of, cells)))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The table, and below it what is left out."""
        every = list(range(len(self._headings)))
        if not options.is_terminal:
            yield self._drawn(every, [None] * len(every), _Layout.WIDE)
            return
        layout, kept = _Layout.WIDE, every
        if not self._fit(every, layout, options.max_width):
            layout = _Layout.NARROW
            if not self._fit(every, layout, options.max_width):
                kept = self._kept(options.max_width)
        yield self._drawn(kept, self._widths(kept, layout, options.max_width), layout)
        if told := self._left_out([number for number in every if number not in kept]):
            yield Text(visible(told), style="dim")

    def _width(self, number: int, layout: _Layout) -> int:
        """The cells that a column takes where nothing of it is cut."""
        widths = [row[number].form(layout).cell_len for row in self._rows]
        return max([cell_len(self._headings[number]), *widths])

    def _least(self, number: int, layout: _Layout) -> int:
        """The width below which a column is of no use."""
        whole, mark = self._width(number, layout), self._marks[number]
        if mark in (">", "!") or (number == 0 and mark != "~"):
            return whole
        heading = cell_len(self._headings[number])
        return min(whole, max(heading, _USEFUL_WRAPPED if mark == "~" else _USEFUL))

    def _fit(self, columns: Sequence[int], layout: _Layout, room: int) -> bool:
        return sum(self._least(number, layout) for number in columns) + layout.spaces(len(columns)) <= room

    def _kept(self, room: int) -> list[int]:
        """The first column, and of the others the most important that fit; those that tell rows apart go
        before those that are the same in all."""
        others = sorted(self._ranked, key=lambda number: self._same(number) is not None)
        kept = [0]
        if others and not self._fit([0, others[0]], _Layout.NARROW, room):
            # A first column that leaves no room for any other is folded to half of the window.
            kept, room = [], room - room // 2 - 2
        for number in others:
            if self._fit([*kept, number], _Layout.NARROW, room):
                kept.append(number)
        return sorted({0, *kept})

    def _widths(self, columns: Sequence[int], layout: _Layout, window: int) -> list[int | None]:
        """What each column gets: its least, then all grow alike until the window is full."""
        whole = [self._width(number, layout) for number in columns]
        widths = [self._least(number, layout) for number in columns]
        room = window - layout.spaces(len(columns))
        if sum(widths) > room:
            widths[0] = max(1, room - sum(widths[1:]))
        for _ in range(room - sum(widths)):
            growing = [place for place, width in enumerate(widths) if width < whole[place]]
            if not growing:
                break
            widths[min(growing, key=lambda place: widths[place])] += 1
        return [*widths]

    def _same(self, number: int) -> str | None:
        """What a column says in every row, if it says the same in all."""
        said = {row[number].whole.plain for row in self._rows}
        return said.pop() if len(said) == 1 else None

    def _left_out(self, columns: Sequence[int]) -> str:
        lines = []
        same = [
            f"{self._headings[number]} {text.one_line(said, 40) or '-'}"
            for number in columns
            if (said := self._same(number)) is not None
        ]
        if same:
            lines.append(f"{'in every row' if self.row_count > 1 else 'also'}: {'; '.join(same)}")
        gone = [
            self._headings[number]
            for number in columns
            if self._same(number) is None and self._headings[number]
        ]
        if gone:
            lines.append(f"left out: {', '.join(gone)}; a wider window or --json shows them")
        return "\n".join(lines)

    def _drawn(self, columns: Sequence[int], widths: Sequence[int | None], layout: _Layout) -> Table:
        made = Table(
            box=box.SIMPLE_HEAD,
            header_style="bold",
            pad_edge=False,
            show_edge=layout is _Layout.WIDE,
            padding=(0, 1, 0, 1 if layout is _Layout.WIDE else 0),
        )
        for number, width in zip(columns, widths, strict=True):
            mark, heading = self._marks[number], self._headings[number]
            if mark == "~":
                made.add_column(heading, overflow="fold", width=width)
            elif mark == ">":
                made.add_column(heading, justify="right", no_wrap=True, width=width)
            else:
                cut = Text(heading, no_wrap=True, overflow="ellipsis")
                folded = number == 0 and width is not None and width < self._width(number, layout)
                made.add_column(
                    cut,
                    overflow="fold" if folded else "ellipsis",
                    no_wrap=not folded and (number == 0 or mark == "!"),
                    width=width,
                )
        for row in self._rows:
            cells = [row[number].form(layout).copy() for number in columns]
            for cell, column in zip(cells, made.columns, strict=True):
                # A column that may wrap is the first to give way; its cells are cut all the same.
                cell.no_wrap = column.overflow != "fold"
                cell.overflow = column.overflow
            made.add_row(*cells)
        return made


class _Layout(Enum):
    """How much stands between columns, and around the table."""

    WIDE = (3, 2)
    NARROW = (2, 0)

    def spaces(self, columns: int) -> int:
        between, around = self.value
        return between * (columns - 1) + around


class _Cell(NamedTuple):
    whole: Text
    brief: Text

    @classmethod
    def of(cls, given: str | Text) -> _Cell:
        if isinstance(given, Text):
            return cls(given, given)
        whole = Text(visible(given))
        return cls(whole, Text(visible(given.brief)) if isinstance(given, Brief) else whole)

    def form(self, layout: _Layout) -> Text:
        return self.whole if layout is _Layout.WIDE else self.brief


def table(*columns: str, important: Sequence[str] = ()) -> Listing:
    """A table with these headings.

    One that begins with `>` is a column of figures, with `!` of short words; one that begins with `~` wraps
    long texts. Where the window is too narrow, texts are cut, then columns left out; figures, short words
    and the first column stay whole, so that a name can be copied.

    Args:
        columns: the headings.
        important: which columns a narrow window shows besides the first, the most important first. After
            them come the others from left to right.
    """
    return Listing(columns, important)


def add_row(made: Listing, *cells: str | Text) -> None:
    """A row whose strings stand as they are: no markup is read in them."""
    made.add(cells)


def print_table(console: Console, made: Listing, none: str) -> None:
    """The table, or the line ``none`` when it has no row."""
    if made.row_count:
        console.print(made)
    else:
        console.print(none, markup=False, highlight=False)


def none_of(none: str, *, filtered: bool) -> str:
    """The line ``none`` of an empty list; a ``filtered`` one may leave something out."""
    return f"{none} fit these filters" if filtered else none


def facts(rows: Iterable[tuple[str, RenderableType]]) -> Table:
    """A sheet of names and values; rows with an empty value are left out."""
    sheet = Table.grid(padding=(0, 2))
    sheet.add_column(style="bold", overflow="fold")
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


def digest(found: str) -> Brief:
    """The beginning of a digest: twelve digits, or eight where room is short."""
    shown = text.short_digest(found)
    return Brief(shown, shown[:8])


def deleted(resource: Any) -> str:
    """When a resource was deleted, or how long ago where room is short; empty while it is there."""
    if not resource.HasField("delete_time"):
        return ""
    return Brief(moment(resource.delete_time), age(resource.delete_time))


def age(stamp: Timestamp) -> str:
    """How long ago a time was, such as `5 min` or `3 d`."""
    return text.age((datetime.now(UTC) - stamp.ToDatetime(tzinfo=UTC)).total_seconds())


def stage_line(timings: Iterable[v1.StageTiming]) -> str:
    """How long each stage of a job took, on one line."""
    return ", ".join(
        f"{timing.stage} {text.duration(timing.duration.ToTimedelta().total_seconds())}" for timing in timings
    )

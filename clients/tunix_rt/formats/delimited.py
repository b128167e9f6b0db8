"""CSV and TSV as RFC 4180 writes them: a header, then rows whose cells may be quoted and hold line breaks."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

from tunix_rt.errors import FormatError
from tunix_rt.formats.compression import Source, name_of, opened
from tunix_rt.formats.kinds import check_kind
from tunix_rt.formats.lines import MAX_LINE_BYTES, check_encoding, read_failures, without_marks

DELIMITERS: Final = {"csv": ",", "tsv": "\t"}
"""What parts the cells of a row, by format."""
_JSON: Final = (b"{", b"[")
_PACKED: Final = (".gz", ".zst")
_OTHERS: Final = {",": "','", ";": "';'", "\t": "tab", "|": "'|'"}
_BROKEN_BYTES: Final = re.compile("[\udc80-\udcff]")
_SHOWN: Final = 60
_NOT_UTF8: Final = (
    "holds bytes that are not UTF-8; convert the file, such as with: iconv -f WINDOWS-1252 -t UTF-8"
)


class Row(NamedTuple):
    """One row: the line where it begins, its cells, and what is wrong with it as a row, if anything is."""

    number: int
    cells: list[str]
    problem: str


def table_format(source: Source) -> str | None:
    """``csv`` or ``tsv`` where a file's name ends so, whether or not .gz or .zst follows; else None."""
    path = Path(name_of(source))
    suffix = Path(path.stem).suffix if path.suffix.lower() in _PACKED else path.suffix
    kind = suffix.lower().removeprefix(".")
    return kind if kind in DELIMITERS else None


def read_table(source: Source, delimiter: str) -> Iterator[Row]:
    """Yield the header, then each row that is not blank, in bounded memory.

    A row whose cells are not as many as the header's, or that is the header once more, has a ``problem``. A
    quote that goes wrong ends the file: where the next row begins, nobody could tell.

    Raises:
        FormatError: the source cannot be opened or read, is encoded as UTF-16 or UTF-32, has no header or one
            that names two columns alike; a quote is never closed, or stands in the middle of a quoted cell.
    """
    name = name_of(source)
    # A limit of the whole process; a longer cell than it is no trace's.
    csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE_BYTES))
    with read_failures(name), opened(source) as file:
        lines = _Lines(file, name)
        rows = csv.reader(lines, delimiter=delimiter, strict=True)
        header: list[str] = []
        while (cells := _next(rows, lines, delimiter)) is not None:
            if not any(cells) or (not header and not "".join(cells).strip()):
                continue
            if not header:
                header = _header(cells, lines.begun, name, delimiter)
                yield Row(lines.begun, header, "")
            else:
                yield Row(lines.begun, cells, _problem(cells, header, lines.broken))
    if not header:
        raise FormatError(0, "is empty; expected a line that names the columns, then rows", file=name)


class _Lines:
    """The lines of a file for the reader of rows, which knows neither their bytes nor where a row began."""

    def __init__(self, file: IO[bytes] | IO[str], name: str) -> None:
        self._file = file
        self._bytes = 0
        self._blank = True
        self.name = name
        self.broken = False
        self.number = 0
        self.begun = 1

    def begin_row(self) -> None:
        self._bytes, self.begun, self.broken = 0, self.number + 1, False

    def __iter__(self) -> Iterator[str]:
        while raw := self._file.readline(MAX_LINE_BYTES + 1):
            line = raw.encode("utf-8", "surrogatepass") if isinstance(raw, str) else raw
            self.number += 1
            if self.number == 1:
                check_encoding(line, self.name)
                check_kind(line, self.name)
                line = without_marks(line)
            if self._blank and line.strip():
                self._blank = False
                _check_no_json(line, self.number, self.name)
            self._bytes += len(line)
            if self._bytes > MAX_LINE_BYTES:
                problem = "a row that begins here is longer than 8 MiB; is a quote in it never closed?"
                raise FormatError(self.begun, problem, file=self.name)
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError:
                self.broken, text = True, line.decode("utf-8", "surrogateescape")
            yield text


def _next(rows: Any, lines: _Lines, delimiter: str) -> list[str] | None:
    lines.begin_row()
    try:
        cells: list[str] | None = next(rows, None)
    except csv.Error as error:
        raise FormatError(lines.begun, _why(str(error), lines, delimiter), file=lines.name) from None
    return cells


def _why(error: str, lines: _Lines, delimiter: str) -> str:
    """What the reader's error means for whoever has the file."""
    if "end of data" in error:
        return "a quote that opens in this row is never closed; a quote within a quoted cell is written twice"
    if "expected after" in error:
        where = f"on line {lines.number}, " if lines.number != lines.begun else ""
        return (
            f"{where}text follows the quote that closes a cell; expected {_OTHERS.get(delimiter, delimiter)} "
            "or the end of the row (a quote within a quoted cell is written twice)"
        )
    if "new-line character" in error:
        return "its lines end in carriage returns alone; convert them, such as with: tr '\\r' '\\n'"
    return f"cannot be read as a row: {error}"


def _check_no_json(line: bytes, number: int, file: str) -> None:
    """Before the first line is parted into cells: the quotes of JSON are none of a table."""
    if line.lstrip().startswith(_JSON):
        raise FormatError(
            number,
            "begins with JSON, where a table has a line that names the columns; JSON lines are read from a "
            "file that is not named .csv or .tsv, or with --format",
            file=file,
        )


def _header(cells: Sequence[str], number: int, file: str, delimiter: str) -> list[str]:
    """The names of the columns; one without a name is called by its place."""
    names = [name.strip() or f"column_{place}" for place, name in enumerate(cells, start=1)]
    joined = delimiter.join(cells)
    if any(_BROKEN_BYTES.search(name) for name in names):
        raise FormatError(number, f"its header {_NOT_UTF8}", file=file)
    if "\0" in joined:
        raise FormatError(number, "its header holds a NUL character; is this a text file?", file=file)
    if names[0].lower().startswith("sep=") and len(joined) <= len("sep=;"):
        raise FormatError(
            number,
            f"is {joined!r}, which tells Excel what separates the cells; remove that line, and say it with "
            "--delimiter",
            file=file,
        )
    for place, name in enumerate(names):
        if name in names[:place]:
            first = names.index(name) + 1
            raise FormatError(
                number,
                f"its header names columns {first} and {place + 1} alike: {name[:_SHOWN]!r}",
                file=file,
            )
    found = [other for other in _OTHERS if other != delimiter and other in joined]
    if len(names) == 1 and found:
        raise FormatError(
            number,
            f"its header is one column, {joined[:_SHOWN]!r}; if {_OTHERS[found[0]]} separates cells, say so: "
            f"--delimiter {'tab' if found[0] == chr(9) else repr(found[0])}",
            file=file,
        )
    return names


def _is_header(cells: Sequence[str], header: Sequence[str]) -> bool:
    """Whether a row names the columns once more, in whatever case, behind the byte-order mark of a file that
    was joined to another."""
    if _name(cells[0]) != _name(header[0]):
        return False
    # A column without a name is called by its place.
    return [_name(cell) or f"column_{place}" for place, cell in enumerate(cells, start=1)] == [
        _name(name) for name in header
    ]


def _name(cell: str) -> str:
    # Behind a byte-order mark, quotes are a part of the cell.
    return cell.lstrip("\ufeff").strip().strip('"').casefold()


def _problem(cells: Sequence[str], header: Sequence[str], broken: bool) -> str:
    if _is_header(cells, header):
        return "is the header once more; files that were joined need one alone"
    if len(cells) != len(header):
        return (
            f"has {len(cells):,} {'cell' if len(cells) == 1 else 'cells'}, the header {len(header):,}; a "
            "cell with a delimiter or a line break in it stands in quotes"
        )
    return _NOT_UTF8 if broken else ""

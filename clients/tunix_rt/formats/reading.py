"""How traces are read from a file, and what was left out on the way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO, Literal, NamedTuple, TypeAlias

from tunix_rt import v1
from tunix_rt.errors import FormatError

Media: TypeAlias = Literal["refuse", "leave-out"]
BadArguments: TypeAlias = Literal["keep", "refuse"]
Builder: TypeAlias = Callable[[bytes, int, str], v1.Trace]


class Lossy:
    """What an import leaves out, or keeps in another form: how often, by kind."""

    def __init__(self) -> None:
        self._kept: Counter[tuple[str, str, str]] = Counter()
        self._pending: Counter[tuple[str, str, str]] = Counter()

    def add(self, what: str, became: str = "left out", count: int = 1, *, many: str = "") -> None:
        """Count a loss of the line that is being read; ``add("image")`` is told as "1 image left out".

        Args:
            what: one of the things that are lost, in the singular.
            became: what became of it.
            count: how many.
            many: the plural, where an s at the end does not make it.
        """
        self._pending[what, many or f"{what}s", became] += count

    def keep(self) -> None:
        """The line became a trace: what was counted for it counts."""
        self._kept += self._pending
        self._pending.clear()

    def drop(self) -> None:
        """The line became no trace: nothing was lost of it, for all of it is told as wrong."""
        self._pending.clear()

    @property
    def counts(self) -> dict[str, int]:
        """How often, by kind, such as {"images left out": 12}."""
        return {f"{many} {became}": count for (_, many, became), count in sorted(self._kept.items())}

    def lines(self) -> list[str]:
        """One line a kind, such as "12 images left out"."""
        return [
            f"{count:,} {one if count == 1 else many} {became}"
            for (one, many, became), count in sorted(self._kept.items())
        ]


@dataclass(frozen=True, slots=True)
class Reading:
    """How the traces of a file are read.

    Args:
        answers_only: take an answer without reasoning as the one step of its trace.
        media: refuse a message with an image or audio, or leave these out and count them.
        bad_arguments: keep a call's arguments that are no JSON object as text and count them, or refuse.
        columns: the column or key of each field, where they were named.
        lossy: takes what is left out.
        assigned: takes the column, or key, of each field, where the fields were found by columns.
        names_options: whether an error names the option of `traces import` that takes what is refused.
    """

    answers_only: bool = False
    media: Media = "refuse"
    bad_arguments: BadArguments = "keep"
    columns: Mapping[str, str] | None = None
    lossy: Lossy = field(default_factory=Lossy)
    assigned: dict[str, str] = field(default_factory=dict)
    names_options: bool = True

    def option(self, told: str) -> str:
        """``; told`` where errors name options, else nothing."""
        return f"; {told}" if self.names_options else ""


class Record(NamedTuple):
    """One line of a file: its number from 1, its bytes, and the trace that it holds or why it holds none."""

    number: int
    line: bytes
    trace: v1.Trace | None
    error: FormatError | None


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A file whose beginning was looked at.

    Args:
        name: what messages call it.
        head: its beginning, decompressed: the first line at least, and 64 KiB where that is not whole JSON.
        stream: all of it, decompressed, from its beginning.
        path: where it lies, if it is a file by name and not compressed.
    """

    name: str
    head: bytes
    stream: IO[bytes]
    path: str = ""


class LineFormat(NamedTuple):
    """A form whose traces stand one on a line (or one in an element of an array).

    ``fits`` tells it by the keys of the first line; ``builder`` makes what reads its lines.
    """

    name: str
    fits: Callable[[set[str]], bool]
    builder: Callable[[Reading], Builder]


class FileFormat(NamedTuple):
    """A form of a whole file, such as a log of a session: ``read`` yields its records, wrong ones too."""

    name: str
    fits: Callable[[OpenFile], bool]
    read: Callable[[OpenFile, Reading], Iterator[Record]]

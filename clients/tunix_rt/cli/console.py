"""Where commands write: consoles that show what data holds and never obey it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final, TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from tunix_rt.escapes import OBEYED, visible
from tunix_rt.files import atomic_file

# A table that goes into a pipe or a file has no window to fit into.
_PIPED_WIDTH: Final = 160


class SafeConsole(Console):
    """A console that prints texts as they are: no markup, no emoji codes, no escape sequences."""

    def __init__(self, file: TextIO) -> None:
        # Without a window, or in one that says it has no columns, lines are as long as in a file.
        width = None if file.isatty() or "COLUMNS" in os.environ else _PIPED_WIDTH
        super().__init__(file=file, width=width, highlight=False, markup=False, emoji=False)

    def render_str(self, text: str, **options: Any) -> Text:
        """The text, with what a terminal would obey written out."""
        return super().render_str(visible(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """What is rendered of anything, with what a terminal would obey written out."""
        shown = _visible_text(renderable) if isinstance(renderable, Text) else renderable
        for segment in super().render(shown, options):
            if segment.control or not OBEYED.search(segment.text):
                yield segment
            else:
                yield Segment(visible(segment.text), segment.style)


def _visible_text(text: Text) -> Text:
    places = [place for match in OBEYED.finditer(text.plain) for place in match.span()]
    if not places:
        return text
    shown = text.blank_copy()
    for part in text.divide(places):
        if OBEYED.fullmatch(part.plain):
            written = Text(visible(part.plain))
            for span in part.spans:
                written.stylize(span.style)
            shown.append_text(written)
        else:
            shown.append_text(part)
    return shown


def standard_streams() -> None:
    """Make the standard streams safe to write to.

    A closed one becomes the null device: else the next file that is opened, such as a database, would get its
    number and with it what is printed. A character that the terminal's encoding lacks is written as an
    escape. A window that reports no columns counts as one of unknown width.
    """
    for variable in ("COLUMNS", "TERMINAL_WIDTH"):
        if not os.environ.get(variable, "0").strip("0"):
            os.environ.pop(variable, None)
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, os.fdopen(number, "w" if number else "r", encoding="utf-8"))
        elif number and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


@contextmanager
def output_stream(path: Path) -> Iterator[BinaryIO]:
    """A binary stream to ``path``, or to stdout for `-`. Raises OSError, which names the path."""
    if str(path) != "-":
        with atomic_file(path) as stream:
            yield stream
        return
    yield sys.stdout.buffer
    sys.stdout.buffer.flush()


def write_lines(path: Path, lines: Iterable[str]) -> int:
    """Writes UTF-8 lines to ``path`` (`-`: stdout) and returns how many there were."""
    written = 0
    with output_stream(path) as stream:
        for line in lines:
            stream.write(line.encode() + b"\n")
            written += 1
    return written

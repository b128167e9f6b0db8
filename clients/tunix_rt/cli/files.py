"""Where a command writes what was asked for: a file that appears whole or not at all, or stdout."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from tunix_rt.files import atomic_file


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

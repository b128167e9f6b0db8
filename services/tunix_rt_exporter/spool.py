"""The rows of a build on their way: lines in a file, keys in memory (about 100 bytes a row)."""

from __future__ import annotations

import hashlib
import os
from array import array
from pathlib import Path
from types import TracebackType
from typing import Final

import numpy as np
import numpy.typing as npt

from tunix_rt_exporter.model import FORMATS, SourceTrace
from tunix_rt_exporter.rows import RenderedRow
from tunix_rt_kit.artifacts.store import storage_error

Integers = npt.NDArray[np.int64]
Unsigned = npt.NDArray[np.uint64]
KEPT: Final = 0
_BUFFER_BYTES: Final = 4 << 20


class RowSpool:
    """Takes rows in any order and gives their lines back in any other.

    Args:
        path: the file of the lines; it must not exist, and is removed at the end.
        seed: of row order and splits.

    Raises ResourceExhausted, FailedPrecondition or Unavailable when the file system fails.
    """

    def __init__(self, path: Path, seed: int) -> None:
        self._path = path
        self._seed = seed.to_bytes(8, "big")
        self._keys = bytearray()
        self._orders = bytearray()
        self._groups = array("Q")
        self._sequences = array("q")
        self._marks = array("h")
        self._offsets = array("q")
        self._lengths = array("i")
        self._figures = array("i")
        self._end = 0
        try:
            self._file = path.open("xb", buffering=_BUFFER_BYTES)
            self._reader = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise storage_error(error, str(path)) from error

    def __enter__(self) -> RowSpool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._reader)
        try:
            self._file.close()
        finally:
            self._path.unlink(missing_ok=True)

    def add(self, trace: SourceTrace, group: str, row: RenderedRow | None, mark: int) -> None:
        """Take one row, or only its keys.

        Args:
            trace: where it comes from.
            group: rows of one group share a split.
            row: its lines and figures; None for a row that is dropped.
            mark: why it is dropped, or ``KEPT``.
        """
        self._keys += trace.digest
        self._orders += hashlib.sha256(b"order\0" + self._seed + trace.digest).digest()[:16]
        point = hashlib.sha256(b"split\0" + self._seed + group.encode()).digest()[:8]
        self._groups.append(int.from_bytes(point, "big"))
        self._sequences.append(trace.sequence)
        self._marks.append(mark)
        self._offsets.append(self._end)
        if row is None:
            self._lengths.extend((0,) * len(FORMATS))
            self._figures.extend((0, 0, 0))
            return
        try:
            self._end += self._file.write(b"".join(row.lines))
        except OSError as error:
            raise storage_error(error, str(self._path)) from error
        self._lengths.extend(map(len, row.lines))
        self._figures.extend((row.steps, row.prompt_characters, row.response_characters))

    def flush(self) -> None:
        """Must be called between the last ``add`` and the first ``lines``."""
        try:
            self._file.flush()
        except OSError as error:
            raise storage_error(error, str(self._path)) from error

    @property
    def digests(self) -> Unsigned:
        """The content digests as four big-endian numbers each, [rows, 4]."""
        return np.frombuffer(self._keys, dtype=">u8").reshape(-1, 4).astype(np.uint64)

    @property
    def order_keys(self) -> Unsigned:
        """What rows are ordered by, [rows, 2]: a hash of seed and content digest."""
        return np.frombuffer(self._orders, dtype=">u8").reshape(-1, 2).astype(np.uint64)

    @property
    def groups(self) -> Unsigned:
        """What a row's split hangs on, [rows]: a hash of seed and group."""
        return np.asarray(self._groups, dtype=np.uint64)

    @property
    def sequences(self) -> Integers:
        """Positions in the order of commits, [rows]."""
        return np.asarray(self._sequences, dtype=np.int64)

    @property
    def marks(self) -> Integers:
        """Why each row is dropped, or ``KEPT``, [rows]."""
        return np.asarray(self._marks, dtype=np.int64)

    @property
    def figures(self) -> Integers:
        """Steps, prompt characters and response characters, [rows, 3]."""
        return np.asarray(self._figures, dtype=np.int64).reshape(-1, 3)

    def lines(self, row: int) -> list[bytes]:
        """A row's line in each format."""
        lengths = self._lengths[row * len(FORMATS) : (row + 1) * len(FORMATS)]
        try:
            data = os.pread(self._reader, sum(lengths), self._offsets[row])
        except OSError as error:
            raise storage_error(error, str(self._path)) from error
        found, start = [], 0
        for length in lengths:
            found.append(data[start : start + length])
            start += length
        return found

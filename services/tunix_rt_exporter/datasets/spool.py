"""The rows of a build on their way: lines in a file, keys in memory (about 140 bytes a row)."""

from __future__ import annotations

import hashlib
import os
from array import array
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final

import numpy as np
import numpy.typing as npt

from tunix_rt_exporter.datasets.model import FORMATS, SourceTrace
from tunix_rt_exporter.datasets.render import RenderedRow
from tunix_rt_exporter.datasets.words import Integers
from tunix_rt_kit.artifacts.store import storage_error

Digests = npt.NDArray[np.bytes_]
Unsigned = npt.NDArray[np.uint64]
KEPT: Final = 0
_BUFFER_BYTES: Final = 4 << 20


def prompt_key(prompt: str) -> bytes:
    """8 bytes that stand for a normalised prompt."""
    return hashlib.blake2b(prompt.encode(), digest_size=8).digest()


class RowSpool:
    """Takes rows in any order and gives their lines back in any other.

    Args:
        path: the file of the lines; it must not exist, and is removed at the end.
        seed: of row order and splits.

    Raises ResourceExhausted, FailedPrecondition or Unavailable when the file system fails.
    """

    def __init__(self, path: Path, seed: int) -> None:
        self._path = path
        self._order_salt = b"order\0" + seed.to_bytes(8, "big")
        self._split_salt = b"split\0" + seed.to_bytes(8, "big")
        self._keys = bytearray()
        self._orders = bytearray()
        self._texts = bytearray()
        self._groups = bytearray()
        self._prompts = bytearray()
        self._disagreeing = bytearray()
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

    def add(
        self, trace: SourceTrace, group: str, text: str, row: RenderedRow, *, prompt: str, disagrees: bool
    ) -> None:
        """Take one row.

        Args:
            trace: where it comes from.
            group: rows of one group share a split.
            text: rows of one text may count as duplicates.
            row: its lines and figures.
            prompt: its normalised prompt.
            disagrees: whether its answer is another than its reference answer.
        """
        self._add_keys(trace, group, text, KEPT, prompt)
        self._disagreeing.append(disagrees)
        self._write(row.lines)
        self._figures.extend((row.steps, row.prompt_characters, row.response_characters))

    def add_dropped(self, trace: SourceTrace, mark: int, note: bytes) -> None:
        """Take a row that is dropped for the reason ``mark``, and a line for the report (see ``note``)."""
        self._add_keys(trace, "", "", mark, "")
        self._disagreeing.append(False)
        self._write((note,) + (b"",) * (len(FORMATS) - 1))
        self._figures.extend((0, 0, 0))

    def _add_keys(self, trace: SourceTrace, group: str, text: str, mark: int, prompt: str) -> None:
        self._keys += trace.digest
        self._orders += hashlib.sha256(self._order_salt + trace.digest).digest()[:16]
        self._groups += hashlib.sha256(self._split_salt + group.encode()).digest()[:8]
        self._texts += hashlib.blake2b(text.encode(), digest_size=16).digest()
        self._prompts += prompt_key(prompt)
        self._sequences.append(trace.sequence)
        self._marks.append(mark)
        self._offsets.append(self._end)

    def _write(self, lines: Sequence[bytes]) -> None:
        try:
            self._end += self._file.write(b"".join(lines))
        except OSError as error:
            raise storage_error(error, str(self._path)) from error
        self._lengths.extend(map(len, lines))

    def flush(self) -> None:
        """Must be called between the last ``add`` and the first ``lines``."""
        try:
            self._file.flush()
        except OSError as error:
            raise storage_error(error, str(self._path)) from error

    @property
    def digests(self) -> Digests:
        """The content digests, [rows]."""
        return np.frombuffer(self._keys, dtype="S32")

    @property
    def text_keys(self) -> Digests:
        """The same for rows of the same text, [rows]."""
        return np.frombuffer(self._texts, dtype="S16")

    @property
    def order_keys(self) -> Unsigned:
        """What rows are ordered by, [rows, 2]: a hash of seed and content digest."""
        return np.frombuffer(self._orders, dtype=">u8").reshape(-1, 2).astype(np.uint64)

    @property
    def groups(self) -> Unsigned:
        """What a row's split hangs on, [rows]: a hash of seed and group."""
        return np.frombuffer(self._groups, dtype=">u8").astype(np.uint64)

    @property
    def prompt_keys(self) -> Unsigned:
        """The same for rows of the same normalised prompt, [rows]; see ``prompt_key``."""
        return np.frombuffer(self._prompts, dtype=">u8").astype(np.uint64)

    @property
    def disagreeing(self) -> npt.NDArray[np.bool_]:
        """Whether each row's answer is another than its reference answer, [rows]."""
        return np.frombuffer(self._disagreeing, dtype=np.bool_)

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

    def digest(self, row: int) -> bytes:
        """The content digest of a row, 32 bytes."""
        return bytes(self._keys[32 * row : 32 * row + 32])

    def note(self, row: int) -> bytes:
        """The report's line for a row that was dropped when it was added."""
        return self.lines(row)[0]

    def lines(self, row: int) -> tuple[bytes, bytes, bytes]:
        """A row's line in each format."""
        first, second, third = self._lengths[row * len(FORMATS) : (row + 1) * len(FORMATS)]
        try:
            data = os.pread(self._reader, first + second + third, self._offsets[row])
        except OSError as error:
            raise storage_error(error, str(self._path)) from error
        return data[:first], data[first : first + second], data[first + second :]

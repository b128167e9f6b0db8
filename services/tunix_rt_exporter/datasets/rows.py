"""The rows of a build on their way: lines in a file, keys in memory (about 140 bytes a row).

Also the rows of a complete dataset, read back.
"""

from __future__ import annotations

import hashlib
import json
import os
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from tunix_rt_exporter.datasets.model import FORMATS, BuildResult, Parent, SourceTrace
from tunix_rt_exporter.datasets.render import RenderedRow
from tunix_rt_exporter.datasets.words import Integers
from tunix_rt_kit.artifacts import ArtifactStore
from tunix_rt_kit.artifacts.store import storage_error, storage_errors

Digests = npt.NDArray[np.bytes_]
Unsigned = npt.NDArray[np.uint64]

KEPT: Final = 0
"""The drop code of a row that is not dropped."""
READ_BATCH: Final = 256
_BUFFER_BYTES: Final = 4 << 20


class TemporaryFile:
    """A new file that a build appends to; it is removed at the end of the ``with`` block.

    Raises:
        ResourceExhausted, FailedPrecondition, Unavailable: the file system fails, here or in any method.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with storage_errors(str(path)):
            self._file = path.open("xb", buffering=_BUFFER_BYTES)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._file.close()
        finally:
            self._path.unlink(missing_ok=True)

    def flush(self) -> None:
        """Call this between the last write and the first read."""
        with storage_errors(str(self._path)):
            self._file.flush()

    def _append(self, data: bytes) -> None:
        try:
            self._file.write(data)
        except OSError as error:
            raise storage_error(error, str(self._path)) from error


class RowStore(TemporaryFile):
    """Takes rows in any order and gives their lines back in any other.

    Args:
        path: the file of the lines; it must not exist.
        seed: of the order of rows and of the splits.
    """

    def __init__(self, path: Path, seed: int) -> None:
        super().__init__(path)
        self._order_salt = b"order\0" + seed.to_bytes(8, "big")
        self._split_salt = b"split\0" + seed.to_bytes(8, "big")
        self._digests = bytearray()
        self._orders = bytearray()
        self._texts = bytearray()
        self._groups = bytearray()
        self._prompts = bytearray()
        self._disagreeing = bytearray()
        self._sequences = array("q")
        self._drop_codes = array("h")
        self._offsets = array("q")
        self._lengths = array("i")
        self._figures = array("i")
        self._end = 0
        with storage_errors(str(path)):
            self._reader = os.open(path, os.O_RDONLY)

    def __exit__(self, *error: object) -> None:
        os.close(self._reader)
        super().__exit__(*error)

    def add(
        self, trace: SourceTrace, row: RenderedRow, *, group: str, text: str, prompt: str, disagrees: bool
    ) -> None:
        """Take one row.

        Args:
            trace: where it comes from.
            row: its lines and figures.
            group: rows of one group share a split.
            text: rows of one text may count as duplicates.
            prompt: its normalised prompt.
            disagrees: whether its answer differs from its reference answer.
        """
        self._add(trace, KEPT, row.lines, group, text, prompt)
        self._disagreeing.append(disagrees)
        self._figures.extend((row.steps, row.prompt_characters, row.response_characters))

    def add_dropped(self, trace: SourceTrace, drop_code: int, line: bytes) -> None:
        """Take a row that is dropped for the reason ``drop_code``, and its line of the report."""
        self._add(trace, drop_code, (line,) + (b"",) * (len(FORMATS) - 1), "", "", "")
        self._disagreeing.append(False)
        self._figures.extend((0, 0, 0))

    def _add(
        self, trace: SourceTrace, drop_code: int, lines: Sequence[bytes], group: str, text: str, prompt: str
    ) -> None:
        self._digests += trace.digest
        self._orders += hashlib.sha256(self._order_salt + trace.digest).digest()[:16]
        self._groups += hashlib.sha256(self._split_salt + group.encode()).digest()[:8]
        self._texts += hashlib.blake2b(text.encode(), digest_size=16).digest()
        self._prompts += prompt_key(prompt)
        self._sequences.append(trace.sequence)
        self._drop_codes.append(drop_code)
        self._offsets.append(self._end)
        self._append(b"".join(lines))
        lengths = list(map(len, lines))
        self._lengths.extend(lengths)
        self._end += sum(lengths)

    @property
    def digests(self) -> Digests:
        """The content digests, [rows]."""
        return np.frombuffer(self._digests, dtype="S32")

    @property
    def text_keys(self) -> Digests:
        """The same for rows of the same text, [rows]."""
        return np.frombuffer(self._texts, dtype="S16")

    @property
    def order_keys(self) -> Unsigned:
        """What rows are ordered by, [rows, 2]: a hash of seed and content digest."""
        return np.frombuffer(self._orders, dtype=">u8").reshape(-1, 2).astype(np.uint64)

    @property
    def group_keys(self) -> Unsigned:
        """What decides a row's split, [rows]: a hash of seed and group."""
        return np.frombuffer(self._groups, dtype=">u8").astype(np.uint64)

    @property
    def prompt_keys(self) -> Unsigned:
        """The same for rows of the same normalised prompt, [rows]; see ``prompt_key``."""
        return np.frombuffer(self._prompts, dtype=">u8").astype(np.uint64)

    @property
    def disagreeing(self) -> npt.NDArray[np.bool_]:
        """Whether each row's answer differs from its reference answer, [rows]."""
        return np.frombuffer(self._disagreeing, dtype=np.bool_)

    @property
    def sequences(self) -> Integers:
        """Positions in the order of commits, [rows]."""
        return np.asarray(self._sequences, dtype=np.int64)

    @property
    def drop_codes(self) -> Integers:
        """Why each row is dropped, or ``KEPT``, [rows]."""
        return np.asarray(self._drop_codes, dtype=np.int64)

    @property
    def figures(self) -> Integers:
        """Steps, prompt characters and response characters, [rows, 3]."""
        return np.asarray(self._figures, dtype=np.int64).reshape(-1, 3)

    def digest(self, row: int) -> bytes:
        """The content digest of a row, 32 bytes."""
        return bytes(self._digests[32 * row : 32 * row + 32])

    def dropped_line(self, row: int) -> bytes:
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


@dataclass(frozen=True, slots=True)
class Replaced:
    """Rows that one stage dropped because others are like them: ``kept[i]`` stays instead of ``rows[i]``."""

    stage: str
    rows: Integers
    kept: Integers


@dataclass(frozen=True, slots=True)
class Outcome:
    """Which rows a build keeps, and which it drops.

    Args:
        rows: the kept rows, in the order of the dataset.
        splits: the number of the split of each of them.
        distinct: how many different contents there are.
        dropped: the rows, one for each content, that were dropped while they were read.
        replaced: the rows that each later stage dropped because others are like them.
        unselected: how many rows the selection left out.
    """

    rows: Integers
    splits: Integers
    distinct: int
    dropped: Integers
    replaced: Sequence[Replaced]
    unselected: int


def prompt_key(prompt: str) -> bytes:
    """8 bytes that stand for a normalised prompt."""
    return hashlib.blake2b(prompt.encode(), digest_size=8).digest()


def stored_rows(store: ArtifactStore, result: BuildResult) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The rows of a complete dataset in the format ``trace``, a batch at a time, each with its split's name.

    Raises:
        DataLoss: ARTIFACT_MISSING or ARTIFACT_CORRUPT; it names the file.
    """
    for split in result.splits:
        batch: list[dict[str, Any]] = []
        for line in store.iter_lines(split.files["trace"].digest):
            batch.append(json.loads(line))
            if len(batch) == READ_BATCH:
                yield split.split, batch
                batch = []
        if batch:
            yield split.split, batch


def parent_of(store: ArtifactStore, result: BuildResult) -> Parent:
    """A dataset as the parent of another; raises as ``stored_rows``."""
    rows = bytearray()
    for _, batch in stored_rows(store, result):
        rows += bytes.fromhex("".join(row["id"] for row in batch))
    return Parent(result.digest, bytes(rows))

"""The rows of a build on their way: lines in a file, keys in memory (about 140 bytes a row).

Also the rows of a complete dataset, read back.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from tunix_rt_exporter.datasets.model import FORMATS, BuildResult, Parent, SourceTrace
from tunix_rt_exporter.datasets.render import RenderedRow
from tunix_rt_exporter.datasets.word_runs import Integers
from tunix_rt_kit.artifacts import ArtifactStore, storage_error, storage_errors

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
        # What could not be written before cannot be now, and is not needed.
        with suppress(OSError):
            self._file.close()
        self._path.unlink(missing_ok=True)

    def flush(self) -> None:
        """Call this between the last write and the first read."""
        with storage_errors(str(self._path)):
            self._file.flush()

    def _append(self, data: bytes) -> int:
        """Returns the number of bytes."""
        try:
            return self._file.write(data)
        except OSError as error:
            raise storage_error(error, str(self._path)) from error


# What is kept of a row in memory, in one record; ``RowStore.keys`` says what each field is.
_RECORD: Final = struct.Struct("=32s16s16s8s8sqq3ii3ih?")
_KEYS: Final = np.dtype(
    [
        ("digest", "S32"),
        ("text", "S16"),
        ("order", ">u8", 2),
        ("group", ">u8"),
        ("prompt", ">u8"),
        ("sequence", "i8"),
        ("offset", "i8"),
        ("lengths", "i4", len(FORMATS)),
        ("examples", "i4"),
        ("figures", "i4", 3),
        ("drop_code", "i2"),
        ("disagrees", "?"),
    ]
)

_PLACE: Final = struct.Struct("=q3ii")
_PLACE_AT: Final = struct.calcsize("=32s16s16s8s8sq")


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
        self._records = bytearray()
        self._end = 0
        with storage_errors(str(path)):
            self._reader = os.open(path, os.O_RDONLY)

    def __exit__(self, *error: object) -> None:
        os.close(self._reader)
        super().__exit__(*error)

    def add(
        self,
        trace: SourceTrace,
        row: RenderedRow,
        *,
        group: str,
        text: str,
        prompt: str,
        disagrees: bool,
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
        figures = (row.steps, row.prompt_characters, row.response_characters)
        self._add(trace, row.lines, row.examples, figures, KEPT, group, text, prompt, disagrees)

    def add_dropped(self, trace: SourceTrace, drop_code: int, line: bytes) -> None:
        """Take a row that is dropped for the reason ``drop_code``, and its line of the report."""
        self._add(trace, (line, b"", b""), b"", (0, 0, 0), drop_code, "", "", "", False)

    def _add(
        self,
        trace: SourceTrace,
        lines: tuple[bytes, bytes, bytes],
        examples: bytes,
        figures: tuple[int, int, int],
        drop_code: int,
        group: str,
        text: str,
        prompt: str,
        disagrees: bool,
    ) -> None:
        self._records += _RECORD.pack(
            trace.digest,
            hashlib.blake2b(text.encode(), digest_size=16).digest(),
            hashlib.sha256(self._order_salt + trace.digest).digest()[:16],
            hashlib.sha256(self._split_salt + group.encode()).digest()[:8],
            prompt_key(prompt),
            trace.sequence,
            self._end,
            *map(len, lines),
            len(examples),
            *figures,
            drop_code,
            disagrees,
        )
        self._end += self._append(b"".join((*lines, examples)))

    @property
    def keys(self) -> npt.NDArray[np.void]:
        """What is known of each row, [rows], by name.

        ``digest``: the content digest. ``text``: the same for rows of the same text. ``order``, two numbers:
        what rows are ordered by. ``group``: what decides the split. ``prompt``: the same for rows of the same
        normalised prompt, see ``prompt_key``. ``sequence``: the position in the order of commits.
        ``examples``: bytes of the training examples of a conversation, 0 of other rows. ``figures``: steps,
        prompt characters, response characters. ``drop_code``: why the row is dropped, or ``KEPT``.
        ``disagrees``: whether its answer differs from its reference answer.
        """
        return np.frombuffer(self._records, dtype=_KEYS)

    def row_id(self, row: int) -> str:
        """The content digest of a row in hex digits, which is its id."""
        return self._records[_RECORD.size * row : _RECORD.size * row + 32].hex()

    def dropped_line(self, row: int) -> bytes:
        """The report's line for a row that was dropped when it was added."""
        return self.lines(row)[0]

    def lines(self, row: int) -> tuple[bytes, bytes, bytes]:
        """A row's line in each format."""
        offset, first, second, third, _ = self._place(row)
        data = self._read(offset, first + second + third)
        return data[:first], data[first : first + second], data[first + second :]

    def examples(self, row: int) -> bytes:
        """The lines of a conversation's training examples; empty for other rows."""
        offset, *lengths, size = self._place(row)
        return self._read(offset + sum(lengths), size) if size else b""

    def _place(self, row: int) -> tuple[int, int, int, int, int]:
        offset, first, second, third, examples = _PLACE.unpack_from(
            self._records, _RECORD.size * row + _PLACE_AT
        )
        return offset, first, second, third, examples

    def _read(self, offset: int, size: int) -> bytes:
        try:
            return os.pread(self._reader, size, offset)
        except OSError as error:
            raise storage_error(error, str(self._path)) from error


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
        unselected: the rows that the selection left out.
    """

    rows: Integers
    splits: Integers
    distinct: int
    dropped: Integers
    replaced: Sequence[Replaced]
    unselected: Integers


LEFT_OUT: Final = -1
UNSELECTED: Final = -2
"""Where a content is that is no row: in the report of dropped rows, or not selected."""
_NOT_SEEN: Final = -3


class RowPlaces:
    """Where the content of each trace of a dataset went, in 42 bytes for each."""

    _RECORD: Final = struct.Struct("=32shq")

    def __init__(self) -> None:
        self._records = bytearray()

    def add(self, digest: bytes, place: int, row_number: int = 0) -> None:
        """Note a content digest: the row ``row_number`` (from 1) of the split number ``place``, or one of
        ``LEFT_OUT`` and ``UNSELECTED``."""
        self._records += self._RECORD.pack(digest, place, row_number)

    def __iter__(self) -> Iterator[tuple[bytes, int, int]]:
        """Each with its content digest, in the order of these."""
        records = np.frombuffer(self._records, dtype=[("digest", "S32"), ("rest", "V10")])
        return self._RECORD.iter_unpack(records[np.argsort(records["digest"], kind="stable")].tobytes())


def row_places(rows: RowStore, outcome: Outcome) -> RowPlaces:
    """Where each content of a build went."""
    count = len(rows.keys)
    place, number = np.full(count, _NOT_SEEN), np.zeros(count, dtype=np.int64)
    place[outcome.rows] = outcome.splits
    for split in np.unique(outcome.splits):
        (here,) = np.nonzero(outcome.splits == split)
        number[outcome.rows[here]] = np.arange(1, len(here) + 1)
    for left_out in (outcome.dropped, *(replaced.rows for replaced in outcome.replaced)):
        place[left_out] = LEFT_OUT
    place[outcome.unselected] = UNSELECTED
    found = RowPlaces()
    for row in np.flatnonzero(place != _NOT_SEEN).tolist():
        found.add(bytes.fromhex(rows.row_id(row)), int(place[row]), int(number[row]))
    return found


def stored_places(store: ArtifactStore, result: BuildResult) -> RowPlaces:
    """The same of a complete dataset, read from its files; it has nothing of traces that were not selected.

    Raises as ``stored_rows``.
    """
    found, kept = RowPlaces(), set()
    for place, split in enumerate(result.splits):
        for number, line in enumerate(store.iter_lines(split.files["trace"].digest), start=1):
            digest = bytes.fromhex(json.loads(line)["id"])
            kept.add(digest)
            found.add(digest, place, number)
    for line in store.iter_lines(result.dropped_rows.digest) if result.dropped_rows else ():
        digest = bytes.fromhex(json.loads(line)["id"])
        if digest not in kept:
            kept.add(digest)
            found.add(digest, LEFT_OUT)
    return found


def prompt_key(prompt: str) -> bytes:
    """8 bytes that stand for a normalised prompt."""
    return hashlib.blake2b(prompt.encode(), digest_size=8).digest()


def stored_rows(
    store: ArtifactStore, result: BuildResult, only: str = ""
) -> Iterator[tuple[str, list[SourceTrace]]]:
    """The rows of a complete dataset as traces, a batch at a time, each with its split's name.

    With ``only``, those of that split.

    Raises:
        DataLoss: ARTIFACT_MISSING or ARTIFACT_CORRUPT; it names the file.
    """
    for split in result.splits:
        if only not in ("", split.split):
            continue
        batch: list[SourceTrace] = []
        for line in store.iter_lines(split.files["trace"].digest):
            batch.append(_stored_trace(json.loads(line)))
            if len(batch) == READ_BATCH:
                yield split.split, batch
                batch = []
        if batch:
            yield split.split, batch


def _stored_trace(row: dict[str, Any]) -> SourceTrace:
    """The trace of a row of the format ``trace``, without what is not in it: sequence and source."""
    digest, metadata = bytes.fromhex(row["id"]), row["metadata"]
    if "messages" in row:
        return SourceTrace.conversation(
            row["messages"], row["tools"], sequence=0, digest=digest, metadata=metadata
        )
    return SourceTrace(0, digest, row["prompts"], row["trace_steps"], row["final_answer"], metadata)


def parent_of(store: ArtifactStore, result: BuildResult) -> Parent:
    """A dataset as the parent of another; raises as ``stored_rows``."""
    rows = bytearray()
    for _, batch in stored_rows(store, result):
        rows += b"".join(row.digest for row in batch)
    return Parent(result.digest, bytes(rows))

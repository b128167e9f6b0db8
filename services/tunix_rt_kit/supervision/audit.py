"""Counts what a model would learn of a split under one tokenizer, at one length."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Final

from pydantic import BaseModel, ConfigDict

from tunix_rt_kit.supervision.examples import ExampleEncoder, Fault, TokenExample, parse_example
from tunix_rt_kit.supervision.packing import pack

MAX_NAMED_ROWS: Final = 20
_BATCH: Final = 512


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class HistogramBin(_Value):
    """Rows with at least ``lower`` and fewer than ``upper``."""

    lower: int
    upper: int
    row_count: int


class AuditedRows(_Value):
    """How many rows something was found about, and the ids of the first ``MAX_NAMED_ROWS`` of them."""

    row_count: int = 0
    example_row_ids: tuple[str, ...] = ()


class PackingEfficiency(_Value):
    """How many sequences of ``max_length`` tokens the rows need, and the share of them that rows fill."""

    max_length: int
    sequence_count: int
    efficiency: float


class SplitSupervision(_Value):
    """What a model would learn of a split.

    ``token_count``, ``supervised_token_count`` and the histogram are over whole rows; ``truncated`` are those
    with more than the greatest length, ``unsupervised`` and ``end_unsupervised`` are told of rows cut off
    there, ``target_lost`` and ``special_token`` are the faults of ``TokenExample``. The histogram's bins are
    0, 1, 2 to 3, 4 to 7 and so on, from the first to the last that has rows.
    """

    split: str
    row_count: int
    token_count: int
    supervised_token_count: int
    supervised_tokens: tuple[HistogramBin, ...]
    truncated: AuditedRows
    unsupervised: AuditedRows
    end_unsupervised: AuditedRows
    packing: tuple[PackingEfficiency, ...]
    target_lost: AuditedRows = AuditedRows()
    special_token: AuditedRows = AuditedRows()


class SplitAudit:
    """Takes the rows of one split in order; four bytes of each stay in memory.

    Args:
        split: its name.
        max_length: most tokens of a row, at least 1.
        end_id: the token that ends a turn.
    """

    def __init__(self, split: str, *, max_length: int, end_id: int) -> None:
        self._split = split
        self._max_length = max_length
        self._end_id = end_id
        self._lengths = array("I")
        self._supervised = 0
        self._bins: dict[int, int] = {}
        self._truncated, self._unsupervised, self._end = _Found(), _Found(), _Found()
        self._faults: dict[Fault, _Found] = {"target_lost": _Found(), "special_token": _Found()}

    def read(self, lines: Iterable[bytes], file: str, encoder: ExampleEncoder) -> Iterator[int]:
        """Take the lines of a file of training examples; yields now and then how many were taken.

        Raises DataLoss: EXAMPLES_CORRUPT, naming ``file`` and the line.
        """
        numbered = enumerate(lines, 1)
        while batch := list(islice(numbered, _BATCH)):
            self.add(encoder.encode([parse_example(line, file, number) for number, line in batch]))
            yield batch[-1][0]

    def add(self, rows: Iterable[TokenExample]) -> None:
        """Take rows."""
        for row in rows:
            supervised = row.supervised_tokens
            self._lengths.append(len(row.ids))
            self._supervised += max(supervised, 0)
            size = max(supervised, 0).bit_length()
            self._bins[size] = self._bins.get(size, 0) + 1
            learned = row.ids[row.first_supervised : self._max_length]
            self._truncated.note(row.id, len(row.ids) > self._max_length)
            self._unsupervised.note(row.id, not learned)
            self._end.note(row.id, self._end_id not in learned)
            for fault, found in self._faults.items():
                found.note(row.id, row.fault == fault)

    def result(self, packing_lengths: Sequence[int]) -> SplitSupervision:
        """What was found; a row that is longer than a packed sequence is cut off at its end."""
        return SplitSupervision(
            split=self._split,
            row_count=len(self._lengths),
            token_count=sum(self._lengths),
            supervised_token_count=self._supervised,
            supervised_tokens=self._histogram(),
            truncated=self._truncated.rows(),
            unsupervised=self._unsupervised.rows(),
            end_unsupervised=self._end.rows(),
            packing=tuple(self._packed(length) for length in packing_lengths),
            target_lost=self._faults["target_lost"].rows(),
            special_token=self._faults["special_token"].rows(),
        )

    def _histogram(self) -> tuple[HistogramBin, ...]:
        if not self._bins:
            return ()
        return tuple(
            HistogramBin(lower=(1 << size) >> 1, upper=1 << size, row_count=self._bins.get(size, 0))
            for size in range(min(self._bins), max(self._bins) + 1)
        )

    def _packed(self, capacity: int) -> PackingEfficiency:
        lengths = array("I", (min(length, capacity) for length in self._lengths))
        sequences = len(pack(lengths, capacity))
        filled = sum(lengths) / (sequences * capacity) if sequences else 0.0
        return PackingEfficiency(max_length=capacity, sequence_count=sequences, efficiency=filled)


class _Found:
    """Counts rows, and remembers the first of them."""

    def __init__(self) -> None:
        self._count = 0
        self._first: list[str] = []

    def note(self, row_id: str, wrong: bool) -> None:
        if wrong:
            self._count += 1
            if len(self._first) < MAX_NAMED_ROWS:
                self._first.append(row_id)

    def rows(self) -> AuditedRows:
        return AuditedRows(row_count=self._count, example_row_ids=tuple(self._first))

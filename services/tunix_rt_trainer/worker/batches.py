"""Batches: which examples share a row, which rows a batch, and their arrays of fixed shapes.

A batch is a pure function of seed and content.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tunix_rt_kit.canonical import canonical_json
from tunix_rt_kit.loss_mask import TokenExample
from tunix_rt_kit.packing import pack


def seeded_order(keys: Sequence[str], *parts: int | str) -> list[int]:
    """Indices of ``keys`` ordered by a hash of ``parts`` and key; equal keys keep their order."""
    prefix = canonical_json([*map(str, parts)])
    hashes = [hashlib.sha256(prefix + key.encode()).digest() for key in keys]
    return sorted(range(len(keys)), key=hashes.__getitem__)


class BatchPlan:
    """Which examples stand in which row of which batch, addressed by step.

    Every epoch takes each example once, in an order and a packing of its own; its last batch may hold fewer
    rows than the others. An example's number is its index in ``ids``.

    Args:
        ids: the examples' ids.
        lengths: their lengths in tokens, each at most ``row_length``.
        row_length: tokens of a row.
        rows_per_batch: most rows of a batch.
        packing: whether several examples may share a row.
        seed: of the order.
        dataset_digest: what the order depends on beside the seed.
    """

    def __init__(
        self,
        ids: Sequence[str],
        lengths: Sequence[int],
        *,
        row_length: int,
        rows_per_batch: int,
        packing: bool,
        seed: int,
        dataset_digest: str,
    ) -> None:
        self._ids = ids
        self._lengths = lengths
        self._row_length = row_length
        self._packing = packing
        self._key = (dataset_digest, seed)
        self._epochs: dict[int, list[list[int]]] = {}
        self.rows_per_epoch = len(self._epoch(0))
        """The same for each epoch: how many rows packing needs depends on the lengths alone."""
        self.rows_per_batch = min(rows_per_batch, self.rows_per_epoch)
        self.batches_per_epoch = -(-self.rows_per_epoch // self.rows_per_batch)

    def batch(self, step: int) -> list[list[int]]:
        """The rows of the batch at ``step`` (from 0): for each the numbers of its examples."""
        epoch, index = divmod(step, self.batches_per_epoch)
        return self._epoch(epoch)[index * self.rows_per_batch : (index + 1) * self.rows_per_batch]

    def _epoch(self, epoch: int) -> list[list[int]]:
        if epoch not in self._epochs:
            self._epochs = {epoch: self._arranged(epoch)}
        return self._epochs[epoch]

    def _arranged(self, epoch: int) -> list[list[int]]:
        order = seeded_order(self._ids, "examples", *self._key, epoch)
        if self._packing:
            places = pack([self._lengths[number] for number in order], self._row_length)
            rows = [[order[place] for place in row] for row in places]
        else:
            rows = [[number] for number in order]
        first_ids = [self._ids[row[0]] for row in rows]
        return [rows[index] for index in seeded_order(first_ids, "rows", *self._key, epoch)]


_SLOT_MULTIPLE = 128

Ints = npt.NDArray[np.int32]
Arrays = Mapping[str, npt.NDArray[np.int32] | npt.NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch of P microbatches, each of B rows of L tokens with K slots for supervised positions.

    ``arrays`` holds, all int32 but ``weights``, and without the first axis where P is 1:

    - ``tokens`` [P, B, L]: token ids, the pad token in padding;
    - ``positions`` [P, B, L]: position inside the example, from 0;
    - ``segments`` [P, B, L]: number of the example in its row from 1, 0 in padding;
    - ``supervised`` [P, K]: indices into the microbatch's B * L tokens after which a token is learned; 0 in
      unused slots;
    - ``labels`` [P, K]: the token that follows;
    - ``weights`` [P, K], float32: 1, and 0 in unused slots.
    """

    arrays: Arrays
    example_ids: tuple[tuple[str, ...], ...]
    tokens: int
    supervised_tokens: int


class BatchSource:
    """Batches by step.

    Args:
        examples: the examples, in the order in which the plan counts them.
        plan: which of them stand where.
        row_length: L, tokens of a row.
        pad_id: what fills the room left over; nothing attends to it.
        steps: how many batches will be asked for; the number of slots K is chosen for them.
        microbatches: P, how many a batch is split into.
        row_multiple: B is a multiple of it, by empty rows if need be.
    """

    def __init__(
        self,
        examples: Sequence[TokenExample],
        plan: BatchPlan,
        *,
        row_length: int,
        pad_id: int,
        steps: int,
        microbatches: int = 1,
        row_multiple: int = 1,
    ) -> None:
        self._examples = examples
        self._plan = plan
        self._microbatches = microbatches
        rows = -(-plan.rows_per_batch // (microbatches * row_multiple)) * row_multiple
        self._shape = (rows, row_length)
        self._pad_id = pad_id
        # Beyond an epoch the packing changes, so the widest microbatch is looked for in all that will come.
        widest = max(
            self._supervised(microbatch)
            for step in range(steps)
            for microbatch in self._split(plan.batch(step))
        )
        self.slots = -(-widest // _SLOT_MULTIPLE) * _SLOT_MULTIPLE

    @property
    def batches_per_epoch(self) -> int:
        """How many batches one pass over the examples takes."""
        return self._plan.batches_per_epoch

    def example_ids(self, step: int) -> tuple[tuple[str, ...], ...]:
        """The ids of the examples of the batch at ``step``, from 0, by row."""
        return tuple(tuple(self._examples[number].id for number in row) for row in self._plan.batch(step))

    def batch(self, step: int) -> Batch:
        """The batch at ``step``, from 0."""
        microbatches = [self._microbatch(rows) for rows in self._split(self._plan.batch(step))]
        arrays = {
            name: np.stack([microbatch[name] for microbatch in microbatches]) for name in microbatches[0]
        }
        return Batch(
            arrays=arrays if self._microbatches > 1 else {name: value[0] for name, value in arrays.items()},
            example_ids=self.example_ids(step),
            tokens=int((arrays["segments"] > 0).sum()),
            supervised_tokens=int(arrays["weights"].sum()),
        )

    def _split(self, rows: Sequence[Sequence[int]]) -> list[Sequence[Sequence[int]]]:
        size = self._shape[0]
        return [rows[microbatch * size : (microbatch + 1) * size] for microbatch in range(self._microbatches)]

    def _microbatch(self, rows: Sequence[Sequence[int]]) -> dict[str, npt.NDArray[np.int32]]:
        tokens, positions, segments = (np.zeros(self._shape, np.int32) for _ in range(3))
        tokens.fill(self._pad_id)
        supervised: list[int] = []
        labels: list[int] = []
        for row_number, row in enumerate(rows):
            at = 0
            for segment, number in enumerate(row, 1):
                example = self._examples[number]
                end = at + len(example.ids)
                tokens[row_number, at:end] = example.ids
                positions[row_number, at:end] = range(len(example.ids))
                segments[row_number, at:end] = segment
                base = row_number * self._shape[1] + at
                for first, behind in example.supervised:
                    supervised += range(base + first - 1, base + behind - 1)
                    labels += example.ids[first:behind]
                at = end
        return {
            "tokens": tokens,
            "positions": positions,
            "segments": segments,
            "supervised": self._slotted(supervised),
            "labels": self._slotted(labels),
            "weights": (np.arange(self.slots) < len(supervised)).astype(np.float32),
        }

    def _slotted(self, values: Sequence[int]) -> Ints:
        slots = np.zeros(self.slots, np.int32)
        slots[: len(values)] = values
        return slots

    def _supervised(self, rows: Sequence[Sequence[int]]) -> int:
        return sum(self._examples[number].supervised_tokens for row in rows for number in row)

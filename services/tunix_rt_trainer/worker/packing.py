"""Which examples share a row, and which rows share a batch: a pure function of seed and content."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from tunix_rt_kit.artifacts import canonical_json
from tunix_rt_kit.supervision import pack


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

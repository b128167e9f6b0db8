"""Batches as arrays of fixed shapes, made from a plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tunix_rt_kit.supervision import TokenExample
from tunix_rt_trainer.worker.packing import BatchPlan

_SLOT_MULTIPLE = 128

Ints = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch of B rows of L tokens, with K slots for the positions that are supervised.

    ``arrays`` holds, all int32 but ``weights``:

    - ``tokens`` [B, L]: token ids, the pad token in padding;
    - ``positions`` [B, L]: position inside the example, from 0;
    - ``segments`` [B, L]: number of the example in its row from 1, 0 in padding;
    - ``supervised`` [K]: indices into the B * L tokens after which a token is learned; 0 in unused slots;
    - ``labels`` [K]: the token that follows;
    - ``weights`` [K], float32: 1, and 0 in unused slots.
    """

    arrays: dict[str, npt.NDArray[np.int32] | npt.NDArray[np.float32]]
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
    """

    def __init__(
        self, examples: Sequence[TokenExample], plan: BatchPlan, *, row_length: int, pad_id: int, steps: int
    ) -> None:
        self._examples = examples
        self._plan = plan
        self._shape = (plan.rows_per_batch, row_length)
        self._pad_id = pad_id
        # Beyond an epoch the packing changes, so the widest batch must be looked for in all that will come.
        widest = max(self._supervised(plan.batch(step)) for step in range(steps))
        self.slots = -(-widest // _SLOT_MULTIPLE) * _SLOT_MULTIPLE

    def batch(self, step: int) -> Batch:
        """The batch at ``step``, from 0."""
        rows = self._plan.batch(step)
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
                first = max(example.prompt_length, 1)
                base = row_number * self._shape[1] + at
                supervised += range(base + first - 1, base + len(example.ids) - 1)
                labels += example.ids[first:]
                at = end
        return Batch(
            arrays={
                "tokens": tokens,
                "positions": positions,
                "segments": segments,
                "supervised": self._slotted(supervised),
                "labels": self._slotted(labels),
                "weights": (np.arange(self.slots) < len(supervised)).astype(np.float32),
            },
            example_ids=tuple(tuple(self._examples[number].id for number in row) for row in rows),
            tokens=int((segments > 0).sum()),
            supervised_tokens=len(supervised),
        )

    def _slotted(self, values: Sequence[int]) -> Ints:
        slots = np.zeros(self.slots, np.int32)
        slots[: len(values)] = values
        return slots

    def _supervised(self, rows: Sequence[Sequence[int]]) -> int:
        return sum(self._examples[number].supervised_tokens for row in rows for number in row)

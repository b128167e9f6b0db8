"""Which split a row is in: a hash of seed and group alone decides, so that no other row can move it."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Final

import numpy as np

from tunix_rt_exporter.datasets.deduplicate import Signatures, comparing, replace
from tunix_rt_exporter.datasets.model import Report, SourceTrace, SplitFraction, SplitGroup
from tunix_rt_exporter.datasets.rows import Replaced, RowStore
from tunix_rt_exporter.datasets.word_runs import Integers
from tunix_rt_kit.canonical import canonical_json
from tunix_rt_kit.errors import FailedPrecondition

SPLIT_CONFLICT: Final = "split_conflict"
_KEYS_KEPT: Final = 1_000
_KEYS_NAMED: Final = 10


class SplitGroups:
    """Gives each row its group: the rows of one group share a split.

    Args:
        rule: what a row's group is.
    """

    def __init__(self, rule: SplitGroup) -> None:
        self._field = rule.metadata_field
        self._found = rule.metadata_field is None
        self._other_fields: set[str] = set()

    def look_for_field(self, traces: Sequence[SourceTrace]) -> None:
        """Note whether one of the traces has the metadata field that the groups are made by."""
        if self._found:
            return
        self._found = any(self._field in trace.metadata for trace in traces)
        for trace in traces:
            if len(self._other_fields) < _KEYS_KEPT:
                self._other_fields.update(trace.metadata)

    def check(self, trace_count: int) -> None:
        """Raise FailedPrecondition (SPLIT_GROUP_MISSING) if none of the traces had the metadata field."""
        if self._found or not trace_count:
            return
        named = ", ".join(map(repr, sorted(self._other_fields)[:_KEYS_NAMED]))
        right = f"one of {named} would be right" if named else "they have no metadata to group by"
        raise FailedPrecondition(
            f"spec.split_group.metadata_field: is {self._field!r}, which none of the {trace_count} traces "
            f"has; {right}",
            reason="SPLIT_GROUP_MISSING",
            metadata={"metadata_field": self._field or "", "trace_count": str(trace_count)},
        )

    def of(self, trace: SourceTrace, prompt: str) -> str:
        """The group of a trace: a value of its metadata, or else its normalised ``prompt``."""
        if self._field is None or self._field not in trace.metadata:
            return prompt
        return "\0" + canonical_json([self._field, trace.metadata[self._field]]).decode()


def assigned_splits(rows: RowStore, splits: Sequence[SplitFraction]) -> Integers:
    """The number of the split of each row, [rows]."""
    ends = np.array(_ends(splits), dtype=np.uint64)
    return np.searchsorted(ends, rows.keys["group"], side="right").astype(np.int64)


def without_conflicts(
    candidates: Integers, splits: Integers, prompts: Signatures, report: Report
) -> tuple[Integers, Replaced]:
    """The candidates of which none has a prompt that is a near-duplicate of one before it in another split.

    Args:
        candidates: numbers of rows; those that come first stay first.
        splits: the split of each row, [rows].
        prompts: the prompts of all rows.
        report: is told of progress, and may raise to end it.
    """
    told = comparing("comparing prompts", len(candidates), report)
    return replace(SPLIT_CONFLICT, candidates, prompts.replacements(candidates, splits[candidates], told))


def _ends(splits: Sequence[SplitFraction]) -> list[int]:
    """Where on the line from 0 to 2**64 each split ends, except the last one, which takes the rest."""
    ends, total = [], Fraction(0)
    for split in splits[:-1]:
        total += Fraction(split.fraction)
        ends.append(min(int(total * (1 << 64)), (1 << 64) - 1))
    return ends

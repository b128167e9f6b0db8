"""Which rows are kept, in which order, and in which split: nothing here hangs on the order of arrival.

Only ``latest`` looks at the order of commits, since that is what it asks for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from tunix_rt_exporter.model import Distribution, Selection, SplitFraction
from tunix_rt_exporter.spool import KEPT, Integers, RowSpool, Unsigned


@dataclass(frozen=True, slots=True)
class Arrangement:
    """The kept rows in their order with the number of their split, and what was left out.

    ``distinct`` is the number of different contents, ``marked`` how many of those bear each mark.
    """

    rows: Integers
    splits: Integers
    distinct: int
    marked: dict[int, int]
    unselected: int


def arrange(spool: RowSpool, selection: Selection, splits: Sequence[SplitFraction]) -> Arrangement:
    """Drop duplicates and marked rows, select, order by hash, and assign splits by hash."""
    distinct = _newest_of_each(spool.digests, spool.sequences)
    marks, counts = np.unique(spool.marks[distinct], return_counts=True)
    marked = {int(mark): int(count) for mark, count in zip(marks, counts, strict=True) if mark != KEPT}
    candidates = distinct[spool.marks[distinct] == KEPT]
    keys = spool.order_keys[candidates]
    ordered = candidates[np.lexsort((keys[:, 1], keys[:, 0]))]
    rows = _selected(ordered, spool.sequences, selection)
    thresholds = np.array(_thresholds(splits), dtype=np.uint64)
    assigned = np.searchsorted(thresholds, spool.groups[rows], side="right")
    return Arrangement(rows, assigned.astype(np.int64), len(distinct), marked, len(candidates) - len(rows))


def distribution(values: Integers) -> Distribution:
    """The spread of at least one integer, the same on every machine."""
    ordered = np.sort(values)
    count = len(ordered)
    return Distribution(
        minimum=int(ordered[0]),
        mean=int(ordered.sum()) / count,
        median=(int(ordered[(count - 1) // 2]) + int(ordered[count // 2])) / 2,
        p95=int(ordered[-(-95 * count // 100) - 1]),
        maximum=int(ordered[-1]),
    )


def _newest_of_each(digests: Unsigned, sequences: Integers) -> Integers:
    """For each content the row that was committed last."""
    order = np.lexsort((-sequences, *digests.T[::-1]))
    ranked = digests[order]
    first = np.ones(len(order), dtype=bool)
    first[1:] = (ranked[1:] != ranked[:-1]).any(axis=1)
    return order[first]


def _selected(ordered: Integers, sequences: Integers, selection: Selection) -> Integers:
    count = len(ordered) if selection.count is None else min(selection.count, len(ordered))
    if selection.strategy == "random":
        return ordered[:count]
    if selection.strategy == "latest":
        newest = np.argsort(-sequences[ordered], kind="stable")[:count]
        return ordered[np.sort(newest)]
    return ordered


def _thresholds(splits: Sequence[SplitFraction]) -> list[int]:
    """Where on the line from 0 to 2**64 each split ends, but for the last one, which takes the rest."""
    ends, total = [], Fraction(0)
    for split in splits[:-1]:
        total += Fraction(split.fraction)
        ends.append(min(int(total * (1 << 64)), (1 << 64) - 1))
    return ends

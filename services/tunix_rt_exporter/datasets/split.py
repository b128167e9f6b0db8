"""Which rows are kept, in which order, and in which split: nothing here hangs on the order of arrival.

Only ``latest`` looks at the order of commits, since that is what it asks for. A row's split is a hash of seed
and group alone, so no other row can move it. Where one of several rows must go, the rows of the parent stay
first, and then those with the lowest content digest.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np

from tunix_rt_exporter.datasets.deduplicate import Signatures
from tunix_rt_exporter.datasets.model import Distribution, Selection, SplitFraction
from tunix_rt_exporter.datasets.spool import KEPT, Digests, RowSpool
from tunix_rt_exporter.datasets.words import Integers
from tunix_rt_kit.values import Progress

DUPLICATE: Final = "duplicate"
NEAR_DUPLICATE: Final = "near_duplicate"
SPLIT_CONFLICT: Final = "split_conflict"


@dataclass(frozen=True, slots=True)
class Replaced:
    """Rows that one stage dropped for the sake of others: ``kept[i]`` stays instead of ``rows[i]``."""

    stage: str
    rows: Integers
    kept: Integers


@dataclass(frozen=True, slots=True)
class Arrangement:
    """The kept rows in their order with the number of their split, and what was left out.

    ``distinct`` is the number of different contents; ``marked`` are the rows among them that bear a mark.
    """

    rows: Integers
    splits: Integers
    distinct: int
    marked: Integers
    replaced: tuple[Replaced, ...]
    unselected: int


@dataclass(frozen=True, slots=True)
class Rules:
    """What decides about rows.

    ``exact``: whether texts that are equal after normalisation are duplicates. ``near`` and ``apart``: the
    signatures of texts that must not be too near at all, or in different splits. ``parent``: the content
    digests of rows that stay first, 32 bytes each.
    """

    selection: Selection
    splits: Sequence[SplitFraction]
    exact: bool
    near: Signatures | None = None
    apart: Signatures | None = None
    parent: bytes = b""


def arrange(spool: RowSpool, rules: Rules, report: Callable[[Progress], None]) -> Arrangement:
    """Drop duplicates and marked rows, assign splits by hash, select, and order by hash.

    ``report`` is told of progress several times a second while rows are compared, and may raise to end it.
    """
    digests = spool.digests
    distinct = _newest_of_each(digests, spool.sequences)
    marks = spool.marks[distinct]
    rows = _by_precedence(distinct[marks == KEPT], digests, rules.parent)
    replaced: list[Replaced] = []
    if rules.exact:
        rows = _replace(replaced, DUPLICATE, rows, _first_of_each(spool.text_keys[rows], rows))
    if rules.near is not None:
        instead = rules.near.rivals_kept(rows, report=_compared("comparing texts", len(rows), report))
        rows = _replace(replaced, NEAR_DUPLICATE, rows, instead)
    thresholds = np.array(_thresholds(rules.splits), dtype=np.uint64)
    splits = np.searchsorted(thresholds, spool.groups, side="right").astype(np.int64)
    if rules.apart is not None:
        seen = _compared("comparing prompts", len(rows), report)
        instead = rules.apart.rivals_kept(rows, splits[rows], seen)
        rows = _replace(replaced, SPLIT_CONFLICT, rows, instead)
    keys = spool.order_keys[rows]
    ordered = rows[np.lexsort((keys[:, 1], keys[:, 0]))]
    selected = _selected(ordered, spool.sequences, rules.selection)
    return Arrangement(
        rows=selected,
        splits=splits[selected],
        distinct=len(distinct),
        marked=distinct[marks != KEPT],
        replaced=tuple(replaced),
        unselected=len(ordered) - len(selected),
    )


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


def _compared(stage: str, total: int, report: Callable[[Progress], None]) -> Callable[[int], None]:
    started = time.monotonic()

    def compared(count: int) -> None:
        eta_s = (time.monotonic() - started) * (total - count) / count if count else None
        report(Progress(stage=stage, completed=count, total=total, unit="rows", eta_s=eta_s))

    return compared


def _newest_of_each(digests: Digests, sequences: Integers) -> Integers:
    """For each content the row that was committed last, in the order of contents."""
    order = np.lexsort((-sequences, digests))
    ranked = digests[order]
    first = np.ones(len(order), dtype=bool)
    first[1:] = ranked[1:] != ranked[:-1]
    return order[first]


def _by_precedence(rows: Integers, digests: Digests, parent: bytes) -> Integers:
    """``rows``, which are in the order of contents, with those of the parent first."""
    if not parent:
        return rows
    inherited = np.isin(digests[rows], np.frombuffer(parent, dtype="S32"))
    return np.concatenate([rows[inherited], rows[~inherited]])


def _first_of_each(keys: Digests, rows: Integers) -> Integers:
    """For each row the first one of the same key, or -1 for the first itself."""
    _, first, group = np.unique(keys, return_index=True, return_inverse=True)
    instead = rows[first[group]]
    instead[first] = -1
    return instead


def _replace(replaced: list[Replaced], stage: str, rows: Integers, instead: Integers) -> Integers:
    gone = instead >= 0
    if gone.any():
        replaced.append(Replaced(stage, rows[gone], instead[gone]))
    return rows[~gone]


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

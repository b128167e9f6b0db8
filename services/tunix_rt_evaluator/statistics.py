"""Accuracies with intervals, and the comparison of two paired accuracies. SciPy and statsmodels do the
work."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from tunix_rt_evaluator.model import (
    CONFIDENCE,
    Accuracy,
    CategoryAccuracy,
    Interval,
    PairedDifference,
    VerdictName,
)

SIGNIFICANCE = 0.05
"""Level below which McNemar's p-value counts as evidence."""

T = TypeVar("T")


def accuracy(correct: int, total: int) -> Accuracy:
    """``correct`` of ``total`` with Wilson's score interval (Wilson 1927); nothing is known of 0 items."""
    lower, upper = wilson(correct, total)
    return Accuracy(
        item_count=total,
        correct_count=correct,
        accuracy=correct / total if total else 0.0,
        interval=Interval(lower=lower, upper=upper),
    )


def wilson(correct: int, total: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Wilson's score interval of a proportion, without continuity correction; (0, 1) for no items."""
    from statsmodels.stats.proportion import proportion_confint

    if not total:
        return 0.0, 1.0
    lower, upper = proportion_confint(correct, total, alpha=1.0 - confidence, method="wilson")
    return max(0.0, float(lower)), min(1.0, float(upper))


def by_category(verdicts: Iterable[tuple[str, bool]]) -> tuple[CategoryAccuracy, ...]:
    """Accuracy of each category, ordered by category, from (category, right or wrong) of each item."""
    return tuple(
        CategoryAccuracy(category=category, accuracy=accuracy(sum(group), len(group)))
        for category, group in grouped(verdicts).items()
    )


def grouped(pairs: Iterable[tuple[str, T]]) -> dict[str, list[T]]:
    """The values of each key, ordered by key."""
    groups: dict[str, list[T]] = {}
    for key, value in pairs:
        groups.setdefault(key, []).append(value)
    return dict(sorted(groups.items()))


def paired_difference(pairs: Sequence[tuple[bool, bool]]) -> PairedDifference:
    """Compare two accuracies over the same items, given (base right, candidate right) of each."""
    counts = _counts(pairs)
    both, lost, gained, neither = (counts[key] for key in ((1, 1), (1, 0), (0, 1), (0, 0)))
    total = both + lost + gained + neither
    lower, upper = newcombe_paired(both, gained, lost, neither)
    return PairedDifference(
        base=accuracy(both + lost, total),
        candidate=accuracy(both + gained, total),
        difference=(gained - lost) / total if total else 0.0,
        interval=Interval(lower=lower, upper=upper),
        gained_count=gained,
        lost_count=lost,
        p_value=mcnemar_exact(gained, lost),
    )


def mcnemar_exact(gained: int, lost: int) -> float:
    """Two-sided p-value of the exact McNemar test (binomial on the items that changed); 1 when none did."""
    from statsmodels.stats.contingency_tables import mcnemar

    if gained + lost == 0:
        return 1.0
    return min(1.0, float(mcnemar([[0, lost], [gained, 0]], exact=True).pvalue))


def newcombe_paired(
    both: int, only_first: int, only_second: int, neither: int, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Interval of the difference of two paired proportions, first minus second.

    Method 10 of R. G. Newcombe, "Improved confidence intervals for the difference between binomial
    proportions based on paired data", Statistics in Medicine 17 (1998) 2635-2650: Wilson's limits of both
    proportions, put together with the correlation of the pairs, whose positive covariance is corrected for
    continuity.

    Args:
        both: items that are right in both.
        only_first: right in the first alone.
        only_second: right in the second alone.
        neither: wrong in both.
        confidence: level of the interval.

    Returns:
        Lower and upper limit; (-1, 1) for no items.
    """
    total = both + only_first + only_second + neither
    if not total:
        return -1.0, 1.0
    first, second = both + only_first, both + only_second
    p1, p2 = first / total, second / total
    (l1, u1), (l2, u2) = wilson(first, total, confidence), wilson(second, total, confidence)
    phi = _phi(both, only_first, only_second, neither)

    def distance(below: float, above: float) -> float:
        return math.sqrt(max(0.0, below**2 - 2 * phi * below * above + above**2))

    difference = (only_first - only_second) / total
    return difference - distance(p1 - l1, u2 - p2), difference + distance(u1 - p1, p2 - l2)


def verdict(difference: PairedDifference) -> VerdictName:
    """What the evidence says: a p-value below 0.05 and the sign of the difference."""
    if difference.p_value >= SIGNIFICANCE or difference.gained_count == difference.lost_count:
        return "NO_EVIDENCE"
    return "IMPROVED" if difference.gained_count > difference.lost_count else "REGRESSED"


def _phi(both: int, only_first: int, only_second: int, neither: int) -> float:
    """Correlation of the pairs as method 10 takes it: 0 where a margin is empty."""
    margins = (both + only_first) * (only_second + neither) * (both + only_second) * (only_first + neither)
    if not margins:
        return 0.0
    covariance = both * neither - only_first * only_second
    half = (both + only_first + only_second + neither) / 2
    corrected = max(covariance - half, 0.0) if covariance > 0 else covariance
    return corrected / math.sqrt(margins)


def _counts(pairs: Sequence[tuple[bool, bool]]) -> Mapping[tuple[int, int], int]:
    counts = dict.fromkeys(((1, 1), (1, 0), (0, 1), (0, 0)), 0)
    for base, candidate in pairs:
        counts[int(base), int(candidate)] += 1
    return counts

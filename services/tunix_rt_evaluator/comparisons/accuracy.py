"""Accuracies with intervals."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from tunix_rt_evaluator.evaluations.model import CONFIDENCE, Accuracy, CategoryAccuracy, Interval

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


def wilson(correct: float, total: float, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Wilson's score interval of a proportion, without continuity correction; (0, 1) for no items."""
    from statsmodels.stats.proportion import proportion_confint

    if not total:
        return 0.0, 1.0
    lower, upper = proportion_confint(correct, total, alpha=1.0 - confidence, method="wilson")
    # What is left of rounding is no part of the interval.
    return (float(lower) if correct else 0.0), (float(upper) if correct < total else 1.0)


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

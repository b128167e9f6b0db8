"""Accuracies against published values."""

from __future__ import annotations

import pytest

from tunix_rt_evaluator.evaluations.results import accuracy, by_category, wilson


# R. G. Newcombe, Two-sided confidence intervals for the single proportion, Statistics in Medicine 17 (1998)
# 857-872, Table I, method 3.
@pytest.mark.parametrize(
    ("correct", "total", "lower", "upper"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_interval_of_published_examples(correct: int, total: int, lower: float, upper: float) -> None:
    assert wilson(correct, total) == pytest.approx((lower, upper), abs=5e-5)


@pytest.mark.parametrize("total", [1, 3, 7, 25])
def test_an_interval_ends_at_0_or_1_where_all_are_alike(total: int) -> None:
    assert wilson(0, total)[0] == 0.0
    assert wilson(total, total)[1] == 1.0


def test_nothing_is_known_of_no_items() -> None:
    empty = accuracy(0, 0)
    assert (empty.interval.lower, empty.interval.upper, empty.accuracy) == (0.0, 1.0, 0.0)


def test_categories_come_in_order() -> None:
    rows = by_category([("b", True), ("a", False), ("b", False), ("", True)])
    assert [(row.category, row.accuracy.correct_count, row.accuracy.item_count) for row in rows] == [
        ("", 1, 1),
        ("a", 0, 1),
        ("b", 1, 2),
    ]

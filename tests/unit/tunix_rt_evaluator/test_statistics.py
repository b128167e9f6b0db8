"""Intervals and tests against published values."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tunix_rt_evaluator.statistics import (
    accuracy,
    by_category,
    mcnemar_exact,
    newcombe_paired,
    paired_difference,
    verdict,
    wilson,
)


# R. G. Newcombe, Two-sided confidence intervals for the single proportion, Statistics in Medicine 17 (1998)
# 857-872, Table I, method 3.
@pytest.mark.parametrize(
    ("correct", "total", "lower", "upper"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_interval_of_published_examples(correct: int, total: int, lower: float, upper: float) -> None:
    assert wilson(correct, total) == pytest.approx((lower, upper), abs=5e-5)


def test_nothing_is_known_of_no_items() -> None:
    empty = accuracy(0, 0)
    assert (empty.interval.lower, empty.interval.upper, empty.accuracy) == (0.0, 1.0, 0.0)
    assert newcombe_paired(0, 0, 0, 0) == (-1.0, 1.0)


# (20, 12, 2, 16) and (36, 12, 2, 0): Newcombe 1998 (see newcombe_paired), Table III, method 10.
# (14, 5, 0, 22): Altman, Machin, Bryant and Gardner, Statistics with Confidence, 2nd edition (2000), page 52.
@pytest.mark.parametrize(
    ("cells", "lower", "upper", "digits"),
    [
        ((20, 12, 2, 16), 0.0562, 0.3292, 4),
        ((36, 12, 2, 0), 0.0569, 0.3404, 4),
        ((14, 5, 0, 22), 0.011, 0.226, 3),
    ],
)
def test_interval_of_a_paired_difference_of_published_examples(
    cells: tuple[int, int, int, int], lower: float, upper: float, digits: int
) -> None:
    assert newcombe_paired(*cells) == pytest.approx((lower, upper), abs=0.51 * 10**-digits)


def test_the_interval_turns_with_the_sides() -> None:
    lower, upper = newcombe_paired(30, 11, 4, 15)
    assert newcombe_paired(30, 4, 11, 15) == pytest.approx((-upper, -lower))


def test_the_paired_interval_covers_as_often_as_it_says() -> None:
    random = np.random.default_rng(7)
    # Probabilities of right in both, first alone, second alone, neither: a difference of 0.15.
    cells = random.multinomial(100, (0.25, 0.25, 0.10, 0.40), size=2000)
    covered = 0
    for row in {tuple(int(count) for count in row): None for row in cells}:
        lower, upper = newcombe_paired(*row)
        times = int((cells == row).all(axis=1).sum())
        covered += times * (lower <= 0.15 <= upper)
    assert 0.93 <= covered / len(cells) <= 0.97


@pytest.mark.parametrize(
    ("gained", "lost", "p_value"),
    # Twice the binomial tail: 2 * (1 + 11 + 55) / 2**11, and 2 * (1 + 14 + 91) / 2**14.
    [(9, 2, 134 / 2048), (2, 9, 134 / 2048), (12, 2, 212 / 16384), (5, 5, 1.0), (0, 0, 1.0), (1, 0, 1.0)],
)
def test_exact_mcnemar(gained: int, lost: int, p_value: float) -> None:
    assert mcnemar_exact(gained, lost) == pytest.approx(p_value, rel=1e-12)


def test_a_paired_difference_counts_what_changed() -> None:
    pairs = [(True, True)] * 5 + [(False, True)] * 9 + [(True, False)] * 2 + [(False, False)] * 4
    result = paired_difference(pairs)
    assert (result.gained_count, result.lost_count) == (9, 2)
    assert (result.base.correct_count, result.candidate.correct_count) == (7, 14)
    assert result.difference == pytest.approx(0.35)
    assert result.interval.lower < 0.35 < result.interval.upper
    assert math.isclose(result.p_value, 134 / 2048)


@pytest.mark.parametrize(
    ("gained", "lost", "expected"),
    [
        (20, 2, "IMPROVED"),
        (2, 20, "REGRESSED"),
        (9, 2, "NO_EVIDENCE"),
        (0, 0, "NO_EVIDENCE"),
        (50, 50, "NO_EVIDENCE"),
    ],
)
def test_the_verdict_follows_the_p_value_and_the_sign(gained: int, lost: int, expected: str) -> None:
    pairs = [(False, True)] * gained + [(True, False)] * lost + [(True, True)] * 3
    assert verdict(paired_difference(pairs)) == expected


def test_categories_come_in_order() -> None:
    rows = by_category([("b", True), ("a", False), ("b", False), ("", True)])
    assert [(row.category, row.accuracy.correct_count, row.accuracy.item_count) for row in rows] == [
        ("", 1, 1),
        ("a", 0, 1),
        ("b", 1, 2),
    ]

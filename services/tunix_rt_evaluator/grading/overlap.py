"""How much two bags have in common."""

from __future__ import annotations

from collections import Counter
from typing import TypeVar

T = TypeVar("T")


def f1(given: Counter[T], wanted: Counter[T]) -> float:
    """The harmonic mean of precision and recall, 2 * shared / (given + wanted); 1 for two empty bags."""
    total = given.total() + wanted.total()
    return 2 * (given & wanted).total() / total if total else 1.0

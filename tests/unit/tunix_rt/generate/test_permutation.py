"""Seeded permutations without a table."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunix_rt.generate.sequence import keyed_number, mixed_radix, permuted


@given(st.integers(1, 700), st.integers(0, 2**64))
def test_every_number_once(size: int, seed: int) -> None:
    assert sorted(permuted(place, size, seed) for place in range(size)) == list(range(size))


def test_keys_and_seeds_give_other_orders() -> None:
    orders = {
        tuple(permuted(place, 50, *key) for place in range(50)) for key in [(1,), (2,), (1, "a"), (1, "b")]
    }
    assert len(orders) == 4
    assert tuple(range(50)) not in orders


@pytest.mark.parametrize("place", [-1, 10])
def test_a_place_outside(place: int) -> None:
    with pytest.raises(ValueError, match=f"place is {place}; a number from 0 to 9"):
        permuted(place, 10, 0)


def test_key_parts_do_not_run_together() -> None:
    assert keyed_number("a", "bc") != keyed_number("ab", "c")
    assert keyed_number(1, 23) != keyed_number(12, 3)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4))
def test_mixed_radix_counts_every_combination(sizes: list[int]) -> None:
    choices = [range(size) for size in sizes]
    combinations = {mixed_radix(number, choices) for number in range(math.prod(sizes))}
    assert len(combinations) == math.prod(sizes)

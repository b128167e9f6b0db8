"""Which rows share a sequence."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tunix_rt_kit.packing import pack

CAPACITY = 32
lengths = st.lists(st.integers(1, CAPACITY), max_size=60)


@given(lengths)
def test_packing_puts_each_item_into_one_row_that_it_fits(sizes: list[int]) -> None:
    rows = pack(sizes, CAPACITY)
    assert sorted(item for row in rows for item in row) == list(range(len(sizes)))
    assert all(row and sum(sizes[item] for item in row) <= CAPACITY for row in rows)


@given(lengths)
def test_packing_opens_a_row_only_for_what_fits_no_other(sizes: list[int]) -> None:
    rows = pack(sizes, CAPACITY)
    room = [CAPACITY - sum(sizes[item] for item in row) for row in rows]
    assert all(
        room[earlier] < sizes[rows[later][0]] for later in range(len(rows)) for earlier in range(later)
    )


def test_packing_takes_the_fullest_row_that_still_fits() -> None:
    assert pack([20, 28, 12, 4], CAPACITY) == [[1, 3], [0, 2]]
    assert pack([32, 16, 16], CAPACITY) == [[0], [1, 2]]
    assert pack([], CAPACITY) == []

"""Where two answers differ."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tunix_rt_evaluator.report.html import Part, differences


def marked(parts: list[Part]) -> str:
    return "".join(f"[{part.text}]" if part.changed else part.text for part in parts)


@pytest.mark.parametrize(
    ("before", "after", "first", "second"),
    [
        ("", "", "", ""),
        ("the same", "the same", "the same", "the same"),
        ("So 3 + 4 = 8.", "So 3 + 4 = 7.", "So 3 + 4 = [8].", "So 3 + 4 = [7]."),
        ("It is 1,200 now", "It is 1,300 now", "It is [1,200] now", "It is [1,300] now"),
        ("one two three", "one three", "one [two] three", "one three"),
        ("a b c d", "a x y d", "a [b c] d", "a [x y] d"),
        (
            "1. add\nAnswer: 5\n",
            "1. add\n2. more\nAnswer: 5\n",
            "1. add\nAnswer: 5\n",
            "1. add\n[2. more]\nAnswer: 5\n",
        ),
        ("", "new", "", "[new]"),
    ],
)
def test_what_the_other_text_lacks_is_marked(before: str, after: str, first: str, second: str) -> None:
    one, two = differences(before, after)
    assert (marked(one), marked(two)) == (first, second)


# What grows with the square of the length takes hours here, not a second.
@pytest.mark.timeout(300)
@pytest.mark.parametrize("unit", ["word ", "word\n"])
def test_very_long_texts_are_marked_coarsely(unit: str) -> None:
    before, after = unit * 50_000, unit * 50_000 + "end"
    one, two = differences(before, after)
    assert "".join(part.text for part in one) == before
    assert "".join(part.text for part in two) == after
    assert two[-1].changed


@given(st.text("ab 1.\n", max_size=60), st.text("ab 1.\n", max_size=60))
@example("\n\n.1", "1\n\n\n1")
def test_nothing_is_lost_and_what_is_not_marked_is_in_both(before: str, after: str) -> None:
    one, two = differences(before, after)
    assert "".join(part.text for part in one) == before
    assert "".join(part.text for part in two) == after
    for parts in (one, two):
        assert all(part.text for part in parts)
        assert all(left.changed is not right.changed for left, right in pairwise(parts))
    if before == after:
        assert not any(part.changed for part in one)
    else:
        assert any(part.changed for part in (*one, *two))

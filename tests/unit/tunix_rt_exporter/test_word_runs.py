"""What counts as a word, and the numbers of runs of words."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tunix_rt_exporter.datasets.word_runs import WordHasher, words


def test_words() -> None:
    assert words("It's  JOHN\u2019s $1,000.50, not 1,2.") == ["it's", "john's", "1000.50", "not", "1,2"]
    assert words("\uff11\uff0c\uff10\uff10\uff10 \ufe5012") == ["1000", "12"]
    assert words("A 120-page book: 3 - 4, 3-4 = \u22121") == (
        ["a", "120", "page", "book", "3", "-", "4", "3", "-", "4", "=", "-", "1"]
    )
    assert words("\uff11\uff12 \u00e9t\u00e9 Stra\u00dfe") == ["12", "\u00e9t\u00e9", "strasse"]
    assert words(" ?!... ") == []


@given(st.lists(st.lists(st.sampled_from("abc"), max_size=6), min_size=1, max_size=6))
def test_equal_runs_have_equal_numbers_and_others_do_not(texts: list[list[str]]) -> None:
    every = WordHasher().runs(texts)
    hashed = every.runs([1, 3])
    for length, hashes in hashed.items():
        known: dict[tuple[str, ...], int] = {}
        place = 0
        for text in texts:
            for start in range(len(text)):
                assert every.left[place] == len(text) - start
                if start + length <= len(text):
                    run = tuple(text[start : start + length])
                    assert known.setdefault(run, int(hashes[place])) == int(hashes[place])
                place += 1
        assert len(set(known.values())) == len(known)
    assert np.array_equal(np.diff(every.starts), [len(text) for text in texts])

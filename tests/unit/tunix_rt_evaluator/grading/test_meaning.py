"""What carries meaning is never dropped: no two texts that mean different things are the same to a grader."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from tunix_rt_evaluator.eval_sets.model import EvalItem
from tunix_rt_evaluator.grading.reading.spelling import normalise
from tunix_rt_evaluator.grading.service import Grading

GRADING = Grading()

# Each differs from each other in a sign, a mark or a bracket, and means something else.
_DIFFERENT = """
5 -5 ±5 5% -5% $5 5! 5!! 5² 5⁵ 5_2 5' 5/7 7/5 1.5 15 0.5 .06 5,000 50 5x x -x x' x'' x² x_1 |x| x! √x
C C# C++ A A+ A- .NET NET Node.js Node [0,5) [0,5] (0,5] <5 >5 ≤5 ≥5 ≠5 ~5 5° 5-6 5:6 5^6 H2O H2O2
\\pi -\\pi \\frac13 -\\frac13 half #5 @x x=5 x>5
"""
DIFFERENT = _DIFFERENT.split()
_NUMBERS = """
5 -5 ±5 5% 5² 5^2 5/7 7/5 1.5 15 0.5 .5 5,000 50 5.5 -5.5 5e3 55 2^5 -0.5 1,005 5/70 2**5
"""
NUMBERS = _NUMBERS.split()
_NAMES = "C C# C++ A A+ A- .NET NET Node.js Node x -x x' x'' can can't cat concatenate cats F F#"
NAMES = _NAMES.split()
SENTENCES = ("{}", "It is {}.", "({})", "**{}**", "So {}, as they say", "{} it is")


def graded(kind: str, accepted: str, output: str, **settings: Any) -> bool:
    item = EvalItem(id="q", prompt="?", accepted_answers=(accepted,), grader={"kind": kind, **settings})
    verdict = GRADING.grade(item, output)
    assert verdict.error == ""
    return verdict.correct


@pytest.mark.parametrize(("kind", "settings"), [("text", {}), ("set", {}), ("token_f1", {"threshold": 1.0})])
def test_of_texts_that_mean_something_else_none_is_right(kind: str, settings: dict[str, Any]) -> None:
    pairs = list(permutations(DIFFERENT, 2))
    assert len(pairs) >= 3_000
    wrong = [pair for pair in pairs if graded(kind, pair[0], f"Answer: {pair[1]}", **settings)]
    assert wrong == []
    assert all(graded(kind, text, f"Answer: {text}", **settings) for text in DIFFERENT)


def test_a_set_with_another_entry_is_wrong() -> None:
    pairs = [pair for pair in permutations(DIFFERENT, 2) if not any("," in text for text in pair)]
    assert len(pairs) >= 2_500
    wrong = [pair for pair in pairs if graded("set", f"{{1, {pair[0]}}}", f"Answer: {pair[1]}, 1")]
    assert wrong == []


@pytest.mark.parametrize(
    ("texts", "settings"), [(NUMBERS, {}), (NUMBERS, {"whole_words": True}), (NAMES, {"whole_words": True})]
)
def test_what_is_part_of_something_else_is_not_contained(texts: list[str], settings: dict[str, Any]) -> None:
    wrong = [
        (wanted, given, sentence)
        for wanted, given in permutations(texts, 2)
        for sentence in SENTENCES
        if graded("contains", wanted, f"Answer: {sentence.format(given)}", **settings)
    ]
    assert wrong == []
    assert all(
        graded("contains", text, f"Answer: {sentence.format(text)}", **settings)
        for text in texts
        for sentence in SENTENCES
    )


PLAIN = st.text(st.characters(categories=["L", "N", "S", "P"]), min_size=1, max_size=12)
AROUND = st.sampled_from(
    ['"{}"', "'{}'", "`{}`", "*{}*", "**{}**", "\u00ab{}\u00bb", "  {}\u3000", "\u2028{}"]
)


@given(PLAIN, st.lists(AROUND, max_size=3, unique=True))
def test_quotation_marks_emphasis_and_space_around_the_whole_mean_nothing(
    text: str, around: list[str]
) -> None:
    # Of emphasis inside emphasis it cannot be told which stars belong together.
    assume(not {"*{}*", "**{}**"} <= set(around))
    # Where the text has such marks of its own, they are not around the whole, or not these alone.
    if any(
        mark in text for mark in "\"'`*_$\u2018\u2019\u201c\u201d\u201e\u00ab\u00bb\u300c\u300d\u300e\u300f"
    ):
        return
    written = text
    for each in around:
        written = each.format(written)
    assert normalise(written.upper()) == normalise(text.upper())


@given(PLAIN)
@example("ß!")
def test_normalising_twice_changes_nothing(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


SIGNS = st.text(st.sampled_from("5x-+%!#()[]{}.,/^ "), max_size=6)


@given(SIGNS, SIGNS)
def test_of_signs_only_a_sentence_mark_may_go(left: str, right: str) -> None:
    if normalise(left) == normalise(right):
        bare = [" ".join(text.rstrip(" .!").split()) for text in (left, right)]
        assert bare[0] == bare[1]

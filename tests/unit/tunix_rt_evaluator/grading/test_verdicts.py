"""What counts as the same answer, a row of a table a case."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from support.verdict_numbers import EXACT, MATHEMATICS, TOLERANT
from support.verdict_texts import CHOICES, CITIES, CONTAINS, F1, FORMAT, JSON, PERSON, REGEX, SETS, TEXT
from tunix_rt_evaluator.eval_sets.model import EvalItem
from tunix_rt_evaluator.grading.model import Verdict
from tunix_rt_evaluator.grading.service import Grading

R, W = True, False
GRADING = Grading()


def graded(kind: str, accepted: list[str], output: str, **settings: Any) -> Verdict:
    """The verdict of a grader of ``kind`` with ``settings``."""
    item = EvalItem(id="q", prompt="?", accepted_answers=tuple(accepted), grader={"kind": kind, **settings})
    assert list(GRADING.problems(item)) == []
    return GRADING.grade(item, output)


def cases() -> Iterator[tuple[str, Mapping[str, Any], list[str], str, bool]]:
    """Every row, as (kind, settings, accepted answers, output, right or wrong)."""
    plain = {"numeric": EXACT, "text": TEXT, "set": SETS, "math": MATHEMATICS}
    for kind, rows in plain.items():
        yield from ((kind, {}, [accepted], output, right) for accepted, output, right in rows)
    for accepted, output, right in CHOICES:
        yield "multiple_choice", {"options": CITIES}, [accepted], output, right
    for kind, some in {"numeric": TOLERANT, "regex": REGEX}.items():
        yield from ((kind, settings, [accepted], output, right) for settings, accepted, output, right in some)
    for kind, listed in {"contains": CONTAINS, "json_schema": JSON}.items():
        yield from ((kind, settings, accepted, output, right) for settings, accepted, output, right in listed)
    yield from (("format", settings, [], output, right) for settings, output, right in FORMAT)
    for settings, accepted, output, _, right in F1:
        yield "token_f1", settings, [accepted], output, right


CASES = list(cases())


@pytest.mark.parametrize(("kind", "settings", "accepted", "output", "right"), CASES)
def test_verdict(
    kind: str, settings: Mapping[str, Any], accepted: list[str], output: str, right: bool
) -> None:
    verdict = graded(kind, accepted, output, **settings)
    assert (verdict.correct, verdict.error) == (right, "")


def test_the_table_is_long_enough_and_no_row_stands_twice() -> None:
    assert len(CASES) >= 150
    assert len({repr(case) for case in CASES}) == len(CASES)
    # Of each kind there are right ones and wrong ones: none says the same to everything.
    for kind in {case[0] for case in CASES}:
        assert {right for kind_, *_, right in CASES if kind_ == kind} == {True, False}


@pytest.mark.parametrize(("settings", "accepted", "output", "score", "right"), F1)
def test_words_in_common_give_a_score(
    settings: Mapping[str, Any], accepted: str, output: str, score: float, right: bool
) -> None:
    verdict = graded("token_f1", [accepted], output, **settings)
    assert verdict.score == pytest.approx(score)
    assert verdict.correct is right


def test_an_unmarked_formula_counts_where_the_model_came_to_its_end_and_wrote_it_itself() -> None:
    def of(prompt: str, output: str, *, cut: bool = False) -> Verdict:
        item = EvalItem(id="q", prompt=prompt, accepted_answers=("8",), grader={"kind": "math"})
        return GRADING.grade(item, output, cut=cut)

    assert of("What is 48 / 6?", "So it is 8.").correct
    assert of("What is 48 / 6?", "So it is 8.").unmarked
    assert not of("What is 48 / 6?", "So it is 8.", cut=True).correct
    assert not of("What is 48 / 6?", "48/6").correct
    assert not of("What is $48 / 6$?", "It is $48/6$.").correct
    copied = of("What is 48 / 6?", r"\boxed{48/6}")
    assert (copied.correct, copied.explanation) == (False, "it only repeats the question")
    assert of("What is 48 / 6?", r"\boxed{16/2}").correct
    assert of("Is it 7 or 8?", "8").correct
    assert not of("What is 48 / 6?", r"\boxed{8}").unmarked


def test_entries_and_words_in_part_give_a_score_in_part() -> None:
    assert graded("set", ["2, 3, 5"], "Answer: 2, 3").score == pytest.approx(0.8)
    assert graded("contains", ["cat", "dog"], "Answer: a dog", all=True).score == 0.5
    assert graded("numeric", ["2"], "Answer: 2").score is None


def test_any_accepted_answer_is_right() -> None:
    assert graded("text", ["gold", "Au"], "Answer: au").correct
    assert graded("numeric", ["1/4", "25%"], "Answer: 0.25").correct
    assert graded("math", ["x", "y"], "Answer: $y$").correct
    assert graded("set", ["1, 2", "3, 4"], "Answer: 4, 3").correct


def test_the_answer_that_was_read_is_shown() -> None:
    assert graded("numeric", ["7"], "Answer: about $1,250.50 a month").extracted_answer == "$1,250.50"
    assert graded("numeric", ["7"], "Answer: 5 or 6").extracted_answer == "5 or 6"
    assert graded("numeric", ["7"], "nothing").extracted_answer == ""
    assert graded("text", ["x"], "Answer: **Paris.**\nBye").extracted_answer == "**Paris.**"
    assert graded("multiple_choice", ["A"], "Answer: london", options=CITIES).extracted_answer == "B"
    assert graded("math", ["7"], "So it is $\\frac{1}{2}$.").extracted_answer == "$\\frac{1}{2}$."
    assert graded("math", ["7"], "So it is $\\frac{1}{2}$.").unmarked
    assert graded("regex", [r"\d+"], "Answer: call 42").extracted_answer == "42"


def test_what_is_wrong_with_a_form_or_a_document_is_told() -> None:
    wrong = graded("format", [], "Reasoning:\n1. One.\n3. Two.\nAnswer: 3")
    assert wrong.explanation == "line 3 is not step 2, '2. ...'"
    wrong = graded("json_schema", [], '{"name": 3}', schema=PERSON)
    assert wrong.explanation == "$.name: 3 is not of type 'string'"
    wrong = graded("numeric", ["5"], "Answer: 5 g", units=["kg"])
    assert wrong.explanation == "the number is right, its unit is not"


@pytest.mark.parametrize(
    ("output", "right"),
    [
        ("Answer: 18", R),
        ("9 and 9 is\n#### 18", R),
        (r"So it is $\boxed{18}$.", R),
        ("The answer is 18.", R),
        ("She has 18", W),
        ("First 9,\nthen 18", W),
        ("18", W),
        ("Answer: 17\n18", W),
    ],
)
def test_a_number_without_a_mark_does_not_count_where_answers_must_be_marked(
    output: str, right: bool
) -> None:
    assert graded("numeric", ["18"], output, marked=True).correct is right
    assert graded("numeric", ["18"], output).correct is (output != "Answer: 17\n18")

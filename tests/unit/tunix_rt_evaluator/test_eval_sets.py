"""What makes an eval set wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tunix_rt.errors import FieldViolation, InvalidArgumentError
from tunix_rt.formats import error_of_lines, grader_for, numbered_eval_items
from tunix_rt_evaluator.eval_sets.model import EvalSetDraft
from tunix_rt_evaluator.eval_sets.service import checked_items
from tunix_rt_evaluator.grading.service import Grading
from tunix_rt_kit.errors import InvalidArgument

GRADING = Grading()


def item(number: int, answer: str, **grader: Any) -> dict[str, Any]:
    return {
        "id": f"q{number}",
        "prompt": f"What is {number}?",
        "accepted_answers": (answer,),
        "grader": {"kind": "numeric"} | grader,
    }


def draft(items: list[dict[str, Any]]) -> EvalSetDraft:
    return EvalSetDraft(id="x", description="", items=items, size_bytes=1)


def test_one_unreadable_answer_among_10_000_is_named() -> None:
    items = [item(number, str(number)) for number in range(10_000)]
    items[7_777] = item(7_777, r"\sqrt{2}")
    with pytest.raises(InvalidArgument) as caught:
        checked_items(draft(items), GRADING)
    (wrong,) = caught.value.violations
    assert wrong.field == "eval_set.items[7777].accepted_answers[0]"
    assert wrong.description.startswith(r"is '\\sqrt{2}', which is not one number")


def test_an_error_about_items_names_the_lines_that_they_came_from(tmp_path: Any) -> None:
    rows = [item(number, "1") | {"grader": "numeric"} for number in range(4)]
    file = tmp_path / "items.jsonl"
    file.write_text("\n\n".join(json.dumps(row) for row in rows))
    lines = [line for line, _ in numbered_eval_items(file)]
    assert lines == [1, 3, 5, 7]
    violations = [
        FieldViolation("eval_set.items[2].accepted_answers[0]", "is wrong"),
        FieldViolation("eval_set.items[1].id", "is the same"),
    ]
    error = InvalidArgumentError("both", field_violations=violations)
    found = error_of_lines(error, "items.jsonl", lines)
    assert str(found) == "items.jsonl, line 3: id: is the same (and 1 more)"
    assert [entry.field for entry in found.field_violations] == ["line 3: id", "line 5: accepted_answers[0]"]
    other = InvalidArgumentError("no", field_violations=[FieldViolation("eval_set.eval_set_id", "is empty")])
    assert error_of_lines(other, "items.jsonl", lines) is other


NUMBERS = [
    r"5",
    r"-5",
    r"1,234.5",
    r".5",
    r"3/4",
    r"50 %",
    r"+2",
    r"$1,000",
    r"\$36",
    r"$36$",
    r"1e5",
    r"10 000",
    r"2½",
    r"5.",
]
MATHEMATICS = [
    r"\sqrt{2}",
    r"3\pi",
    r"x>5",
    r"\frac{\pi}{6}",
    r"(3,\infty)",
    r"101_2",
    r"2x",
    r"x^2 + 1",
    r"x+1",
    r"(1, 2)",
    r"[0,1)",
    r"{1, 2}",
    r"\{1,2\}",
    r"5!",
    r"±1",
    r"\pm 1",
    r"x = 3",
    r"x=2 or x=-2",
    r"90^\circ",
    r"\sin x",
    r"3 + 4i",
    r"2^{10}",
    r"e^x",
    r"-x",
    r"y'",
    r"2, 3",
    r"1,2",
    r"2\sqrt{3}",
    r"x_1",
    r"\sin x",
    r"sin x",
    r"log 2",
    r"\begin{pmatrix}1\\2\end{pmatrix}",
    r"\frac{\pi}{6}",
    r"(3,\infty)",
    r"101_2",
    r"$x + 1$",
]
TEXTS = [
    "2024-05-01",
    "3:30",
    "1.2.3",
    "555-1234",
    "3-4",
    "C#",
    "C++",
    "CO2",
    "H2O",
    "Paris",
    "A",
    "x",
    "yes",
    "5 km",
    "5k",
    "5 or 6",
    "A-B",
    "and/or",
    "rock & roll",
    "twenty-one",
    "5 May",
    "New York",
    "3.14...",
    "",
    "Use <br> here",
]


@pytest.mark.parametrize(
    ("kind", "answers"), [("numeric", NUMBERS), ("math", MATHEMATICS), ("text", TEXTS)], ids=str
)
def test_the_grader_is_chosen_by_the_answer(kind: str, answers: list[str]) -> None:
    assert {answer: grader_for(answer) for answer in answers} == dict.fromkeys(answers, kind)


@pytest.mark.parametrize(
    ("kind", "answers"), [("numeric", NUMBERS), ("math", MATHEMATICS), ("text", TEXTS)], ids=str
)
def test_a_server_chooses_the_grader_where_none_is_said(kind: str, answers: list[str]) -> None:
    # What the numeric grader reads is a number for the server, also with a unit or an unknown.
    answers = [answer for answer in answers if answer and answer not in ("5 km", "5k", "x = 3", r"90^\circ")]
    items = [item(number, answer) | {"grader": None} for number, answer in enumerate(answers)]
    found = {each.accepted_answers[0]: each.grader.kind for each in checked_items(draft(items), GRADING)}
    assert found == dict.fromkeys(answers, kind)


def test_a_server_chooses_mathematics_where_some_answers_are_numbers() -> None:
    (both,) = checked_items(
        draft([{**item(1, "1"), "accepted_answers": ("0.5", r"\sqrt 2"), "grader": None}]), GRADING
    )
    assert both.grader.kind == "math"
    (words,) = checked_items(
        draft([{**item(1, "1"), "accepted_answers": ("0.5", "half"), "grader": None}]), GRADING
    )
    assert words.grader.kind == "text"


def test_what_is_chosen_for_a_number_can_be_read_as_one() -> None:
    items = [item(number, answer) for number, answer in enumerate(NUMBERS)]
    assert len(checked_items(draft(items), GRADING)) == len(NUMBERS)

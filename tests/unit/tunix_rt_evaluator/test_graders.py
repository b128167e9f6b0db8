"""What counts as the same answer."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import pytest

from tunix_rt_evaluator.graders import VERSIONS, find_numbers, grade, normalise, read_number
from tunix_rt_evaluator.model import NumericGrader, TextGrader

R, W = True, False

# (accepted answer, tolerance, the model's whole output, right or wrong)
NUMERIC = [
    ("18", 0, "Reasoning:\n1. 16 - 3 - 4 = 9\n2. 9 * 2 = 18\nAnswer: 18", R),
    ("18", 0, "Answer: 19", W),
    ("18", 0, "18", R),
    ("18", 0, "The answer is 18.", R),
    ("18", 0, "First 9, then 18", R),
    ("18", 0, "18 is what I get, or 20", W),
    ("18", 0, "Answer: 9\nNo, wait.\nAnswer: 18", R),
    ("18", 0, "Answer: 18\n\nQuestion: What is 3 + 4?", R),
    ("18", 0, "Answer:", W),
    ("18", 0, "", W),
    ("18", 0, "eighteen", W),
    ("18", 0, "Answer: **18**", R),
    ("18", 0, "**Answer:** $18", R),
    ("18", 0, r"Answer: \boxed{18}", R),
    ("18", 0, "Answer: $18$", R),
    ("18", 0, "Answer: 18.0", R),
    ("18", 0, "Answer: 18.", R),
    ("18", 0, "Answer: 9 * 2 = 18", R),
    ("18", 0, "Answer: 18 eggs", R),
    ("18", 0, "Answer: 18kg", R),
    ("18", 0, "Answer: 18 m^2", R),
    ("18", 0, "Answer: 18 cm2", R),
    ("18", 0, "Answer: 18 m\u00b2", R),
    ("18", 0, "Answer: 180", W),
    ("18", 0, "Answer: 1 8", W),
    ("18", 0, "Answer: -18", W),
    ("-18", 0, "Answer: -18", R),
    ("-18", 0, "Answer: \u221218", R),
    ("-18", 0, "Answer: 18", W),
    ("5", 0, "Answer: 10-5", R),
    ("-5", 0, "Answer: 10-5", W),
    ("-5", 0, "Answer: x = -5", R),
    ("-5", 0, "Answer: -$5", R),
    ("-5", 0, "Answer: $-5", R),
    ("1234", 0, "Answer: 1,234", R),
    ("1,234", 0, "Answer: 1234", R),
    ("1234567.5", 0, "Answer: $1,234,567.50", R),
    ("10000", 0, "Answer: 10\u202f000", R),
    ("1234", 0, "Answer: 1,234, exactly", R),
    ("12", 0, "Answer: 1,2", W),
    ("1250.5", 0, "Answer: \u20ac1,250.50 a month", R),
    ("0.5", 0, "Answer: 0.5", R),
    ("0.5", 0, "Answer: .5", R),
    ("0.5", 0, "Answer: 1/2", R),
    ("0.5", 0, "Answer: \u00bd", R),
    ("0.5", 0, r"Answer: \frac{1}{2}", R),
    ("0.5", 0, "Answer: 50%", R),
    ("0.5", 0, "Answer: 0.5 or 50%", R),
    ("0.5", 0, "Answer: 50 percent", R),
    ("0.5", 0, "Answer: 0.5%", R),  # a percentage may be asked for: 0.5% is 0.5 too
    ("1/2", 0, "Answer: 2/4", R),
    ("1/3", 0, "Answer: 0.3333", W),
    ("1/3", 0.001, "Answer: 0.3333", R),
    ("1/3", 0.001, "Answer: 0.335", W),
    ("2.5", 0, "Answer: 2 1/2", R),
    ("2.5", 0, "Answer: 2\u00bd", R),
    ("2.5", 0, "Answer: 5/2 hours", R),
    ("60", 0, "Answer: 60%", R),
    ("60%", 0, "Answer: 60", R),
    ("60%", 0, "Answer: 0.6", R),
    ("60%", 0, "Answer: 0.6%", W),
    ("60%", 0, "Answer: 60 %", R),
    ("6", 0, "Answer: 60%", W),
    ("1500", 0, "Answer: 1.5 x 10^3", R),
    ("1500", 0, "Answer: 1.5e3", R),
    ("0.015", 0, "Answer: 1.5 \u00d7 10^{-2}", R),
    ("153.9", 0.05, "Answer: 153.94 square centimetres", R),
    ("153.9", 0.05, "Answer: 153.95", R),
    ("153.9", 0.05, "Answer: 153.96", W),
    ("0.1", 0.3, "Answer: 0.4", R),
    ("7", 0, "Answer: the 7th", R),
    ("2", 0, "Answer: H2O", W),
    ("0", 0, "Answer: 0/7", R),
    ("3", 0, "Answer: 3/0", W),
    ("9", 0, "Answer: " + "9" * 5000, W),
]

# (accepted answer, output, right or wrong)
TEXT = [
    ("Paris", "Answer: Paris", R),
    ("Paris", "Answer: paris.", R),
    ("Paris", "Answer: **Paris**", R),
    ("Paris", 'Answer: "Paris"!', R),
    ("Paris", "Paris", R),
    ("Paris", "Answer: Paris\nThat was easy.", R),
    ("Paris", "Reasoning:\n1. France\nAnswer:   Paris  ", R),
    ("Paris", "The capital is Paris.", W),
    ("Paris", "Answer: Paris, Texas", W),
    ("Paris", "Answer: Pari", W),
    ("Paris", "Answer:", W),
    ("Paris", "", W),
    ("carbon dioxide", "Answer: Carbon\u00a0 dioxide", R),
    ("CO2", "Answer: CO\u2082", R),
    ("Au", "Answer: AU", R),
    ("The Beatles", "Answer: Beatles", R),
    ("Beatles", "Answer: the Beatles", R),
    ("vitamin a", "Answer: Vitamin A.", R),
    ("vitamin", "Answer: Vitamin A.", W),
    ("A", "Answer: A", R),
    ("A", "Answer: (A)", R),
    ("A", "Answer: B", W),
    ("it's", "Answer: It\u2019s", R),
    ("rock 'n' roll", "Answer: rock \u2018n\u2019 roll", R),
    ("stra\u00dfe", "Answer: STRASSE", R),
    ("\ufb01sh", "Answer: fish", R),
    ("3", "Answer: three", W),
    ("!", "Answer: !", R),
    ("one\ntwo", "Answer: one\ntwo", R),
]


@pytest.mark.parametrize(("accepted", "tolerance", "output", "right"), NUMERIC)
def test_numbers(accepted: str, tolerance: float, output: str, right: bool) -> None:
    assert grade(NumericGrader(tolerance=tolerance), [accepted], output).correct is right


@pytest.mark.parametrize(("accepted", "output", "right"), TEXT)
def test_texts(accepted: str, output: str, right: bool) -> None:
    assert grade(TextGrader(), [accepted], output).correct is right


def test_any_accepted_answer_is_right() -> None:
    assert grade(TextGrader(), ["gold", "Au"], "Answer: au").correct
    assert grade(NumericGrader(), ["1/4", "25%"], "Answer: 0.25").correct


def test_the_answer_is_shown_as_it_was_written() -> None:
    assert grade(NumericGrader(), ["7"], "Answer: about $1,250.50 a month").extracted_answer == "$1,250.50"
    assert grade(TextGrader(), ["x"], "Answer: **Paris.**\nBye").extracted_answer == "**Paris.**"
    assert grade(NumericGrader(), ["7"], "nothing").extracted_answer == ""


@pytest.mark.parametrize("text", ["12", "-1/2", "2 1/2", "50%", "$1,000", "12 cm", "1e3"])
def test_a_text_that_is_one_number(text: str) -> None:
    assert read_number(text) is not None


@pytest.mark.parametrize("text", ["", "twelve", "5 or 6", "3,5", "3:30", "1/0", "H2O"])
def test_a_text_that_is_not_one_number(text: str) -> None:
    assert read_number(text) is None


def test_several_numbers_are_read_from_left_to_right() -> None:
    values = [number.value for number in find_numbers("1,000 then 3/4, -2 and 1e2")]
    assert values == [1000, Fraction(3, 4), -2, 100]


# What grows with the square of the length takes hours here, not the second or two of what does not.
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("1 " * 500_000, 500_000),
        ("1" + " " * 1_000_000, 1),
        ("1," * 500_000, 500_000),
        ("9" * 1_000_000, 0),
        ("1/" * 500_000, 500_000),
    ],
    ids=["spaces between", "spaces after", "commas", "digits", "fractions"],
)
def test_a_long_hostile_text_is_read_to_its_end(text: str, count: int) -> None:
    assert len(find_numbers(text)) == count


def test_normalising_twice_changes_nothing() -> None:
    for accepted, output, _ in TEXT:
        for text in (accepted, output):
            assert normalise(normalise(text)) == normalise(text)


def test_every_answer_of_the_own_eval_set_is_right_by_its_grader() -> None:
    path = Path(__file__).parents[3] / "clients" / "tunix_rt" / "data" / "eval_v1.jsonl"
    for line in path.read_text(encoding="utf-8").splitlines():
        item = json.loads(line)
        grader = (
            NumericGrader(tolerance=item.get("tolerance", 0)) if item["grader"] == "numeric" else TextGrader()
        )
        for answer in item["accepted_answers"]:
            verdict = grade(grader, item["accepted_answers"], f"Reasoning:\n1. It is so.\nAnswer: {answer}")
            assert verdict.correct, (item["id"], answer)
            if isinstance(grader, NumericGrader):
                assert read_number(answer) is not None


def test_graders_are_named_with_their_versions() -> None:
    assert VERSIONS == {"numeric": "numeric/1", "text": "text/1"}

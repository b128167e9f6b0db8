# ruff: noqa: RUF001 (letters of other scripts are meant)
"""Reading answers and numbers out of texts, hostile ones included."""

from __future__ import annotations

import json
from fractions import Fraction
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.timing import cheaply
from tunix_rt_evaluator.eval_sets.model import EvalItem
from tunix_rt_evaluator.grading.reading.answers import read_answer
from tunix_rt_evaluator.grading.reading.numbers import find_numbers
from tunix_rt_evaluator.grading.reading.spelling import normalise, plain
from tunix_rt_evaluator.grading.reading.statements import read_number
from tunix_rt_evaluator.grading.service import Grading
from tunix_rt_kit.chat.messages import render_response

GRADING = Grading()
LINE = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1, max_size=40).filter(
    lambda text: text.strip() == text and len(text.splitlines()) == 1
)


@pytest.mark.parametrize(
    "text", ["12", "-1/2", "2 1/2", "50%", "$1,000", "12 cm", "1e3", "10 000", "3 Million"]
)
def test_a_text_that_is_one_number(text: str) -> None:
    assert read_number(text) is not None


@pytest.mark.parametrize("text", ["", "twelve", "5 or 6", "3,5", "3:30", "1/0", "H2O", "10 000 of 20"])
def test_a_text_that_is_not_one_number(text: str) -> None:
    assert read_number(text) is None


def test_several_numbers_are_read_from_left_to_right() -> None:
    values = [number.value for number in find_numbers("1,000 then 3/4, -2 and 1e2")]
    assert values == [1000, Fraction(3, 4), -2, 100]


@given(st.integers(-(10**15), 10**15), st.sampled_from([",", "\u202f", "\u00a0", "'", "_"]))
def test_grouped_thousands_are_the_number(value: int, separator: str) -> None:
    written = f"{value:,}".replace(",", separator)
    number = read_number(f"Answer: {written} eggs")
    assert number is not None
    assert number.value == value


@given(st.decimals(allow_nan=False, allow_infinity=False, places=4, min_value=-(10**9), max_value=10**9))
def test_a_decimal_is_its_own_value(value: object) -> None:
    number = read_number(f"{value:f}")
    assert number is not None
    assert number.value == Fraction(str(value))


@pytest.mark.parametrize(
    ("output", "text"),
    [
        # What touches a box, or stands in one formula with it, makes another value of it.
        (r"So -\boxed{5}", "-5"),
        (r"$-\boxed{5}$", "-5"),
        (r"-$\boxed{5}$", "-5"),
        (r"\boxed{5}\%", r"5\%"),
        (r"$\boxed{5}$%", "5%"),
        (r"$2\boxed{5}$", "2{5}"),
        (r"$x > \boxed{5}$", "x > 5"),
        (r"x \ne \boxed{5}", r"x \ne 5"),
        (r"$\sqrt{\boxed{5}}$", r"\sqrt{5}"),
        (r"$x^{\boxed{2}}$", "x^{2}"),
        (r"$(\boxed{5}, 6)$", "(5, 6)"),
        (r"$\boxed{5} \text{ or } 6$", r"5 \text{ or } 6"),
        ("\\begin{align*}\nx &= 7\\\\\n&= -\\boxed{5}\n\\end{align*}", "= -5"),
        # What only introduces or explains it does not.
        (r"$2 + 3 = \boxed{5}$.", "5"),
        (r"$\boxed{5} = x$", "5"),
        (r"$\text{Answer: }\boxed{5}\text{ cm}$", "5"),
        (r"$\therefore\ \large{\boxed{5}}.$", "5"),
        ("\\[\n\\boxed{5}\n\\]", "5"),
        (r"**\boxed{5}**", "5"),
        (r"- \boxed{5}", "5"),
        (r"> (\boxed{5})!", "5"),
        (r"The answer is\boxed{5}cm", "5"),
        (r"<answer>\boxed{5}</answer>", "5"),
        (r"It costs $36, so \boxed{5}", "5"),
        (r"Do not forget: \boxed{5}", "5"),
        (r"\boxed{5} is not even", "5"),
        # What is denied, or doubted, is no answer.
        (r"The answer is not $\boxed{5}$", ""),
        (r"\boxed{5} is not the answer", ""),
        (r"$\boxed{5}$ is wrong", ""),
        (r"\boxed{ }5", ""),
        ("I do not think that the answer is 5", ""),
        ("It is false that the answer is 5", ""),
        ("I think that the answer is 5", "5"),
    ],
)
def test_an_answer_is_read_with_what_makes_another_of_it(output: str, text: str) -> None:
    answer = read_answer(output)
    assert answer.labelled
    assert answer.text == text


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("1 " * 20_000, 20_000),
        ("1" + " " * 40_000, 1),
        ("1," * 20_000, 20_000),
        ("9" * 40_000, 0),
        ("1/" * 20_000, 20_000),
        ("1. " * 20_000, 20_000),
        ("1'" * 20_000, 20_000),
        ("negative " * 20_000, 0),
        ("\\frac" * 20_000, 0),
    ],
    ids=["spaces", "spaces after", "commas", "digits", "fractions", "dots", "apostrophes", "words", "latex"],
)
def test_a_long_hostile_text_is_read_to_its_end(text: str, count: int) -> None:
    with cheaply(5):
        assert len(find_numbers(text)) == count


@pytest.mark.parametrize(
    "part", ["Answer:", "####1 ", "\\boxed{", "the answer is ", "*", "final ", "\n\n", "{", "(A) ", ". "]
)
@pytest.mark.parametrize(
    "kind", ["numeric", "text", "set", "math", "multiple_choice", "format", "token_f1", "contains"]
)
def test_a_long_hostile_answer_is_graded(part: str, kind: str) -> None:
    settings = {"options": ["1", "2"]} if kind == "multiple_choice" else {}
    item = EvalItem(id="q", prompt="?", accepted_answers=("1",), grader={"kind": kind, **settings})
    with cheaply(5):
        assert GRADING.grade(item, part * 10_000).error == ""


def test_normalising_twice_changes_nothing() -> None:
    for text in ("The  \u201cBeatles\u201d!", "(A)", "$5.", "an a", "\ufb01sh", "..."):
        assert normalise(normalise(text)) == normalise(text)


MARKED = [
    ("Antwort: C", "C"),
    ("**Antwort:** C", "C"),
    ("Die richtige Antwort lautet C", "C"),
    ("Réponse : C", "C"),
    ("La bonne réponse est C", "C"),
    ("La respuesta correcta: C", "C"),
    ("La respuesta es C", "C"),
    ("A resposta final é: C", "C"),
    ("La risposta è C", "C"),
    ("Antwoord: C", "C"),
    ("Odpowiedź: C", "C"),
    ("Cevap: C", "C"),
    ("Đáp án: C", "C"),
    ("Правильный ответ: 5", "5"),
    ("Ответ — 5", "5"),
    ("答案：C", "C"),
    ("正确答案是C", "C"),
    ("回答：C", "C"),
    ("答えはCです", "Cです"),
    ("정답: C", "C"),
    ("정답은 C입니다", "C입니다"),
    ("الإجابة: C", "C"),
    ("الإجابة الصحيحة هي C", "C"),
    ("उत्तर: 5", "5"),
    ("The correct answer: C", "C"),
    ("The answer's C", "C"),
    ("The answer to the question is C", "C"),
    ("<answer>C</answer> is what I say", "C"),
    ("<think>x</think><answer>\n\\boxed{C}\n</answer>", "C"),
    ("#### C", "C"),
]


@pytest.mark.parametrize(("output", "text"), MARKED)
def test_answers_are_marked_in_many_ways_and_languages(output: str, text: str) -> None:
    answer = read_answer(f"First, some words.\n{output}")
    assert (answer.text, answer.labelled) == (text, True)


@pytest.mark.parametrize("text", ["#### A car", "Responses: 5", "Answers: 5", "I answered 5 of them"])
def test_what_only_looks_like_a_mark_is_none(text: str) -> None:
    assert not read_answer(text).labelled


@given(st.lists(LINE, min_size=1, max_size=4), LINE)
def test_what_a_dataset_writes_has_the_form_and_its_answer_is_read(steps: list[str], answer: str) -> None:
    text = render_response(steps, answer)
    item = EvalItem(
        id="q", prompt="?", accepted_answers=(), grader={"kind": "format", "min_steps": len(steps)}
    )
    verdict = GRADING.grade(item, text)
    assert verdict.correct, verdict.explanation
    if "nswer" not in answer.lower() and "####" not in answer and "boxed" not in answer:
        assert read_answer(text).text == answer


def test_plain_text_stays_as_it_is() -> None:
    for text in ("no numbers here", "3 of 4", "a-b", "x^2"):
        assert plain(text) == text


def test_every_answer_of_the_own_eval_set_is_right_by_its_grader() -> None:
    path = files("tunix_rt") / "data" / "eval_v1.jsonl"
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        grader = {"kind": row["grader"]} | ({"tolerance": row["tolerance"]} if "tolerance" in row else {})
        item = EvalItem(
            id=row["id"], prompt=row["prompt"], accepted_answers=row["accepted_answers"], grader=grader
        )
        assert list(GRADING.problems(item)) == []
        for answer in item.accepted_answers:
            assert GRADING.grade(item, f"Reasoning:\n1. It is so.\nAnswer: {answer}").correct, (
                item.id,
                answer,
            )


@pytest.mark.parametrize(
    ("accepted", "output", "right"),
    [
        ("5", "Answer: 5. Actually, 6.", False),
        ("5", "Answer: 5. Wait, no, it is 6.", False),
        ("5", "The answer is $5$, which is prime.", True),
        ("5", "The answer is $5$, which is not right.", False),
        ("(1,2)", "The point is (1,2).", True),
        ("36", "The total is $36.", True),
        ("-5", "$x = -\\boxed{5}$", True),
        ("5", "$x = -\\boxed{5}$", False),
        ("x>5", "$x > \\boxed{5}$", True),
        ("5", "$x > \\boxed{5}$", False),
        ("5\\%", "$\\boxed{5}\\%$", True),
        ("5", "$\\boxed{5}\\%$", False),
    ],
)
def test_math_grades_what_a_text_says_in_the_end(accepted: str, output: str, right: bool) -> None:
    item = EvalItem(id="q", prompt="?", accepted_answers=(accepted,), grader={"kind": "math"})
    assert GRADING.grade(item, output).correct is right

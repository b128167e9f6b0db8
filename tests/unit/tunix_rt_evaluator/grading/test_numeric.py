"""The numeric grader: right when the text is the number, in any spelling, and never by a number in it."""

# ruff: noqa: RUF001 (signs and letters of other scripts are meant)
from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from support.number_neighbours import AROUND
from support.number_texts import CHANGED
from tunix_rt_evaluator.eval_sets.model import EvalItem
from tunix_rt_evaluator.grading.model import Verdict
from tunix_rt_evaluator.grading.service import Grading

GRADING = Grading()
NUMBERS = st.one_of(
    st.integers(-99, 99), st.integers(-(10**9), 10**9), st.integers(-999, 999).map(lambda n: n * 1000)
)
OTHERS = (lambda n: -n, lambda n: n + 1, lambda n: 10 * n, lambda n: 1000 * n)
MARKS = (
    "Answer: {}",
    "So it is $\\boxed{{{}}}$.",
    "The answer is {}.",
    "#### {}",
    "答案：{}",
    "<answer>{}</answer>",
)


def verdict(accepted: str, output: str, prompt: str = "?", *, cut: bool = False, **values: Any) -> Verdict:
    item = EvalItem(id="q", prompt=prompt, accepted_answers=(accepted,), grader={"kind": "numeric", **values})
    assert list(GRADING.problems(item)) == []
    return GRADING.grade(item, output, cut=cut)


def right(accepted: object, text: str, **values: Any) -> bool:
    return verdict(str(accepted), f"Answer: {text}", **values).correct


def spellings(number: int) -> Iterator[str]:
    """One whole number in many ways."""
    sign, digits = "-" if number < 0 else "", str(abs(number))
    grouped = f"{abs(number):,}"
    yield from (f"{sign}{grouped.replace(',', separator)}" for separator in ("", *",'’_\u00a0\u202f\u2009 "))
    yield from (f"{sign}{grouped.replace(',', latex)}" for latex in ("{,}", r"\,", r"\ ", "~", r"\;"))
    yield from (f"{minus if sign else ''}{grouped}" for minus in "−–－﹣‑")
    yield from (f"{minus if sign else ''}{digits}" for minus in ("- ", "minus ", "negative ", "负"))
    yield "".join(chr(ord(sign_or_digit) + 0xFEE0) for sign_or_digit in f"{sign}{grouped}")
    for zero in "٠۰०๐":
        yield sign + "".join(chr(ord(zero) + int(digit)) for digit in digits)
    yield from (
        f"{sign}{digits}.0",
        f"{sign}{grouped}.00",
        f"{sign}{digits}e0",
        f"+{digits}" if not sign else f"-{digits}",
    )
    yield from (
        f"{sign}${grouped}",
        f"${sign}{grouped}",
        f"{sign}{grouped} €",
        rf"{sign}\${grouped}",
        f"{sign}{grouped}kg",
    )
    yield from (
        f"{sign}{2 * abs(number)}/2",
        rf"{sign}\frac{{{3 * abs(number)}}}{{3}}",
        rf"\dfrac{{{3 * number}}}{{3}}",
    )
    yield from (
        f"**{sign}{digits}**",
        f"${sign}{digits}$",
        rf"\({sign}{digits}\)",
        rf"\text{{{sign}{digits}}}",
        f"x = {sign}{digits}",
    )
    if number % 1000 == 0:
        short = f"{sign}{abs(number) // 1000}"
        yield from (
            f"{short}k",
            f"{short} thousand",
            f"{short}·10^3",
            rf"{short} \times 10^{{3}}",
            f"{short}e3",
            f"{short} тысяч",
        )
    if number % 10_000 == 0:
        yield f"{sign}{abs(number) // 10_000}万"


@settings(max_examples=25)
@given(NUMBERS)
@example(-5)
@example(1000)
@example(1_200_000)
def test_a_number_is_right_in_every_spelling(number: int) -> None:
    wrong = [text for text in spellings(number) if not right(number, text)]
    assert wrong == []


@settings(max_examples=60)
@given(
    NUMBERS,
    st.sampled_from([lambda n: -n, lambda n: n + 1, lambda n: 10 * n, lambda n: 1000 * n]),
    st.randoms(),
)
def test_another_number_is_wrong_in_any_spelling_both_ways_round(
    one: int, another: Callable[[int], int], random: Random
) -> None:
    other = another(one)
    assume(one != other)
    assert [text for text in random.sample(list(spellings(other)), 3) if right(one, text)] == []
    assert [text for text in random.sample(list(spellings(one)), 3) if right(other, text)] == []


@pytest.mark.parametrize("number", ["5"])
def test_a_number_whose_neighbour_changes_it_is_not_right(number: str) -> None:
    texts = [text.replace("#", number) for text in CHANGED]
    outputs = [output for text in texts for output in (f"Answer: {text}", f"The answer is {text}", text)]
    assert [output for output in outputs if verdict(number, output).correct] == []


@pytest.mark.parametrize("number", ["5", "1200"])
def test_a_number_is_right_whatever_else_stands_around_it(number: str) -> None:
    texts = [text.replace("#", number) for text in AROUND]
    assert [text for text in texts if not right(number, text)] == []
    assert [text for text in texts if right(f"-{number}", text) or right(f"{number}1", text)] == []


def cases(name: str, between: str) -> Iterator[list[str]]:
    lines = Path(__file__).with_name(name).read_text(encoding="utf-8").splitlines()
    yield from (line.split(between) for line in lines[1:])


def test_a_text_that_only_holds_the_number_is_not_right() -> None:
    found = []
    for *number, text in cases("not_the_number.txt", " => "):
        accepted = number[0] if number and number[0].replace(".", "").isdigit() else "5"
        text = text if accepted != "5" or not number else " => ".join([*number, text])
        found += [text for mark in ("Answer: {}", "{}") if verdict(accepted, mark.format(text)).correct]
    assert len(found) == 0, found


def test_what_people_write_for_a_number_is_right() -> None:
    texts = [(text.replace("\\n", "\n"), number) for text, number in cases("the_number.txt", " ## ")]
    assert len(texts) > 500
    assert [text for text, number in texts if not verdict(number, text).correct] == []


@pytest.mark.parametrize(("name", "correct"), [("marks_with_18.txt", True), ("marks_without_18.txt", False)])
def test_of_several_marks_the_last_one_counts_and_what_stands_around_it(name: str, correct: bool) -> None:
    outputs = [re.sub(r"\\n(?!eq)", "\n", output) for (output,) in cases(name, "\0")]
    assert len(outputs) > 50
    assert [output for output in outputs if verdict("18", output).correct is not correct] == []


def test_around_its_marks_math_is_as_strict() -> None:
    outputs = [re.sub(r"\\n(?!eq)", "\n", output) for (output,) in cases("marks_without_18.txt", "\0")]
    item = EvalItem(id="q", prompt="?", accepted_answers=("18",), grader={"kind": "math"})
    assert [output for output in outputs if GRADING.grade(item, output, cut=False).correct] == []


@pytest.mark.parametrize("mark", MARKS)
def test_every_mark_shows_a_number(mark: str) -> None:
    assert verdict("-18", f"First 9 and 7.\n{mark.format('-18')}").correct
    assert not verdict("18", f"First 9 and 7.\n{mark.format('-18')}").correct


@settings(max_examples=100)
@given(st.lists(st.tuples(st.sampled_from(MARKS), st.integers(0, 9)), min_size=2, max_size=4))
def test_the_last_of_several_marked_answers_counts_whatever_its_mark(marked: list[tuple[str, int]]) -> None:
    output = "\n".join(mark.format(number) for mark, number in marked)
    assert [number for number in range(10) if verdict(str(number), output).correct] == [marked[-1][1]]


@pytest.mark.parametrize("output", [r"$-\boxed{5}$", r"-\boxed{5}", r"x = -\boxed{5}", r"\boxed{-5}^\circ"])
def test_a_sign_or_a_unit_outside_of_a_box_belongs_to_it(output: str) -> None:
    assert verdict("-5", output).correct
    assert not verdict("5", output).correct


SPELLED = [
    ("3.5", "3．５"),
    ("3.5", "3,5"),
    ("0.125", "0,125"),
    ("3.14159", "3,14159"),
    ("1234.5", "1 234,5"),
    ("1234.56", "1.234,56 €"),
    ("1234567", "1.234.567"),
    ("1200000", "1.2M"),
    ("1200000", "$1.2m"),
    ("5000", "5k"),
    ("5000", "5 mil"),
    ("3000000000", "3 Mrd. Euro"),
    ("2000000", "2 millions d'euros"),
    ("60", "5 dozen"),
    ("500", "5 hundred"),
    ("100000", "1,00,000"),
    ("100000", "1 lakh"),
    ("300000000", "3亿"),
    ("1.5", "١٫٥"),
    ("0.05", "٥٪"),
    ("0.005", "5‰"),
    ("0.75", "¾"),
    ("2.5", "2½"),
    ("-2.5", r"-2\frac{1}{2}"),
    ("1/3", r"\frac13"),
    ("1500", "1.5 × 10³"),
    ("5", "05"),
    ("50", "50%"),
    ("1/2", "0.5 (50%)"),
    ("18", "9 * 2 = 18"),
    ("14", "3 + 4 = 7, 7 * 2 = 14"),
    ("5", "x = 5.0 = 10/2"),
    ("6", "It is not 5, it is 6"),
    ("3.14", "22/7 ≈ 3.14"),
]


@pytest.mark.parametrize(("accepted", "text"), SPELLED)
def test_a_number_as_people_write_it(accepted: str, text: str) -> None:
    assert right(accepted, text)


@pytest.mark.parametrize(
    ("accepted", "text"),
    [
        ("1234", "1,2,3,4"),
        ("1234", "1234,567"),
        ("1234.567", "1234,567"),
        ("35", "3,5"),
        ("1.234", "1,234"),
        ("1234", "1.234"),
        ("5", "5 million"),
        ("5", "5k"),
        ("5", "5 dozen"),
        ("1.2", "1.2M"),
        ("0.5", "0.5%"),
        ("1", "1%"),
        ("5", "(5, 5)"),
        ("5", "5 5"),
        ("1", "1. The first is"),
        ("5 km", "5 m"),
        ("5 km", "5 miles"),
        ("$5", "€5"),
        ("$5", "5 cents"),
        ("5 pm", "5 am"),
        ("3", "3 4/2"),
        ("5", "05/01"),
        ("18", "18\nWait, that's wrong. It should be 20."),
        ("18", "18. Actually, it is 20."),
        ("18", "18 (actually 20)"),
        ("5", "undefined for x = 5"),
        ("5", "a 5-digit number"),
        ("5", "3.14159, rounded to 5 decimal places"),
        ("5", "in step 5"),
        ("5", "given by equation 5"),
        ("5", "a loss of $5"),
        ("5", "5 R2"),
        ("5", "Wurzel aus 5"),
        ("5", "la moiti\u00e9 de 5"),
    ],
)
def test_what_may_be_another_number_is_wrong(accepted: str, text: str) -> None:
    assert not right(accepted, text)


def test_a_unit_may_be_spelled_in_several_ways() -> None:
    for accepted, text in [("5 km", "5 kilometres"), ("$5", "5 dollars"), ("5 hours", "5h"), ("5 km", "5")]:
        assert right(accepted, text)
    assert right("5", "5 N", units=["N", "newtons"])
    assert right("5", "5 million", units=["million"])
    assert not right("5000000", "5 million", units=["million"])


def test_why_an_answer_counts_as_no_number_is_said() -> None:
    said = verdict("5", "Answer: 5 ± 1")
    assert (said.extracted_answer, said.correct) == ("", False)
    assert said.explanation == "'5 ± 1' counts as no number: '± #' stands behind a number and may change it"


# A question's own numbers, and answers that no mark shows: (prompt, accepted, output, cut, right, unmarked).
QUESTION = "Tom has 48 apples in 6 bags. What is 48 / 6?"
UNMARKED = [
    ("To find 48 / 6, we can first simplify the fraction", "8", True, False, False),
    ("To find 48 / 6, we can first simplify the fraction", "8", False, False, False),
    ("So each bag holds 8 apples.", "8", False, True, True),
    ("So each bag holds 8 apples.", "8", True, False, False),
    ("So each bag holds 7 apples.", "8", False, False, True),
    ("8", "8", False, True, True),
    ("I cannot answer, 8 is not enough information", "8", False, False, False),
    ("I don't know if it is 8.", "8", False, False, False),
    ("As an AI language model, I see 8 apples.", "8", False, False, False),
    ("I'm sorry, I cannot help.\nThere are 8 apples.", "8", False, False, False),
    ("It cannot be determined. It has 8 bags.", "8", False, False, False),
    ("Ich kann das nicht sagen. Es sind 8 \u00c4pfel.", "8", False, False, False),
    ("\u65e0\u6cd5\u56de\u7b54\u3002\u6709 8 \u4e2a\u3002", "8", False, False, False),
    ("48 / 6 = 8", "8", False, True, True),
    ("8", "8", True, False, False),
    ("48/6", "8", False, False, False),
    ("Answer: 48/6", "8", False, False, False),
    ("Answer: 48 / 6", "48/6", False, True, False),
    ("Answer: 24/3", "8", False, True, False),
    ("It is 24/3.", "8", False, False, False),
    ("Answer: 8", "8", True, True, False),
    ("Answer: 8\nTom has 48", "8", True, True, False),
    (r"It is \boxed{8}, for 48", "8", True, True, False),
    # A number of the question may be the answer, where it is marked or all that is said.
    ("Tom has 6 of them.", "6", False, False, False),
    ("Answer: 6", "6", False, True, False),
    ("Answer: 6", "6", True, True, False),
    ("The answer is 6 bags.", "6", False, True, False),
    ("6", "6", False, True, True),
    ("6 bags.", "6", False, True, True),
    ("**6**", "6", False, True, True),
]


@pytest.mark.parametrize(("output", "accepted", "cut", "correct", "unmarked"), UNMARKED)
def test_a_questions_own_numbers_are_no_answer(
    output: str, accepted: str, cut: bool, correct: bool, unmarked: bool
) -> None:
    found = verdict(accepted, output, QUESTION, cut=cut)
    assert (found.correct, found.unmarked) == (correct, unmarked)


NO_NUMBERS = r"""
\sqrt{2} | 3\pi | x>5 | x > 5 | \frac{\pi}{6} | (3,\infty) | 101_2 | 5! | ±1 | 3x | 2^{10} | 5 or 6
(1, 2) | [0, 1) | \{5, 6\} | 5-6 | 3:30 | 3:4 | 2024-05-01 | 1.2.3 | 3,5 | 1,2 | 5 ± 1 | 2+3i | 5 May
five | x | 1/0 | 3 of 4 | not 5 | at least 5 | 5 out of 6 | \frac{x}{2} | 5\sqrt{3} | 5 mod 7 | \pm 5
5x | 5 hundredths | between 5 and 6 | > 5 | |5 | 5.. | 5 5 | 05/01 | 5 and a half | 1/2 of 5 | \binom{5}{2}
"""


@pytest.mark.parametrize("accepted", NO_NUMBERS.strip().replace("\n", " | ").split(" | "))
def test_an_accepted_answer_that_is_not_one_number_is_refused(accepted: str) -> None:
    item = EvalItem(id="q", prompt="?", accepted_answers=("1", accepted), grader={"kind": "numeric"})
    ((path, description),) = GRADING.problems(item)
    assert path == ("accepted_answers", 1)
    assert description.startswith(f"is {accepted!r}, which is not one number")


def test_a_set_that_was_stored_with_an_unreadable_answer_is_graded_item_by_item() -> None:
    item = EvalItem(id="q", prompt="?", accepted_answers=(r"\sqrt{2}",), grader={"kind": "numeric"})
    found = GRADING.grade(item, "Answer: 2")
    assert (found.correct, found.error) == (False, r"the accepted answer '\\sqrt{2}' is not one number")

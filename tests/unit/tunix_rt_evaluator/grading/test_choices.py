"""Texts as people and models write them, hostile ones too: which option they give, and which are right.

``choices.txt`` holds a name of ``OPTIONS``, the letter of the option that an output gives ("-" for none) and
the output; ``texts.txt`` a kind of grader, an accepted answer, an output, and "+" where that is right.
"""

from __future__ import annotations

from pathlib import Path

from tunix_rt_evaluator.eval_sets.model import EvalItem
from tunix_rt_evaluator.grading.service import Grading

GRADING = Grading()
HERE = Path(__file__).parent
LETTERS = "alpha beta gamma delta epsilon zeta eta theta iota kappa"
OPTIONS = {
    "cities": ("Paris", "London", "New York", "Rome"),
    "tf": ("True", "False"),
    "yn": ("Yes", "No", "Maybe"),
    "num": ("5", "-5", "0.5", "50"),
    "bio": ("Vitamin A", "Vitamin B", "Vitamin C", "Vitamin D"),
    "all": ("Paris", "London", "Both A and B", "None of the above"),
    "long": (
        "It increases the price",
        "It decreases the price",
        "It does not change the price",
        "It is not possible to say",
    ),
    "q": ("Who?", "What?", "Where?", "When?"),
    "ten": tuple(LETTERS.split()),
    "sub": ("London", "London Bridge", "Not London", "Greater London"),
}


def rows(name: str) -> list[str]:
    found = [line.replace("\\n", "\n") for line in (HERE / name).read_text("utf-8").splitlines()]
    assert len(found) == len(set(found)) > 150
    return found


def is_right(grader: dict[str, object], accepted: str, output: str) -> bool:
    item = EvalItem(id="q", prompt="?", accepted_answers=(accepted,), grader=grader)
    return GRADING.grade(item, output).correct


def test_an_output_gives_one_option_or_none() -> None:
    wrong = []
    for row in rows("choices.txt"):
        name, letter, output = row.split("|", 2)
        options = OPTIONS[name]
        grader = {"kind": "multiple_choice", "options": options}
        given = [each for each in "ABCDEFGHIJ"[: len(options)] if is_right(grader, each, output)]
        if given != [letter][letter == "-" :]:
            wrong.append((name, letter, given, output))
    assert wrong == []


def test_an_output_is_an_accepted_answer_or_not() -> None:
    wrong = []
    for row in rows("texts.txt"):
        kind, accepted, rest = row.split("|", 2)
        output, _, right = rest.rpartition("|")
        if is_right({"kind": kind}, accepted, output) != (right == "+"):
            wrong.append(row)
    assert wrong == []

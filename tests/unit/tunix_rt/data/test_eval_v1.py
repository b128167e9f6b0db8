"""The built-in questions: well formed, all categories, and their numbers worked out a second time."""

from __future__ import annotations

import json
import math
from collections import Counter
from fractions import Fraction
from importlib import resources
from itertools import count, product
from typing import Any

import pytest

from tunix_rt.generate import DIFFICULTIES, Difficulty, generate_traces

_LINES = resources.files("tunix_rt.data").joinpath("eval_v1.jsonl").read_text("utf-8")
ITEMS: list[dict[str, Any]] = [json.loads(line) for line in _LINES.splitlines()]
BY_ID = {item["id"]: item for item in ITEMS}
CATEGORIES = {
    *("arithmetic", "geometry", "knowledge", "word_problem"),
    *("conversion", "pattern", "number_theory", "probability"),
}
DICE = list(product(range(1, 7), repeat=2))

WORKED_OUT: dict[str, Fraction | float | int] = {
    "arithmetic-1": 47 + 38,
    "arithmetic-2": 500 - 129,
    "arithmetic-3": 3 * (14 - 6) + Fraction(10, 5),
    "arithmetic-4": Fraction(3, 4) + Fraction(5, 6),
    "geometry-1": 8 * 5,
    "geometry-2": math.isqrt(9**2 + 12**2),
    "geometry-3": round(math.pi * 7**2, 1),
    "word-problem-1": 45 % 6,
    "word-problem-2": 50 - 2 * 12 - 3 * 7,
    "word-problem-3": 1 / (Fraction(1, 6) + Fraction(1, 3)),
    "conversion-1": Fraction("3.5") * 1000,
    "conversion-2": Fraction(135, 60),
    "conversion-3": Fraction((86 - 32) * 5, 9),
    "pattern-1": 15 + (15 - 11),
    "pattern-3": 2 * 17 - 1,
    "number-theory-1": math.gcd(36, 60),
    "number-theory-2": next(n for n in count(91) if all(n % d for d in range(2, n))),
    "number-theory-3": pow(7, 100, 5),
    "probability-1": Fraction(1, 2) ** 2,
    "probability-2": Fraction(3, 3 + 5),
    "probability-3": Fraction(sum(left + right == 7 for left, right in DICE), len(DICE)),
}


def number(text: str) -> Fraction:
    """A whole, decimal or mixed number, a fraction or a percentage."""
    if text.endswith("%"):
        return Fraction(text[:-1]) / 100
    return sum((Fraction(part) for part in text.split(" ")), Fraction(0))


def test_shape() -> None:
    assert len(ITEMS) == 25
    assert {item["category"] for item in ITEMS} == CATEGORIES
    for item in ITEMS:
        assert set(item) - {"tolerance"} == {
            *("id", "prompt", "accepted_answers", "grader", "category", "difficulty"),
        }, item["id"]
        assert item["grader"] in {"numeric", "text"}
        assert item["difficulty"] in DIFFICULTIES
        assert item["prompt"] == item["prompt"].strip() != ""
        assert item["accepted_answers"]
        assert all(isinstance(answer, str) and answer.strip() for answer in item["accepted_answers"])
        assert "tolerance" not in item or (item["grader"] == "numeric" and 0 < item["tolerance"] < 1)


@pytest.mark.parametrize("field", ["id", "prompt"])
def test_unique(field: str) -> None:
    assert len({item[field].casefold() for item in ITEMS}) == len(ITEMS)


def test_every_category_has_every_difficulty() -> None:
    seen = Counter((item["category"], item["difficulty"]) for item in ITEMS)
    assert set(seen) == set(product(CATEGORIES, DIFFICULTIES))


def test_every_number_is_worked_out_here() -> None:
    assert {item["id"] for item in ITEMS if item["grader"] == "numeric"} == set(WORKED_OUT)


@pytest.mark.parametrize("item_id", WORKED_OUT)
def test_numbers(item_id: str) -> None:
    item = BY_ID[item_id]
    for answer in item["accepted_answers"]:
        difference = abs(number(answer) - Fraction(WORKED_OUT[item_id]))
        assert difference <= item.get("tolerance", 1e-12), answer


def test_letters_of_the_pattern() -> None:
    assert BY_ID["pattern-2"]["accepted_answers"] == [chr(ord("H") + (ord("H") - ord("F")))]


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_generated_traces_do_not_hold_the_questions(difficulty: Difficulty) -> None:
    questions = {item["prompt"].casefold() for item in ITEMS}
    traces = generate_traces(3_000, 1, difficulty=difficulty)
    assert questions.isdisjoint(trace.prompt.casefold() for trace in traces)

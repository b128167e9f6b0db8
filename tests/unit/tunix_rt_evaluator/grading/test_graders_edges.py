"""Single graders at their edges: signs of words, formulas, lines behind a mark, messages that are cut."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from tunix_rt_evaluator.eval_sets.model import EvalItem
from tunix_rt_evaluator.grading.graders.math import is_mathematics
from tunix_rt_evaluator.grading.service import Grading

GRADING = Grading()


def item(kind: str, settings: dict[str, Any], accepted: Sequence[str]) -> EvalItem:
    grader = {"kind": kind, **settings}
    return EvalItem(id="q", prompt="?", accepted_answers=tuple(accepted), grader=grader)


@pytest.mark.parametrize(
    ("wanted", "text", "right"),
    [
        ("C#", "it is C## now", False),
        ("C#", "it is C# now", True),
        ("A+", "an A++ then", False),
        ("no!", "oh no!! then", False),
        ("no?", "oh no?? then", True),
        ("x'", "the x'' there", False),
        ("x", "the x' there", False),
        ("x", "the 'x' there", True),
        ("x", "the -x there", False),
        ("x", "the 2-x there", True),
        ("xy", "the -xy there", True),
        ("xy", "the xy_ there", False),
        ("xy", "the _xy there", False),
        ("NET", "the .NET there", False),
        ("NET", "asp.NET there", True),
        ("Node", "the Node.js there", False),
        ("Node", "the Node. There", True),
        ("can", "I can't", False),
    ],
)
def test_signs_that_make_another_word(wanted: str, text: str, right: bool) -> None:
    settings = {"whole_words": True, "whole_output": True}
    assert GRADING.grade(item("contains", settings, [wanted]), text).correct is right


@pytest.mark.parametrize(
    ("text", "right"),
    [
        (r"\frac{1}{2}", True),
        ("x + 1", True),
        ("(1, x + 2)", True),
        (r"\sin x", True),
        ("x", False),
        ("Paris", False),
        ("1, x + 2", True),
        ("1, x", False),
        ("1:30", False),
        (" 2024-05-01 ", False),
        ("and/or", False),
        ("AC/DC", False),
        ("1/2 or 3", False),
        (r"\frac{1", False),
    ],
)
def test_what_is_a_formula(text: str, right: bool) -> None:
    assert is_mathematics(text) is right


def test_of_lines_behind_a_mark_only_the_first_is_the_answer() -> None:
    assert not GRADING.grade(item("math", {}, ["x + 1"]), "Answer: see below\nso $x + 1$").correct
    assert GRADING.grade(item("math", {}, ["x + 1"]), "Answer: so $x + 1$\nsee above").correct


def test_a_question_mark_of_any_script_asks() -> None:
    for mark in ("?", "\uff1f"):
        assert not GRADING.grade(item("set", {}, ["Paris, Rome"]), f"Answer: Rome, Paris{mark}").correct


def test_a_long_message_about_a_schema_is_cut() -> None:
    ((_, what),) = GRADING.problems(item("json_schema", {"schema": {"type": "x" * 400}}, []))
    assert what == f"is no JSON Schema: type: '{'x' * 299}"


@pytest.mark.parametrize(
    ("output", "right"), [('"abc"', True), ('["abc"]', True), ("12", False), ('"ab', False)]
)
def test_json_counts_in_an_output_that_was_cut_where_it_shows_its_end(output: str, right: bool) -> None:
    schema = {"schema": {"minLength": 1}}
    assert GRADING.grade(item("json_schema", schema, []), output, cut=True).correct is right


@pytest.mark.parametrize(
    ("output", "why"),
    [('{"a": 1e9999999999999999999}', "exponent"), ("[" * 600 + "]" * 600, "nests too deep")],
)
def test_json_that_cannot_be_compared_is_wrong_and_stops_nothing(output: str, why: str) -> None:
    verdict = GRADING.grade(item("json_schema", {"schema": {"minLength": 1}}, []), output)
    assert not verdict.correct
    assert why in verdict.explanation
    ((path, what),) = GRADING.problems(item("json_schema", {"schema": {"minLength": 1}}, [output]))
    assert path == ("accepted_answers", 0)
    assert why in what


def test_a_division_that_the_question_writes_with_another_sign_is_copied() -> None:
    question = EvalItem(
        id="q", prompt="What is 48 \u00f7 6?", accepted_answers=("8",), grader={"kind": "numeric"}
    )
    verdict = GRADING.grade(question, r"\boxed{48/6}")
    assert (verdict.correct, verdict.explanation) == (
        False,
        "'48/6' counts as no number: it is copied from the question",
    )


@pytest.mark.parametrize(
    ("wanted", "text", "right"),
    [
        ("250", "it is 250 now", True),
        ("250", "it is 1,250 now", False),
        ("250", "it is 7, 250 now", True),
        ("25", "it is 250 now", False),
        ("-5", "it is 7-5 now", False),
        ("-5", "it is -5 now", True),
        ("5 kg", "it is 5 kg/m now", False),
        ("1/2", "it is 3 1/2 now", False),
        ("$5", "it is -$5 now", False),
        ("5", "it is 5!", True),
        ("5", "5!", False),
        ("cat5", "a cat5, here", True),
        ("5", "it is 5M now", False),
    ],
)
def test_a_number_is_contained_where_it_is_no_part_of_another(wanted: str, text: str, right: bool) -> None:
    assert GRADING.grade(item("contains", {"whole_output": True}, [wanted]), text).correct is right

"""What may take for ever does not, and what is wrong with a grader is named."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from support.timing import cheaply
from tunix_rt_evaluator.eval_sets.model import EvalItem
from tunix_rt_evaluator.grading import service
from tunix_rt_evaluator.grading.model import CannotGrade, kinds
from tunix_rt_evaluator.grading.service import Grading, GradingSandbox

GRADING = Grading()


def item(kind: str, accepted: Sequence[str] = ("1",), **settings: Any) -> EvalItem:
    return EvalItem(id="q", prompt="?", accepted_answers=tuple(accepted), grader={"kind": kind, **settings})


def test_a_pattern_that_takes_for_ever_is_one_failed_grade() -> None:
    verdict = GRADING.grade(item("regex", [r"(a|aa|b?a)+$"]), "a" * 5_000 + "c")
    assert not verdict.correct
    assert verdict.error == "the pattern '(a|aa|b?a)+$' is not done after 1 s"


def test_a_megabyte_of_what_is_only_nearly_the_answer_is_graded_at_once() -> None:
    with cheaply(5):
        assert not GRADING.grade(item("contains", ["5"]), "5! " * 340_000).correct


@pytest.mark.parametrize("mark", ["*", '"', "$", "`", "\u00ab\u00bb"])
def test_thousands_of_marks_around_an_answer_are_graded_at_once(mark: str) -> None:
    inside = "5 apples"
    with cheaply(3):
        around = f"{mark * 50_000}{inside}{mark * 50_000}"
        assert GRADING.grade(item("set", [inside]), f"Answer: {around}").correct
        assert not GRADING.grade(item("set", [inside]), f"Answer: {mark * 100_000}").correct


def test_mathematics_that_takes_for_ever_is_one_failed_grade(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "SANDBOX_S", 1.0)
    grading = Grading()
    many = [f"(x+1)^{{{power}}}" for power in range(2, 120)]
    accepted, given = (rf"\{{{','.join(powers)}\}}" for powers in (many, [*reversed(many), "1"]))
    verdict = grading.grade(item("math", [accepted]), f"Answer: {given}")
    assert not verdict.correct
    assert verdict.error.endswith("with the accepted answers: it is not done after 1 s")
    # The child was killed; the next answer has another.
    assert grading.grade(item("math", [r"\frac{1}{2}"]), "Answer: 0.5").correct
    grading.close()


@pytest.mark.parametrize("text", ["9^{9^{9^{9}}}", "12!^{12!}", "((9!)!)!", "2^{-10^9}"])
def test_a_number_that_is_too_large_is_one_failed_grade(text: str) -> None:
    verdict = GRADING.grade(item("math", ["12"]), rf"\boxed{{{text}}}")
    assert not verdict.correct
    assert verdict.error.endswith("a number in it is too large or too small to be computed")
    assert GRADING.grade(item("math", [text]), rf"\boxed{{{text}}}").correct


def test_what_no_one_can_read_is_wrong_and_says_why() -> None:
    verdict = GRADING.grade(item("math", ["12"]), r"\boxed{\int_0^1 x dx}")
    assert (verdict.correct, verdict.error) == (False, "")
    assert verdict.explanation == r"it is no mathematics that can be read: \int is not read"


def test_a_schema_whose_pattern_takes_for_ever_is_one_failed_grade(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "SANDBOX_S", 1.0)
    grading = Grading()
    schema = {"type": "string", "pattern": r"^(a|aa)+$"}
    verdict = grading.grade(item("json_schema", [], schema=schema), f'"{"a" * 200}c"')
    assert verdict.error == "checking the answer by the schema: it is not done after 1 s"
    grading.close()


def test_a_schema_does_not_fetch_what_it_refers_to() -> None:
    schema = {"$ref": "http://127.0.0.1:9/person.json"}
    verdict = GRADING.grade(item("json_schema", [], schema=schema), "{}")
    assert "the schema refers to 'http://127.0.0.1:9/person.json', which is not in it" in verdict.error


def test_an_accepted_answer_that_is_no_mathematics_is_a_failed_grade() -> None:
    verdict = GRADING.grade(item("math", [r"\begin{"]), "Answer: $x + 1$")
    assert "no mathematics that can be read" in verdict.error


def test_a_task_that_fails_says_so() -> None:
    with GradingSandboxBlock() as box, pytest.raises(CannotGrade, match="it fails: KeyError"):
        box.run("math")


class GradingSandboxBlock:
    """A sandbox that is closed at the end of the block."""

    def __enter__(self) -> GradingSandbox:
        self._sandbox = GradingSandbox(30.0)
        return self._sandbox

    def __exit__(self, *_: object) -> None:
        self._sandbox.close()


WRONG = [
    (item("numeric", ["one"]), ["accepted_answers[0]"], "is 'one', which is not one number"),
    (item("numeric", ["1"], unit_required=True), ["grader.numeric.unit_required"], "is set without units"),
    (
        item("math", ["1/2", r"\frac{1}{2", "1/2x"]),
        ["accepted_answers[1]", "accepted_answers[2]"],
        r"is '\\frac{1}{2', which the math grader cannot read: it ends too early",
    ),
    (item("text", []), ["accepted_answers"], "is empty; the text grader of 'q' needs at least one"),
    (
        item("regex", ["(", "ok", "x" * 1_001]),
        ["accepted_answers[0]", "accepted_answers[2]"],
        "no regular expression",
    ),
    (
        item("multiple_choice", ["C"], options=["x", "y"]),
        ["accepted_answers[0]"],
        "is 'C'; a letter from A to B",
    ),
    (
        item("multiple_choice", ["A"], options=["x", "X."]),
        ["grader.multiple_choice.options[1]"],
        "same as options[0]",
    ),
    (item("multiple_choice", ["A"], options=["x", " "]), ["grader.multiple_choice.options[1]"], "is empty"),
    (item("json_schema", [], schema={}), ["grader.json_schema.schema"], "is empty, and would allow anything"),
    (
        item("json_schema", [], schema={"type": "strin"}),
        ["grader.json_schema.schema"],
        "is no JSON Schema: type: ",
    ),
    (
        item("json_schema", [], schema={"pattern": "("}),
        ["grader.json_schema.schema"],
        "is no JSON Schema: pattern: ",
    ),
    (
        item("json_schema", [], schema={"const": "x" * 65_537}),
        ["grader.json_schema.schema"],
        "65,536 would be right",
    ),
    (
        item("json_schema", ["{"], schema={"type": "object"}),
        ["accepted_answers[0]"],
        "is '{', which is not JSON",
    ),
    (
        item("set", ["(1, 2)", "1, 2", "[0, 1)", "{(1, 2)}", "[1, 2, 3]", "(7)"]),
        ["accepted_answers[0]", "accepted_answers[2]", "accepted_answers[4]"],
        "is '(1, 2)', whose brackets give its values an order",
    ),
    (item("set", [" ,"]), ["accepted_answers[0]"], "which holds no entry"),
    (
        item("contains", [" ", ".", "$", "5", "+", "\U0001f600"]),
        ["accepted_answers[0]", "accepted_answers[1]", "accepted_answers[2]"],
        "is ' ', which nearly any answer holds",
    ),
    (
        item("token_f1", ["the", "...", "a", "the cat"]),
        ["accepted_answers[0]", "accepted_answers[1]"],
        "leave no word to compare",
    ),
    (
        item("regex", [".*", "x*", r"[\s\S]", r"^(?!.*no)", r"\d+"]),
        ["accepted_answers[0]", "accepted_answers[1]", "accepted_answers[2]"],
        "is '.*', which matches any text",
    ),
    (item("text", ["\u200b"]), ["accepted_answers[0]"], "which holds no text"),
    (
        item("json_schema", ['{"a": 1, "a": 2}'], schema={"type": "object"}),
        ["accepted_answers[0]"],
        "a name stands twice in an object",
    ),
    (
        item("multiple_choice", ["C"], options=["O", "A", "B"]),
        ["grader.multiple_choice.options[1]", "grader.multiple_choice.options[2]"],
        "is 'A', the letter of another option",
    ),
    (item("judge", [], model="m", prompt="{question}?"), ["grader.judge.prompt"], "does not hold {answer}"),
    (
        item("judge", ["1"], model="m", prompt="{question}{answer}"),
        ["grader.judge.prompt"],
        "does not hold {accepted}",
    ),
]


@pytest.mark.parametrize(("wrong", "paths", "words"), WRONG)
def test_what_is_wrong_with_an_item_is_named(wrong: EvalItem, paths: list[str], words: str) -> None:
    found = list(GRADING.problems(wrong))
    assert [_path(path) for path, _ in found] == paths
    assert words in found[0][1]


def _path(parts: Sequence[str | int]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).removeprefix(".")


@pytest.mark.parametrize("kind", ["format", "json_schema", "judge"])
def test_some_kinds_need_no_accepted_answer(kind: str) -> None:
    settings: dict[str, Any] = {
        "format": {},
        "json_schema": {"schema": {"type": "object"}},
        "judge": {"model": "m"},
    }[kind]
    assert list(GRADING.problems(item(kind, [], **settings))) == []


def test_every_kind_has_a_version_that_names_it() -> None:
    settings: dict[str, dict[str, Any]] = {
        "multiple_choice": {"options": ["x", "y"]},
        "json_schema": {"schema": {"type": "object"}},
        "judge": {"model": "m"},
        "python": {"source": "x"},
        "tool_call": {"no_calls": True},
    }
    assert len(kinds()) == 13
    for kind in kinds():
        version = GRADING.version(item(kind, **settings.get(kind, {})).grader)
        assert version.partition(" ")[0].partition("/")[0] == kind

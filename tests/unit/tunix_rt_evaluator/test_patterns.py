"""Items whose verdict changed, grouped by what the wrong answer shows."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from syrupy.assertion import SnapshotAssertion

from support.comparison import GRADING, SPLITTER, finished, sampled, some_comparison, some_items
from tunix_rt import v1
from tunix_rt_evaluator.comparisons.model import ComparisonContent, ComparisonReport, PatternName, Run
from tunix_rt_evaluator.comparisons.pairing import compared
from tunix_rt_evaluator.comparisons.patterns import GROUP_ITEMS, RULES, Group, groups, pattern, repeats
from tunix_rt_evaluator.convert import report_message
from tunix_rt_evaluator.eval_sets.model import EvalItem
from tunix_rt_evaluator.evaluations.model import Decoding, Generation, ItemResult
from tunix_rt_evaluator.evaluations.results import graded
from tunix_rt_evaluator.grading.graders.math import MathGrader
from tunix_rt_evaluator.grading.graders.numeric import NumericGrader
from tunix_rt_evaluator.grading.graders.strings import ContainsGrader, RegexGrader, TextGrader
from tunix_rt_evaluator.grading.model import GraderSettings
from tunix_rt_evaluator.report.repository import DOCUMENTS
from tunix_rt_evaluator.report.words import end

NUMERIC, TEXT = NumericGrader(), TextGrader()
RIGHT = "Reasoning:\n1. 4 + 4 = 8\n2. 8 + 4 = 12\nAnswer: 12"
PROMPT = "Four boxes hold three pens each. How many pens are there?"


def item(grader: GraderSettings = NUMERIC, *accepted: str, **fields: Any) -> EvalItem:
    values = {"id": "q1", "prompt": PROMPT, "category": "sums", **fields}
    return EvalItem(accepted_answers=accepted or ("12",), grader=grader, **values)


def answer(of: EvalItem, output: str, finish_reason: str = "stop", **fields: Any) -> ItemResult:
    generation = Generation.model_validate(
        {
            "item_id": of.id,
            "prompt_tokens": 9,
            "prompt_token_digest": "sha256:p",
            "output": output,
            "output_tokens": 40,
            "finish_reason": finish_reason,
            **fields,
        }
    )
    return graded([(of, generation)], GRADING, SPLITTER)[0]


def shown(of: EvalItem, output: str, finish_reason: str = "stop", right: str = RIGHT) -> PatternName:
    """The pattern of a wrong answer, on whichever side it is."""
    wrong, correct = answer(of, output, finish_reason), answer(of, right)
    assert (wrong.verdict.correct, correct.verdict.correct) == (False, True)
    found = pattern(correct, wrong)
    assert pattern(wrong, correct) == found
    return found


@pytest.mark.parametrize(
    ("output", "finish_reason", "expected"),
    [
        ("", "failed", "not_generated"),
        ("So we add four. " * 9, "stop", "repeats"),
        ("So we add four. " * 9 + "So we a", "length", "repeats"),
        ("<think>4 and 4 and 4", "stop", "reasoning_unclosed"),
        ("<think>4 and 4 and 4", "length", "reasoning_unclosed"),
        (" \n", "stop", "empty"),
        ("<think>It is 12.</think>\n", "stop", "empty"),
        ("First we count the boxes, of which there are", "length", "cut"),
        # A value that was read before the cut is what the answer says.
        ("Answer: 13\nSince there are four boxes", "length", "other_value"),
        ("I cannot say.", "stop", "no_answer"),
        ("I cannot say; perhaps none of 12.", "stop", "accepted_in_text"),
        ("Reasoning:\n1. 4 + 4 = 8\n2. 8 + 4 = 12\n3. 12 + 1 = 13\nAnswer: 13", "stop", "more_steps"),
        ("Step 1: 4 + 4 = 8\nAnswer: 8", "stop", "fewer_steps"),
        ("1. 4 + 4 = 8\n2. 8 + 5 = 13\nAnswer: 13", "stop", "other_value"),
        # Steps that only one side numbers are not compared.
        ("There are thirteen.\nAnswer: 13", "stop", "other_value"),
    ],
)
def test_a_wrong_number_is_grouped_by_what_its_text_shows(
    output: str, finish_reason: str, expected: PatternName
) -> None:
    assert shown(item(), output, finish_reason) == expected


@pytest.mark.parametrize(
    ("grader", "accepted", "right", "output", "expected"),
    [
        (TEXT, "42", "Answer: 42", "Answer: 42.0", "other_format"),
        (TEXT, "1/2", "Answer: 1/2", "Answer: 0.5", "other_format"),
        (TEXT, "42", "Answer: 42", "42.0.", "other_format"),
        # A number that comes last in a sentence is not said to be the answer.
        (TEXT, "1914", "Answer: 1914", "It went on from 1910 to 1914, as they say.", "other_value"),
        # What is taken back is no right value, whatever stands in its first line.
        (TEXT, "42", "Answer: 42", "Answer: 42.0\nNo, that is wrong. The answer is 43.", "other_value"),
        (TEXT, "Paris", "Answer: Paris", "Answer: not Paris", "other_value"),
        (TEXT, "Paris", "Answer: Paris", "Answer: Lyon", "other_value"),
        # A pattern and a part of a list are no values that another grader could compare.
        (RegexGrader(full_match=True), "12", "Answer: 12", "Answer: 12.0", "other"),
        (ContainsGrader(all=True), "red", "Answer: red and blue", "Answer: red", "other"),
        (MathGrader(), r"\sqrt{2}", r"Answer: \sqrt{2}", "Answer: 1.5", "other_value"),
    ],
)
def test_another_format_is_what_another_grader_of_values_takes(
    grader: GraderSettings, accepted: str, right: str, output: str, expected: PatternName
) -> None:
    accepts = (accepted, "blue") if isinstance(grader, ContainsGrader) else (accepted,)
    assert shown(item(grader, *accepts), output, right=right) == expected


def test_an_answer_that_stands_in_the_question_too_is_not_said_to_be_found() -> None:
    asked = item(NUMERIC, "4", prompt="Take 4 from 8. What is left?")
    assert shown(asked, "I cannot say whether 4 fits.", right="Answer: 4") == "no_answer"


def test_the_same_value_may_have_two_verdicts() -> None:
    base = answer(item(), RIGHT)
    verdict = base.verdict.model_copy(update={"correct": False})
    assert pattern(base, base.model_copy(update={"verdict": verdict})) == "same_answer"
    error = base.verdict.model_copy(update={"correct": False, "error": "the judge is down"})
    assert pattern(base, base.model_copy(update={"verdict": error})) == "not_graded"


def test_of_several_samples_the_first_wrong_one_is_looked_at() -> None:
    few, many = (sampled(some_items(1)[0], 0, right=right, samples=4) for right in (1, 3))
    assert (few.verdict.correct, many.verdict.correct) == (False, True)
    assert pattern(many, few) == "other_value"
    assert end(few).endswith("Answer: 5")
    assert end(many).endswith("Answer: 4")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", False),
        ("ha " * 19, False),
        ("ha " * 21, True),
        ("1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23", False),
        ("A line of some length that comes back. " * 2, False),
        ("Before it. " + "A line of some length that comes back. " * 3, True),
        ("A line of some length that comes back. " * 3 + "And then it ends.", False),
        ("的答案是二十" * 12, True),
    ],
)
def test_a_text_repeats_itself_when_its_end_does(text: str, expected: bool) -> None:
    assert repeats(text) is expected


def mixed(outputs: list[str], finish_reasons: list[str]) -> ComparisonContent:
    """A comparison whose candidate answers with these texts, and the base with the right one."""
    asked = [item(id=f"q{place:02d}", category=f"c{place % 3}") for place in range(len(outputs))]
    base = [answer(of, RIGHT) for of in asked]
    candidate = [answer(*each) for each in zip(asked, outputs, finish_reasons, strict=True)]
    return compared([Run.of(finished("a", base), base)], [Run.of(finished("b", candidate), candidate)])


PIECES = st.sampled_from(
    [
        "Answer: ",
        "12",
        "13",
        "<think>",
        "</think>",
        "1. ",
        "\n",
        "\\boxed{",
        "}",
        "So it is so. ",
        " ",
        "twelve",
    ]
)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.lists(PIECES, max_size=12).map("".join), st.sampled_from(["stop", "length", "failed"])),
        min_size=1,
        max_size=8,
    )
)
def test_every_item_that_went_wrong_is_in_exactly_one_group(written: list[tuple[str, str]]) -> None:
    content = mixed([text for text, _ in written], [reason for _, reason in written])
    lost = sorted(flip.base.item_id for flip in content.flips if flip.regressed)
    found = groups(content, regressed=True)
    assert sorted(flip.base.item_id for group in found for flip in group.flips) == lost
    assert all(group.rule is not None for group in found)
    assert sum(count.regression_count for count in content.patterns) == len(lost)
    assert sum(count.improvement_count for count in content.patterns) == 0


def test_the_contract_has_each_pattern_with_the_same_rule_order() -> None:
    names = [name.removeprefix("ANSWER_PATTERN_").lower() for name in v1.AnswerPattern.keys()]  # noqa: SIM118
    assert names[1:] == [rule.name for rule in RULES]


WRITTEN = {
    "I cannot say.": "stop",
    "So we add four. " * 9: "length",
    "First we count the boxes, of which there are": "length",
    "Reasoning:\n1. 4 + 4 = 8\n2. 8 + 4 = 12\n3. 12 + 1 = 13\nAnswer: 13": "stop",
    "| **Answer:** 14 |": "stop",
    RIGHT: "stop",
    "Answer: 15": "stop",
}


def test_the_markdown_of_a_comparison(snapshot: SnapshotAssertion) -> None:
    content = mixed(list(WRITTEN), list(WRITTEN.values()))
    assert DOCUMENTS["markdown"].render("comparisonReports/abc", "sha256:c", content) == snapshot


@pytest.mark.parametrize("kind", ["markdown", "html"])
def test_what_went_wrong_comes_first_and_long_lists_say_what_they_leave_out(kind: str) -> None:
    content = some_comparison(600)
    text = DOCUMENTS[kind].render("comparisonReports/abc", "sha256:c", content)
    lost, gained = (groups(content, regressed=regressed) for regressed in (True, False))
    places = [
        text.index(f"Went wrong ({len(lost[0].flips)})"),
        text.index(f"Went right ({len(gained[0].flips)})"),
    ]
    assert places == sorted(places)
    assert places[1] < text.index("Accuracy of base and candidate" if kind == "html" else "## Accuracy")
    for group, side in ((lost[0], "regressions"), (gained[0], "improvements")):
        assert group.left_out > GROUP_ITEMS
        assert f"{group.left_out} more are not shown here; report.json has all" in text
        assert f"tunix-rt reports {side} abc --json" in text
    shown = [flip.base.item_id for flip in lost[0].shown]
    assert re.findall(r"item-\d{3}", text)[: len(shown)] == shown
    if kind == "markdown":
        assert text.splitlines().index(f"## Went wrong ({len(lost[0].flips)})") < 10
        assert len(text.splitlines()) < 1_500


def test_regressions_are_the_last_to_be_left_out_of_a_message() -> None:
    long = "words " * 6_000
    right, wrong = f"{long}\nAnswer: 12", f"{long}\nAnswer: 13"
    asked = [item(id=f"q{place:02d}") for place in range(60)]
    base = [answer(of, right if place >= 50 else wrong) for place, of in enumerate(asked)]
    candidate = [answer(of, wrong if place >= 50 else right) for place, of in enumerate(asked)]
    content = compared([Run.of(finished("a", base), base)], [Run.of(finished("b", candidate), candidate)])
    report = ComparisonReport(
        id="r", digest="sha256:c", create_time=datetime(2026, 1, 1, tzinfo=UTC), content=content
    )
    message = report_message(report)
    ids = [flip.base.item_id for flip in message.flips]
    assert 10 < len(ids) < 60
    assert ids[-10:] == [f"q{place}" for place in range(50, 60)]
    assert ids[:-10] == [f"q{place:02d}" for place in range(len(ids) - 10)]
    assert [count.regression_count for count in message.patterns] == [10]
    assert [count.improvement_count for count in message.patterns] == [50]


def test_an_evaluation_that_is_compared_with_itself_or_with_its_own_answers_is_warned_of() -> None:
    base = [answer(item(), RIGHT)]
    one, other = (Run.of(finished(name, base), base) for name in "ab")
    (warning,) = compared([one], [one]).warnings
    assert (warning.reason, "evaluations/a is base and candidate" in warning.description) == (
        "same_evaluation",
        True,
    )
    content = compared([one], [other])
    (warning,) = content.warnings
    assert warning.reason == "equal_answers"
    for kind in ("markdown", "html", "json"):
        assert warning.description in DOCUMENTS[kind].render("comparisonReports/abc", "sha256:c", content)
    thought = [answer(item(), f"<think>4 4 4</think>{RIGHT}")]
    assert not compared([one], [Run.of(finished("b", thought), thought)]).warnings
    sides = [[sampled(of, 0, right=right, samples=2) for of in some_items(2)] for right in (1, 2)]
    runs = [
        Run.of(finished(name, results, decoding=Decoding(temperature=0.5, samples=2)), results)
        for name, results in zip("ab", sides, strict=True)
    ]
    assert not compared(runs[:1], runs[1:]).warnings


def test_answers_that_fit_no_rule_have_what_their_graders_say() -> None:
    (flip, *_) = some_comparison(40).flips
    other = next(rule for rule in RULES if rule.name == "other")
    contains = flip.model_copy(update={"base": flip.base.model_copy(update={"grader": "contains/2"})})
    assert Group(other, [contains, flip]).why == (
        "no other rule fits; by the grader `contains`, the answer does not hold the accepted text, or not "
        "all of them"
    )
    assert Group(other, [flip]).why == "no other rule fits"

"""The numeric grader beside GSM8K's own rule, on answers that models really gave.

``model_outputs.jsonl`` holds, with the gold answers, 500 answers of a SmolLM2-135M, fine-tuned for 20 steps,
to questions of GSM8K (MIT licence), at most 128 tokens each, and 327 answers of other such models to
generated problems, at most 96 tokens each; ``cut`` tells those that ended there. The rule reads what follows
``####``; these answers mark theirs with ``Answer:``, which is written as ``####`` for it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from tunix_rt_evaluator.eval_sets.model import EvalItem
from tunix_rt_evaluator.grading.service import Grading

OUTPUTS = Path(__file__).with_name("model_outputs.jsonl")
GRADING = Grading()
# Of the rule in GSM8K's repository: the first number after the mark, commas removed, compared as text.
MARKED = re.compile(r"#### (-?[0-9.,]+)")


@dataclass(frozen=True)
class Case:
    """One answer: the gold one, what the rule reads, and both verdicts."""

    questions: str
    gold: str
    read: str | None
    by_rule: bool
    ours: bool
    ours_if_marked: bool


def reference(output: str) -> str | None:
    match = MARKED.search(re.sub(r"Answer:\s*", "#### ", output))
    return match[1].strip().replace(",", "") if match else None


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    found = []
    for line in OUTPUTS.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        item, strict = (
            EvalItem(
                id="q", prompt="?", accepted_answers=(row["gold"],), grader={"kind": "numeric"} | settings
            )
            for settings in ({}, {"marked": True})
        )
        read = reference(row["output"])
        by_rule = read is not None and read == row["gold"].replace(",", "")
        found.append(
            Case(
                row["questions"],
                row["gold"],
                read,
                by_rule,
                GRADING.grade(item, row["output"], cut=row["cut"]).correct,
                GRADING.grade(strict, row["output"], cut=row["cut"]).correct,
            )
        )
    return found


def test_what_the_rule_calls_right_is_right(cases: list[Case]) -> None:
    right = [case for case in cases if case.by_rule]
    assert len(right) > 90
    assert all(case.ours for case in right)


def test_marked_answers_get_the_same_verdict_unless_a_number_is_written_otherwise(cases: list[Case]) -> None:
    marked = [case for case in cases if case.read is not None]
    assert len(marked) > 350
    (other,) = [case for case in marked if case.by_rule != case.ours]
    # The rule compares texts.
    assert (other.gold, other.read, other.ours) == ("7", "7.00", True)


def test_of_500_answers_to_gsm8k_none_is_right_by_the_last_number_of_a_text_that_was_cut(
    cases: list[Case],
) -> None:
    gsm8k = [case for case in cases if case.questions == "gsm8k"]
    assert len(gsm8k) == 500
    assert sum(case.ours for case in gsm8k) == 3
    assert [case.read for case in gsm8k if case.by_rule != case.ours] == ["7.00"]


def test_where_answers_must_be_marked_none_is_right_by_its_last_number(cases: list[Case]) -> None:
    other = [case for case in cases if case.by_rule != case.ours_if_marked]
    assert [case.read for case in other] == ["7.00"]

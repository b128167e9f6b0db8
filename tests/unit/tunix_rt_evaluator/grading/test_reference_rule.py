"""The numeric grader beside GSM8K's own rule, on answers that a model really gave.

``gsm8k_outputs.jsonl`` holds 500 answers of a fine-tuned SmolLM2-135M to GSM8K questions, at most 128 tokens
each, with the gold answers (GSM8K, MIT licence). The rule reads what follows ``####``; these answers mark
theirs with ``Answer:``, which is written as ``####`` for it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import pytest

from tunix_rt_evaluator.grading import Grading
from tunix_rt_evaluator.model import EvalItem

OUTPUTS = Path(__file__).with_name("gsm8k_outputs.jsonl")
GRADING = Grading()
# Of the rule in GSM8K's repository: the first number after the mark, commas removed, compared as text.
MARKED = re.compile(r"#### (-?[0-9.,]+)")


@dataclass(frozen=True)
class Case:
    """One answer: the gold one, what the rule reads, and both verdicts."""

    gold: str
    read: str | None
    by_rule: bool
    ours: bool


def reference(output: str) -> str | None:
    match = MARKED.search(re.sub(r"Answer:\s*", "#### ", output))
    return match[1].strip().replace(",", "") if match else None


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    found = []
    for line in OUTPUTS.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        item = EvalItem(id="q", prompt="?", accepted_answers=(row["gold"],), grader={"kind": "numeric"})
        read = reference(row["output"])
        by_rule = read is not None and read == row["gold"].replace(",", "")
        found.append(Case(row["gold"], read, by_rule, GRADING.grade(item, row["output"]).correct))
    return found


def test_what_the_rule_calls_right_is_right(cases: list[Case]) -> None:
    assert len(cases) == 500
    right = [case for case in cases if case.by_rule]
    assert len(right) >= 20
    assert all(case.ours for case in right)


def test_each_disagreement_has_one_of_two_reasons(cases: list[Case]) -> None:
    other = [case for case in cases if case.by_rule != case.ours]
    written_otherwise = [case for case in other if case.read is not None]
    assert all(Fraction(case.read or "") == Fraction(case.gold) for case in written_otherwise)
    # No mark at all: the rule gives up, and we take the last number of a text, which may be right by chance.
    unmarked = [case for case in other if case.read is None]
    assert len(written_otherwise) + len(unmarked) == len(other)
    assert len(other) <= 10

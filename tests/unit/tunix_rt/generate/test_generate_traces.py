"""The generator: every step is right, every prompt is new, and the same seed gives the same traces."""

from __future__ import annotations

import ast
import hashlib
import itertools
import json
import operator
import os
import re
import subprocess
import sys
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunix_rt.generate import (
    CONVERSATION_FAMILIES,
    DIFFICULTIES,
    FAMILIES,
    Difficulty,
    GeneratedTrace,
    capacity,
    generate_traces,
)

OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}
KNOWN_CONSTANTS = {"percent": {1, 2, 4, 5, 10, 100}, "units": {7, 12, 24, 60}}


def value(expression: str) -> Fraction:
    """The value of whole numbers joined by + - * / and brackets."""

    def walk(node: ast.expr) -> Fraction:
        if isinstance(node, ast.BinOp):
            return Fraction(OPERATORS[type(node.op)](walk(node.left), walk(node.right)))
        assert isinstance(node, ast.Constant)
        assert isinstance(node.value, int)
        return Fraction(node.value)

    return walk(ast.parse(expression.strip(), mode="eval").body)


def numbers_in(text: str) -> list[int]:
    return [int(digits) for digits in re.findall(r"\d+", text)]


def parts(number: int) -> set[int]:
    """The number, and what place value splits it into."""
    return {number, number // 100 * 100, number % 100, number // 10 * 10, number % 10}


def check(trace: GeneratedTrace) -> None:
    known = set().union(*(parts(number) for number in numbers_in(trace.prompt)))
    known |= KNOWN_CONSTANTS.get(trace.family, set())
    result = None
    for step in trace.steps:
        equation = step.content.rpartition(": ")[2]
        left, right = equation.split(" = ")
        assert value(left) == value(right), step.content
        assert set(numbers_in(left)) <= known, f"{step.content!r} uses a number from nowhere"
        if step.type == "compute":
            result = int(right)
            assert result >= 0
            known.add(result)
    assert trace.final_answer == str(result)


generated = st.builds(
    lambda seed, start, difficulty: list(generate_traces(26, seed, difficulty=difficulty, start=start)),
    st.integers(0, 2**63),
    st.integers(0, 10_000),
    st.sampled_from(DIFFICULTIES),
)


@given(generated)
@settings(max_examples=40, deadline=None)
def test_every_step_is_right_and_leads_to_the_answer(traces: list[GeneratedTrace]) -> None:
    for trace in traces:
        check(trace)


@given(st.integers(0, 2**32), st.sampled_from(DIFFICULTIES))
@settings(max_examples=20, deadline=None)
def test_the_answer_to_bare_arithmetic_is_the_value_of_its_prompt(seed: int, difficulty: Difficulty) -> None:
    bare = ["addition", "subtraction", "multiplication", "division", "two_operations"]
    for trace in generate_traces(25, seed, families=bare, difficulty=difficulty):
        found = re.search(r"[\d(][\d+\-*/() ]*[\d)]", trace.prompt)
        assert found is not None
        assert value(found[0]) == int(trace.final_answer)


@given(st.integers(0, 2**32), st.sampled_from(DIFFICULTIES))
@settings(max_examples=20, deadline=None)
def test_percentages_are_right(seed: int, difficulty: Difficulty) -> None:
    for trace in generate_traces(10, seed, families=["percent"], difficulty=difficulty):
        percentage, whole = numbers_in(trace.prompt)
        assert Fraction(percentage * whole, 100) == int(trace.final_answer)


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_no_prompt_comes_twice(difficulty: Difficulty) -> None:
    count = min(capacity(difficulty=difficulty), 12_000)
    prompts = [trace.prompt for trace in generate_traces(count, 5, difficulty=difficulty)]
    assert len(set(prompts)) == count


@pytest.mark.parametrize("family", FAMILIES)
def test_all_of_a_small_family(family: str) -> None:
    """To its last trace: all different, all right."""
    count = min(capacity([family]), 3_000)
    traces = list(generate_traces(count, 1, families=[family]))
    assert len({trace.prompt for trace in traces}) == count
    for trace in traces:
        check(trace)


def test_a_trace_depends_on_its_place_alone() -> None:
    whole = list(generate_traces(200, 9))
    assert list(generate_traces(50, 9)) == whole[:50]
    assert list(generate_traces(60, 9, start=140)) == whole[140:]
    assert list(itertools.islice(generate_traces(10_000, 9), 3)) == whole[:3]


def test_seeds_differ() -> None:
    first, second = ({trace.prompt for trace in generate_traces(300, seed)} for seed in (1, 2))
    assert len(first & second) < 90


def test_another_process_with_another_hash_seed_gives_the_same_bytes() -> None:
    code = (
        "import json; from tunix_rt.generate import generate_traces\n"
        f"names = {[*FAMILIES, *CONVERSATION_FAMILIES]}\n"
        "print(json.dumps([trace.to_dict() for trace in generate_traces(40, 3, families=names)]))"
    )
    env = {**os.environ, "PYTHONHASHSEED": "77", "PYTHONPATH": os.pathsep.join(sys.path)}
    output = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=True).stdout
    names = [*FAMILIES, *CONVERSATION_FAMILIES]
    assert json.loads(output) == [trace.to_dict() for trace in generate_traces(40, 3, families=names)]


def test_known_traces_stay() -> None:
    """The demo's dataset digest rests on them."""
    shown = [
        (trace.prompt, "; ".join(step.content for step in trace.steps), trace.final_answer)
        for trace in generate_traces(4, 7)
    ]
    assert shown == [
        ("How much is 11 * 8 + 6?", "11 * 8 = 88; 88 + 6 = 94", "94"),
        (
            "Ines buys 9 cups at 5 dollars each and a box for 4 dollars. How many dollars does Ines pay?",
            "Cups: 9 * 5 = 45; Total: 45 + 4 = 49",
            "49",
        ),
        ("Write as days: 5 weeks and 6 days.", "Weeks to days: 5 * 7 = 35; Total: 35 + 6 = 41", "41"),
        ("What is 15 + 6?", "15 + 6 = 21", "21"),
    ]


def test_the_traces_of_the_demo_stay_to_the_byte() -> None:
    """And so does every dataset that was built of generated traces."""
    text = json.dumps([trace.to_dict() for trace in generate_traces(720, 7)])
    digest = "3b5c469b408981d1566dede861056bde858e8971848d6fcf1c5c7895e290f316"
    assert hashlib.sha256(text.encode()).hexdigest() == digest


def test_families_take_turns() -> None:
    families = [trace.family for trace in generate_traces(len(FAMILIES) * 3, 4)]
    for first in range(0, len(families), len(FAMILIES)):
        assert set(families[first : first + len(FAMILIES)]) == set(FAMILIES)
    assert {trace.family for trace in generate_traces(20, families=["ages", "rows"])} == {"ages", "rows"}


def test_easy_traces_are_short() -> None:
    traces = list(generate_traces(1_000))
    assert max(len(trace.steps) for trace in traces) <= 3
    assert max(len(step.content) for trace in traces for step in trace.steps) <= 40
    assert max(int(trace.final_answer) for trace in traces) < 1_000


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_traces_keep_the_limits_of_the_trace_store(difficulty: Difficulty) -> None:
    for trace in generate_traces(100, difficulty=difficulty):
        record = trace.to_dict()
        assert set(record) == {"trace_version", "prompt", "steps", "final_answer", "metadata", "source"}
        assert record["trace_version"] == "1.0"
        assert [step["i"] for step in record["steps"]] == list(range(len(trace.steps)))
        assert all(step["type"] in {"compute", "recall"} for step in record["steps"])
        assert record["metadata"]["family"] in FAMILIES
        assert record["metadata"]["difficulty"] == difficulty
        assert json.loads(json.dumps(record)) == record


def test_eval_items_hold_no_solution() -> None:
    traces = list(generate_traces(30, 2))
    items = [trace.to_eval_item() for trace in traces]
    assert len({item["id"] for item in items}) == len(items)
    for item, trace in zip(items, traces, strict=True):
        assert item["prompt"] == trace.prompt
        assert item["accepted_answers"] == [trace.final_answer]
        assert item["grader"] == "numeric"
        assert "steps" not in item


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"families": ["poetry"]}, "families has 'poetry'; the known ones are addition"),
        ({"families": []}, "one or more names"),
        ({"families": ["ages", "ages"]}, "each once"),
        ({"difficulty": "brutal"}, "difficulty is 'brutal'; one of easy, medium, hard"),
        ({"seed": -1}, "seed is -1; 0 or more"),
        ({"start": -1}, "start is -1; 0 or more"),
        ({"start": 10**9}, "these families have"),
    ],
)
def test_wrong_arguments_are_named_at_once(arguments: dict[str, object], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        generate_traces(1, **arguments)  # type: ignore[arg-type]


def test_negative_count() -> None:
    with pytest.raises(ValueError, match="count is -1"):
        generate_traces(-1)

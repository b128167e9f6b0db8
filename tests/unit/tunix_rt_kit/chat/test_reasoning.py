"""How reasoning is written, and how an answer is read back."""

from __future__ import annotations

from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunix_rt_kit.chat import (
    REASONING_STYLES,
    Message,
    ReasoningStyle,
    extract_answer,
    render_response,
    trace_messages,
)
from tunix_rt_kit.errors import InvalidArgument


def test_numbered() -> None:
    text = render_response(["3 * 4 = 12", "12 + 1 = 13"], "13", "numbered")
    assert text == "Reasoning:\n1. 3 * 4 = 12\n2. 12 + 1 = 13\nAnswer: 13"


def test_answer_only() -> None:
    assert render_response(["3 * 4 = 12"], " 12 \n", "answer-only") == "Answer: 12"


def test_a_step_stays_on_its_line() -> None:
    text = render_response([" first\r\n\n  second ", "\n"], "x")
    assert text == "Reasoning:\n1. first second\n2.\nAnswer: x"


def test_no_steps_is_the_answer_alone() -> None:
    assert render_response([], "7", "numbered") == "Answer: 7"


def test_unknown_style_lists_the_known_ones() -> None:
    with pytest.raises(InvalidArgument, match="'poem'; one of numbered, answer-only") as caught:
        render_response(["x"], "y", cast(ReasoningStyle, "poem"))
    assert caught.value.reason == "REASONING_STYLE_UNKNOWN"


def test_messages_of_a_trace() -> None:
    assert trace_messages("6 * 7?", ["6 * 7 = 42"], "42", "answer-only") == (
        Message(role="user", content="6 * 7?"),
        Message(role="assistant", content="Answer: 42"),
    )


@given(
    steps=st.lists(st.text(max_size=40), max_size=4),
    answer=st.text(max_size=40).filter(lambda text: "Answer:" not in text),
    style=st.sampled_from(REASONING_STYLES),
)
def test_the_answer_is_read_back(steps: list[str], answer: str, style: ReasoningStyle) -> None:
    assert extract_answer(render_response(steps, answer, style)) == answer.strip()


@given(steps=st.lists(st.text(max_size=40), min_size=1, max_size=5))
def test_one_line_for_each_step(steps: list[str]) -> None:
    lines = render_response(steps, "x").splitlines()
    assert len(lines) == len(steps) + 2
    assert [line.split(".")[0] for line in lines[1:-1]] == [str(n) for n in range(1, len(steps) + 1)]


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Answer: 5", "5"),
        ("Answer: 3? No.\nAnswer: 5", "5"),
        (" the result is 5 \n", "the result is 5"),
        ("Reasoning:\n1. so\nAnswer:", ""),
        ("", ""),
    ],
)
def test_answers_of_a_model(text: str, answer: str) -> None:
    assert extract_answer(text) == answer

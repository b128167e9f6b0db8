"""How reasoning is written, and how an answer is read back."""

from __future__ import annotations

from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunix_rt_kit.chat import (
    Message,
    ReasoningStyle,
    render_response,
    trace_messages,
)
from tunix_rt_kit.errors import InvalidArgument


def test_numbered() -> None:
    text = render_response(["3 * 4 = 12", "12 + 1 = 13"], "13", "numbered")
    assert text == "Reasoning:\n1. 3 * 4 = 12\n2. 12 + 1 = 13\nAnswer: 13"


def test_answer_only() -> None:
    assert render_response(["3 * 4 = 12"], "12", "answer-only") == "Answer: 12"


def test_white_space_is_content() -> None:
    text = render_response(["all:\n\tcc -o a a.c\n\n\t./a", "  x\u2028y "], "\t 12 \n", "numbered")
    assert text == "Reasoning:\n1. all:\n\tcc -o a a.c\n\n\t./a\n2.   x\u2028y \nAnswer: \t 12 \n"


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


@given(steps=st.lists(st.text(max_size=40), max_size=4), answer=st.text(max_size=40))
def test_every_text_stands_there_to_the_byte(steps: list[str], answer: str) -> None:
    rest = render_response(steps, answer, "numbered")
    for begin in [
        *(f"\n{number}. {step}" for number, step in enumerate(steps, start=1)),
        f"Answer: {answer}",
    ]:
        assert begin in rest
        rest = rest[rest.index(begin) + len(begin) :]
    assert render_response(steps, answer, "answer-only").removeprefix("Answer: ") == answer

from __future__ import annotations

from typing import Any

import pytest

from tunix_rt_kit.errors import FailedPrecondition
from tunix_rt_trace_store.traces.model import TraceContent
from tunix_rt_trace_store.traces.service import answer, structure


def content(steps: list[str], final_answer: str = "4", **metadata: Any) -> TraceContent:
    return {
        "trace_version": "1",
        "prompt": "p",
        "steps": [{"i": i, "type": "t", "content": text} for i, text in enumerate(steps)],
        "final_answer": final_answer,
        "metadata": metadata,
        "source": "",
    }


@pytest.mark.parametrize(
    ("steps", "value"),
    [
        (["x" * 500] * 10, 100),
        (["x" * 9000] * 40, 100),
        (["x" * 250] * 5, 50),
        (["x" * 100, "x" * 300], 10 + 20),
        (["x"], 5 + 0.1),
    ],
)
def test_structure(steps: list[str], value: float) -> None:
    assert structure(content(steps))[0] == pytest.approx(value)


@pytest.mark.parametrize(
    ("given", "reference", "value"),
    [
        ("4", "4", 100),
        (" Four\n", "four", 100),
        ("\uff14", 4, 100),
        ("4", 5, 0),
        ("2.5", 2.5, 100),
        ("four", "4", 0),
    ],
)
def test_answer(given: str, reference: Any, value: float) -> None:
    assert answer(content(["x"], given, reference_answer=reference))[0] == value


@pytest.mark.parametrize(
    "metadata", [{}, {"reference_answer": None}, {"reference_answer": True}, {"reference_answer": [4]}]
)
def test_answer_needs_a_reference(metadata: dict[str, Any]) -> None:
    with pytest.raises(FailedPrecondition, match=r"metadata\.reference_answer"):
        answer(content(["x"], **metadata))

"""Answers that are kept by what they depend on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tunix_rt_evaluator.model import Answer
from tunix_rt_evaluator.worker.engine import Prompt, Request
from tunix_rt_evaluator.worker.responses import Responses

IDENTITY: dict[str, Any] = {"weights": "sha256:1", "decoding": {"seed": 0, "temperature": 0.5}}
REQUEST = Request(Prompt("q1", "text", (1, 2), "sha256:prompt"), 0)
ANSWER = Answer(output="four é", output_tokens=2, finish_reason="stop", log_probabilities=(-0.1, -1e-9))


def test_an_answer_is_found_again_by_another_process_and_another_item_of_the_same_prompt(
    tmp_path: Path,
) -> None:
    path = tmp_path / "cache" / "responses.db"
    Responses(path, IDENTITY).keep(REQUEST, ANSWER)
    other_item = Request(Prompt("q2", "", (), "sha256:prompt"), 0)
    assert Responses(path, dict(reversed(IDENTITY.items()))).find(other_item) == ANSWER


@pytest.mark.parametrize(
    ("identity", "prompt", "sample"),
    [
        (IDENTITY | {"weights": "sha256:2"}, "sha256:prompt", 0),
        (IDENTITY | {"decoding": {"seed": 1, "temperature": 0.5}}, "sha256:prompt", 0),
        (IDENTITY, "sha256:another", 0),
        (IDENTITY, "sha256:prompt", 1),
    ],
    ids=["weights", "decoding", "prompt", "sample"],
)
def test_another_one_is_not_found(tmp_path: Path, identity: dict[str, Any], prompt: str, sample: int) -> None:
    path = tmp_path / "responses.db"
    Responses(path, IDENTITY).keep(REQUEST, ANSWER)
    assert Responses(path, identity).find(Request(Prompt("q1", "text", (1, 2), prompt), sample)) is None


def test_the_first_answer_stays(tmp_path: Path) -> None:
    kept = Responses(tmp_path / "responses.db", IDENTITY)
    kept.keep(REQUEST, ANSWER)
    kept.keep(REQUEST, ANSWER.model_copy(update={"output": "five"}))
    assert kept.find(REQUEST) == ANSWER


def test_a_damaged_file_keeps_nothing_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "responses.db"
    path.write_bytes(b"this is no database" * 100)
    kept = Responses(path, IDENTITY)
    kept.keep(REQUEST, ANSWER)
    assert kept.find(REQUEST) is None
    assert str(path) in kept.broken

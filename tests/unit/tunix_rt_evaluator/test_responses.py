"""Answers that are kept by what they depend on."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tunix_rt_evaluator.grading.model import Answer
from tunix_rt_evaluator.worker.engine import Prompt, Request
from tunix_rt_evaluator.worker.job import Responses

IDENTITY: dict[str, Any] = {"weights": "sha256:1", "decoding": {"seed": 0, "temperature": 0.5}}
PROMPT = Prompt("q1", "text", (1, 2), "sha256:prompt")
REQUEST = Request(PROMPT, 0)
ANSWER = Answer(output="four é", output_tokens=2, finish_reason="stop", log_probabilities=(-0.1, -1e-9))
OTHER = ANSWER.model_copy(update={"output": "five"})


def keep(path: Path, answer: Answer = ANSWER) -> None:
    with Responses(path, IDENTITY) as kept:
        kept.keep(REQUEST, answer)


def find(path: Path, request: Request = REQUEST, identity: dict[str, Any] = IDENTITY) -> Answer | None:
    with Responses(path, identity) as kept:
        found = kept.find(request)
    assert not kept.broken
    return found


def test_an_answer_is_found_again_by_another_process_and_another_item_of_the_same_prompt(
    tmp_path: Path,
) -> None:
    path = tmp_path / "cache" / "responses.db"
    keep(path)
    other_item = Request(Prompt("q2", "", (), "sha256:prompt"), 0)
    assert find(path, other_item, dict(reversed(IDENTITY.items()))) == ANSWER


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
    keep(path)
    assert find(path, Request(Prompt("q1", "text", (1, 2), prompt), sample), identity) is None


def test_the_first_answer_stays(tmp_path: Path) -> None:
    path = tmp_path / "responses.db"
    with Responses(path, IDENTITY) as kept:
        kept.keep(REQUEST, ANSWER)
        kept.keep(REQUEST, OTHER)
        assert kept.find(REQUEST) == ANSWER
    keep(path, OTHER)
    assert find(path) == ANSWER


def test_answers_are_written_in_groups_and_all_of_them_at_the_end_even_of_a_failure(tmp_path: Path) -> None:
    path, requests = tmp_path / "responses.db", [Request(PROMPT, sample) for sample in range(1000)]
    commits = set()

    def run() -> None:
        with Responses(path, IDENTITY) as kept, closing(sqlite3.connect(path)) as other:
            for request in requests:
                kept.keep(request, ANSWER)
                commits.add(other.execute("PRAGMA data_version").fetchone())
            # An evaluation that is killed loses few.
            assert other.execute("SELECT count(*) FROM responses").fetchone()[0] > 500
            raise KeyError

    with pytest.raises(KeyError):
        run()
    assert 1 < len(commits) < 20
    with Responses(path, IDENTITY) as kept:
        assert [kept.find(request) for request in requests] == [ANSWER] * 1000


@pytest.mark.parametrize("value", ["{}", "not JSON", b'{"output":"\xff"}', 5], ids=repr)
def test_an_answer_that_is_damaged_is_not_found_and_made_again(tmp_path: Path, value: Any) -> None:
    path = tmp_path / "responses.db"
    keep(path)
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE responses SET answer = CAST(? AS TEXT)", (value,))
    assert find(path) is None
    keep(path, OTHER)
    assert find(path) == OTHER


def test_a_damaged_file_keeps_nothing_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "responses.db"
    path.write_bytes(b"this is no database" * 100)
    with Responses(path, IDENTITY) as kept:
        kept.keep(REQUEST, ANSWER)
    with Responses(path, IDENTITY) as kept:
        assert kept.find(REQUEST) is None
    assert str(path) in kept.broken

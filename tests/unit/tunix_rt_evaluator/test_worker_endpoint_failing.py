"""Endpoints that fail an evaluation, and what they say of their models."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from support.asking import (
    asked,
    items_asked,
    nothing,
    refused,
    run,
    said,
    spec,
    to_items,
)
from support.fake_endpoint import Reply, answering, completion
from tunix_rt_evaluator.evaluations.job_folders import WorkerItem
from tunix_rt_evaluator.openai_endpoint import API_KEY_VARIABLE
from tunix_rt_evaluator.worker.endpoint import GIVE_UP_AFTER, open_endpoint
from tunix_rt_evaluator.worker.engine import Completion
from tunix_rt_evaluator.worker.job import Evaluations
from tunix_rt_kit.errors import DomainError, FailedPrecondition, Unavailable
from tunix_rt_kit.jobs.child import JobDir

REFUSALS: list[tuple[Reply, type[DomainError], str, str]] = [
    (
        said("bad key", 401),
        FailedPrecondition,
        "ENDPOINT_ACCESS_DENIED",
        "endpoint_api_key",
    ),
    (
        said("no m", 404),
        FailedPrecondition,
        "ENDPOINT_MODEL_UNKNOWN",
        "endpoint_model",
    ),
    (
        said("no seed", 400),
        FailedPrecondition,
        "ENDPOINT_REQUEST_REFUSED",
        "no seed",
    ),
    (Reply("<html>"), FailedPrecondition, "ENDPOINT_REPLY_INVALID", "setting endpoint_url must be the base"),
    (Reply({}, 500), Unavailable, "ENDPOINT_FAILING", "answers 500"),
    (Reply(drop=True), Unavailable, "ENDPOINT_FAILING", "breaks off the connection"),
]


@pytest.mark.parametrize(("reply", "kind", "reason", "words"), REFUSALS)
def test_an_endpoint_that_refuses_the_first_request_fails_the_evaluation(
    reply: Reply, kind: type[DomainError], reason: str, words: str
) -> None:
    with answering(lambda _: reply) as endpoint:
        error = refused(lambda: open_endpoint(spec(endpoint.url)))
    assert type(error) is kind
    assert error.reason == reason
    assert words in error.message
    assert endpoint.url in error.message


def test_an_endpoint_that_is_down_fails_the_evaluation() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
        error = refused(lambda: open_endpoint(spec(url)))
    assert (type(error), error.reason) == (Unavailable, "ENDPOINT_UNREACHABLE")
    assert f"the endpoint at {url} cannot be reached (tried once)" in error.message


def test_an_endpoint_that_goes_away_fails_the_evaluation_and_answers_are_kept() -> None:
    with answering(lambda prompt: completion(prompt)) as endpoint:
        engine = open_endpoint(spec(endpoint.url, batch_size=1))
        coming = engine.complete(asked(["a", "b", "c"])(engine), nothing)
        first = next(coming)
    assert first.answer is not None
    assert refused(lambda: list(coming)).reason == "ENDPOINT_UNREACHABLE"


def test_failures_in_a_row_fail_the_evaluation_and_an_answer_ends_the_row() -> None:
    prompts = ["x"] * (GIVE_UP_AFTER - 1) + ["good"] + ["x"] * (GIVE_UP_AFTER + 3)
    replies = to_items(lambda prompt: completion("y") if prompt == "good" else Reply({}, 500))
    done: list[Completion] = []
    with answering(replies) as endpoint:
        engine = open_endpoint(spec(endpoint.url, batch_size=1))
        with pytest.raises(Unavailable, match=f"^{GIVE_UP_AFTER} requests in a row failed, the last because"):
            done.extend(engine.complete(asked(prompts)(engine), nothing))
    assert len(items_asked(endpoint)) == 2 * GIVE_UP_AFTER


def test_prompts_that_are_refused_for_what_they_are_fail_no_evaluation() -> None:
    with answering(to_items(lambda _: Reply({}, 400))) as endpoint:
        done = run(endpoint.url, ["x"] * (2 * GIVE_UP_AFTER))
    assert [bool(entry.error) for entry in done] == [True] * 2 * GIVE_UP_AFTER


def test_a_server_of_one_model_is_not_asked_for_another() -> None:
    with answering(lambda _: completion("x"), models=["other"]) as endpoint:
        error = refused(lambda: open_endpoint(spec(endpoint.url)))
        assert not endpoint.requests
    assert error.reason == "ENDPOINT_MODEL_UNKNOWN"
    assert "has no 'm', but 'other' alone" in error.message


@pytest.mark.parametrize(
    "models",
    [
        ["m"],
        ["other", "more"],
        [],
        Reply({"data": [{"id": "other", "aliases": ["more", "m"]}]}),
        Reply("<html>"),
        Reply({"data": 5}),
        Reply({}, 500),
        Reply(drop=True),
    ],
)
def test_what_else_a_server_says_of_its_models_does_not_matter(models: Any) -> None:
    with answering(lambda _: completion("x"), models=models) as endpoint:
        (done,) = run(endpoint.url, ["a"])
    assert done.answer is not None


def test_the_facts_hold_what_the_server_says_and_no_address() -> None:
    with answering(lambda _: completion("x", model="m-2026", system_fingerprint="b6700")) as endpoint:
        engine = open_endpoint(spec(endpoint.url))
    facts = engine.facts
    assert facts.engine.startswith("openai/")
    assert facts.engine.endswith(" b6700")
    assert facts.runtime_settings == {"endpoint_model": "m-2026", "endpoint_fingerprint": "b6700"}
    assert (facts.base_weights_digest, facts.tokenizer_digest, facts.chat_template_digest) == ("", "", "")
    assert facts.chat_template is None
    assert facts.package_versions["openai"] in facts.engine
    assert "127.0.0.1" not in facts.model_dump_json()
    assert not engine.keeps


def test_a_key_that_the_server_sends_back_is_in_no_facts_and_no_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(API_KEY_VARIABLE, "secret")
    names = {"model": "m-of-secret", "system_fingerprint": "b-secret"}
    with answering(lambda _: completion("x", **names)) as endpoint:
        facts = open_endpoint(spec(endpoint.url)).facts
    assert facts.runtime_settings == {"endpoint_model": "m-of-***", "endpoint_fingerprint": "b-***"}
    assert "secret" not in facts.model_dump_json()
    with answering(lambda _: completion("x"), models=["m-of-secret"]) as endpoint:
        error = refused(lambda: run(endpoint.url, ["a"]))
    assert "but 'm-of-***' alone" in error.message


def test_the_engine_needs_no_model_library() -> None:
    code = (
        "import sys, openai, tunix_rt_evaluator.worker.endpoint\n"
        "print(sorted({'jax', 'flax', 'numpy', 'tokenizers', 'tunix'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_requests_that_fail_together_are_one_failure_in_a_row() -> None:
    burst = 2 * GIVE_UP_AFTER
    down = threading.Barrier(burst)

    def reply(prompt: str) -> Reply:
        if prompt == "x":
            down.wait(10)
            return Reply({}, 503)
        return completion("y")

    with answering(to_items(reply)) as endpoint:
        done = run(endpoint.url, ["x"] * burst + ["good"] * 3, batch_size=burst)
    assert [bool(entry.error) for entry in done].count(True) == burst
    assert len(done) == burst + 3


def test_progress_is_told_now_and_then_and_not_for_each_of_many_answers(tmp_path: Path) -> None:
    with answering(lambda _: completion("y")) as endpoint:
        items = tuple(WorkerItem(id=str(number), prompt="a") for number in range(200))
        given = spec(endpoint.url, batch_size=16).model_copy(update={"items": items})
        (tmp_path / "spec.json").write_text(given.model_dump_json())
        began = time.monotonic()
        Evaluations().evaluate(JobDir(tmp_path))
        seconds = time.monotonic() - began
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    told = [event for event in events if event["kind"] == "progress"]
    assert len(told) <= 4 * seconds + 2
    assert [event["kind"] for event in events].count("item") == 200
    assert (told[-1]["completed"], told[-1]["total"]) == (200, 200)

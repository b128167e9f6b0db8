"""Answers of an endpoint's model: what is asked, and what is read of the replies."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from support.asking import (
    NONSENSE,
    SPOKE_FIRST,
    asked,
    items_asked,
    nothing,
    refused,
    run,
    slow_until,
    spec,
    to_items,
)
from support.fake_endpoint import Reply, answering, completion
from tunix_rt_evaluator.evaluations.model import Decoding
from tunix_rt_evaluator.openai_endpoint import API_KEY_VARIABLE, Endpoint, EndpointError
from tunix_rt_evaluator.worker.endpoint import Served, open_endpoint, read_answer
from tunix_rt_kit.jobs.child import JobCancelled


def test_each_prompt_gets_its_own_answer_and_what_is_known_of_it() -> None:
    def answer(prompt: str) -> Reply:
        return completion(
            f"Answer: {prompt}",
            "length" if prompt == "b" else "stop",
            usage={"completion_tokens": 7, "prompt_tokens": 3, "total_tokens": 10},
        )

    with answering(answer) as endpoint:
        first, second = run(endpoint.url, ["a", "b"])
    assert first.answer is not None
    assert second.answer is not None
    assert (first.answer.output, first.answer.finish_reason, first.error) == ("Answer: a", "stop", "")
    assert (second.answer.output, second.answer.finish_reason) == ("Answer: b", "length")
    assert (first.answer.output_tokens, first.answer.log_probabilities) == (7, ())
    assert first.request.prompt.ids == ()
    assert first.request.prompt.digest != second.request.prompt.digest
    assert first.seconds >= 0


def test_the_request_holds_the_decoding_the_prompt_and_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(API_KEY_VARIABLE, "secret")
    with answering(lambda _: completion("x")) as endpoint:
        run(endpoint.url, ["a"], max_new_tokens=40, temperature=0.5, top_p=0.75)
        run(endpoint.url, ["a"], max_new_tokens=40)
    drawn, greedy = items_asked(endpoint)
    assert drawn["path"] == "/v1/chat/completions"
    assert drawn["key"] == "Bearer secret"
    assert drawn["messages"] == [{"role": "user", "content": "a"}]
    assert (drawn["model"], drawn["max_tokens"]) == ("m", 40)
    assert (drawn["temperature"], drawn["top_p"]) == (0.5, 0.75)
    assert greedy["temperature"] == 0
    assert "logprobs" not in greedy
    assert greedy["seed"] == drawn["seed"]


def test_seeds_differ_by_prompt_and_sample_and_stay_the_same() -> None:
    def seeds(seed: int) -> list[int]:
        with answering(lambda _: completion("x")) as endpoint:
            run(endpoint.url, ["a", "b"], samples=3, temperature=1.0, seed=seed, batch_size=1)
        return [body["seed"] for body in items_asked(endpoint)]

    first, again, other, largest = seeds(7), seeds(7), seeds(8), seeds((1 << 32) - 1)
    assert first == again
    assert len(set(first)) == 6
    assert not set(first) & set(other)
    assert all(0 <= seed < 1 << 31 for seed in first + largest)


def test_log_probabilities_are_read_where_they_are_asked_for() -> None:
    content = [{"token": "x", "logprob": value, "top_logprobs": []} for value in (-0.5, -1.25)]
    with answering(lambda _: completion("x", choice={"logprobs": {"content": content}})) as endpoint:
        (done,) = run(endpoint.url, ["a"], log_probabilities=True)
    assert items_asked(endpoint)[0]["logprobs"] is True
    assert done.answer is not None
    assert done.answer.log_probabilities == (-0.5, -1.25)


@pytest.mark.parametrize(
    "logprobs", [None, {"content": 5}, [-0.5] * 129, [float("nan")], [10**400], ["x"], [None]]
)
def test_what_are_no_log_probabilities_fail_the_item(logprobs: Any) -> None:
    def given(values: Any) -> Reply:
        if isinstance(values, list):
            values = {"content": [{"token": "x", "logprob": value} for value in values]}
        return completion("x", choice={"logprobs": values})

    with answering(lambda prompt: given([-0.5] if prompt == SPOKE_FIRST else logprobs)) as endpoint:
        (done,) = run(endpoint.url, ["a"], log_probabilities=True)
    assert done.answer is None
    assert "log-probabilities" in done.error or NONSENSE in done.error


def test_a_log_probability_that_no_float_can_hold_fails_the_item() -> None:
    # The package that is installed keeps such a number back; another version may hand it on.
    logprobs = SimpleNamespace(content=[SimpleNamespace(logprob=-(10**400))])
    message = SimpleNamespace(content="x")
    choice = SimpleNamespace(message=message, finish_reason="stop", logprobs=logprobs)
    with pytest.raises(EndpointError, match=NONSENSE), Endpoint("http://localhost/v1").explained():
        read_answer(SimpleNamespace(choices=[choice]), Decoding(log_probabilities=True), Served(), str)


def test_a_server_that_gives_no_log_probabilities_is_refused_before_the_first_item() -> None:
    with answering(lambda _: completion("x")) as endpoint:
        error = refused(lambda: run(endpoint.url, ["a"], log_probabilities=True))
    assert error.reason == "ENDPOINT_REPLY_INVALID"
    assert "spec.decoding.log_probabilities must be left out" in error.message
    assert not items_asked(endpoint)


def test_as_many_requests_are_under_way_as_the_batch_size_says() -> None:
    meeting = threading.Barrier(4, timeout=20)

    def answer(prompt: str) -> Reply:
        meeting.wait()
        return completion(prompt)

    with answering(to_items(answer)) as endpoint:
        done = run(endpoint.url, list("abcdefgh"), batch_size=4)
    assert [entry.answer.output for entry in done if entry.answer] == list("abcdefgh")
    assert endpoint.most_at_once == 4


def test_answers_come_as_they_are_done() -> None:
    gate = threading.Event()

    with answering(slow_until(gate)) as endpoint:
        engine = open_endpoint(spec(endpoint.url))
        coming = engine.complete(asked(["slow", "fast"])(engine), nothing)
        first = next(coming)
        gate.set()
        rest = list(coming)
    assert [entry.request.prompt.text for entry in (first, *rest)] == ["fast", "slow"]


def test_times_are_shares_of_the_engines() -> None:
    meeting = threading.Barrier(4, timeout=20)

    def answer(prompt: str) -> Reply:
        meeting.wait()
        return Reply(completion(prompt).body, wait_s=0.2)

    with answering(to_items(answer)) as endpoint:
        engine = open_endpoint(spec(endpoint.url, batch_size=4))
        began = time.perf_counter()
        done = list(engine.complete(asked("abcd")(engine), nothing))
        took = time.perf_counter() - began
    # Their latencies would sum to four times as much.
    assert 0.2 <= sum(entry.seconds for entry in done) <= took


def test_a_server_that_is_slow_does_not_keep_a_cancel_waiting() -> None:
    gate = threading.Event()
    looks = 0

    def check() -> None:
        nonlocal looks
        looks += 1
        if looks > 4:
            raise JobCancelled

    def answer(prompt: str) -> Reply:
        gate.wait(60)
        return completion(prompt)

    for replies in (answer, to_items(answer)):
        looks = 0
        with answering(replies) as endpoint:
            with pytest.raises(JobCancelled):
                run(endpoint.url, ["a"], check=check)
            assert not gate.is_set()
            gate.set()
        gate.clear()


def test_an_empty_answer_is_an_answer() -> None:
    with answering(lambda _: completion("")) as endpoint:
        (done,) = run(endpoint.url, ["a"])
    assert done.answer is not None
    assert (done.answer.output, done.answer.finish_reason) == ("", "stop")


def test_an_answer_that_did_not_begin_for_all_the_reasoning_was_cut() -> None:
    thinking = completion(
        None, "length", message={"reasoning_content": "Hm."}, usage={"completion_tokens": 9}
    )
    with answering(lambda _: thinking) as endpoint:
        (done,) = run(endpoint.url, ["a"])
    assert done.answer is not None
    assert (done.answer.output, done.answer.finish_reason, done.answer.output_tokens) == ("", "length", 9)
    assert done.answer.reasoning == "Hm."


@pytest.mark.parametrize(
    ("content", "message", "details", "wanted"),
    [
        ("4", {"reasoning_content": "2 + 2"}, {"reasoning_tokens": 7}, ("4", "2 + 2", 7)),
        ("4", {"reasoning": "2 + 2"}, None, ("4", "2 + 2", None)),
        (
            "4",
            {"reasoning_content": "2 + 2", "reasoning": "2 + 2"},
            {"reasoning_tokens": 0},
            ("4", "2 + 2", None),
        ),
        ("4", {"reasoning_content": None, "reasoning": {"effort": "low"}}, None, ("4", "", None)),
        ("4", {}, {"reasoning_tokens": 7}, ("4", "", 7)),
        # A server may give all of a text as reasoning that was never closed.
        (None, {"reasoning_content": "It is 4."}, None, ("", "It is 4.", None)),
        (None, {}, {"reasoning_tokens": 7}, ("", "", 7)),
    ],
)
def test_reasoning_that_a_server_splits_off_is_kept_apart(
    content: str | None, message: dict[str, Any], details: Any, wanted: tuple[str, str, int | None]
) -> None:
    usage = {"completion_tokens": 9, "completion_tokens_details": details}
    with answering(lambda _: completion(content, message=message, usage=usage)) as endpoint:
        (done,) = run(endpoint.url, ["a"])
    assert done.answer is not None
    assert (done.answer.output, done.answer.reasoning, done.answer.reasoning_tokens) == wanted


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, {}),
        (None, {"reasoning_content": ""}),
        ("4", {"reasoning_content": "\ud800"}),
        ("4" * 100_000, {"reasoning_content": "5" * 100_001}),
    ],
)
def test_a_reply_without_a_text_that_can_be_kept_fails_its_item(
    content: str | None, message: dict[str, Any]
) -> None:
    replies = iter([completion("yes"), completion(content, message=message)])
    with answering(lambda _: next(replies)) as endpoint:
        (done,) = run(endpoint.url, ["a"])
    assert (done.answer, bool(done.error)) == (None, True)


@pytest.mark.parametrize("usage", [None, {}, {"completion_tokens": -1}, {"completion_tokens": "x"}, 5])
def test_a_number_of_tokens_that_is_not_known_is_none(usage: Any) -> None:
    with answering(lambda _: completion("x", usage=usage)) as endpoint:
        (done,) = run(endpoint.url, ["a"])
    assert done.answer is not None
    assert done.answer.output_tokens == 0

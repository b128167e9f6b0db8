"""Requests that an endpoint refuses for now, is too slow for, or fails one by one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from email.utils import formatdate

import pytest

from support.asking import (
    NONSENSE,
    items_asked,
    refused,
    run,
    said,
    slow_until,
    to_items,
)
from support.fake_endpoint import Reply, answering, completion
from tunix_rt_evaluator.openai_endpoint import API_KEY_VARIABLE
from tunix_rt_evaluator.worker.endpoint import GIVE_UP_AFTER
from tunix_rt_kit.errors import Unavailable


def test_a_request_that_was_refused_for_now_is_sent_again() -> None:
    replies = iter(
        [Reply({}, 429, {"Retry-After": "0.01"}), Reply({}, 503), Reply(drop=True), completion("x")]
    )
    with answering(to_items(lambda _: next(replies))) as endpoint:
        (done,) = run(endpoint.url, ["a"], retries=3)
    assert done.answer is not None
    assert done.answer.output == "x"
    assert len(items_asked(endpoint)) == 4


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (said("too long:\nby 5", 400), "answers 400: too long: by 5"),
        (said("boom", 500), "answers 500: boom"),
        (Reply({"detail": "not that"}, 422), """answers 422: {"detail": "not that"}"""),
        (Reply({"error": "not that"}, 422), "answers 422: not that"),
        (Reply("", 502), "answers 502: nothing else"),
        (Reply("secret is no key", 403), "answers 403: *** is no key"),
        (Reply(drop=True), "breaks off the connection (tried once): "),
        (
            Reply("<html>hello</html>", headers={"Content-Type": "text/html"}),
            NONSENSE,
        ),
        (Reply("<html>hello</html>"), NONSENSE),
        (Reply("[]"), NONSENSE),
        (Reply("[" * 100_000), NONSENSE),
        (Reply({"choices": []}), NONSENSE),
        (Reply({"choices": {}}), NONSENSE),
        (Reply({"choices": [None]}), NONSENSE),
        (completion("x", message={"content": 5}), NONSENSE),
        (completion("x", message={"content": ["x"]}), NONSENSE),
        (completion("\ud800"), NONSENSE),
        (completion(None), "the reply holds no text and ends by 'stop'"),
        (completion(None, "length"), "the reply holds no text and ends by 'length'"),
        (
            completion("x", "content_filter"),
            "the reply ends by 'content_filter', which is neither 'stop' nor",
        ),
        (
            completion("x", model="another"),
            "the reply is by the model 'another', and the first one was by 'm'",
        ),
        (completion("x" * 300_000), "the reply has 300,000 characters for at most 128 tokens"),
        (completion("x", "no secret"), "the reply ends by 'no ***', which is neither 'stop' nor"),
        (completion(None, "secret"), "the reply holds no text and ends by '***'"),
        (completion("x", model="se\ncret"), "the reply is by the model '***', and the first one was by 'm'"),
    ],
)
def test_what_goes_wrong_with_one_request_is_the_failure_of_one_item(
    reply: Reply, error: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(API_KEY_VARIABLE, "secret")
    with answering(lambda prompt: reply if prompt == "bad" else completion(prompt)) as endpoint:
        before, bad, after = run(endpoint.url, ["a", "bad", "b"])
    assert error in bad.error
    assert "\n" not in bad.error
    assert bad.answer is None
    assert before.answer is not None
    assert after.answer is not None


def admitting(most: int) -> Callable[[str], Reply]:
    """Takes so many prompts at once, answers each after a while, and refuses the others for now."""
    places = threading.Semaphore(most)

    def answer(prompt: str) -> Reply:
        if not places.acquire(blocking=False):
            return said("slow down", 429)
        time.sleep(0.1)
        places.release()
        return completion(prompt)

    return answer


def test_a_server_that_takes_few_requests_at_once_answers_every_one() -> None:
    prompts = [str(number) for number in range(96)]
    with answering(to_items(admitting(4))) as endpoint:
        done = run(endpoint.url, prompts, batch_size=48)
    assert [entry.answer.output for entry in done if entry.answer] == prompts
    # What was refused was not sent again and again: fewer were sent at once.
    assert len(items_asked(endpoint)) < 2 * len(prompts)


@pytest.mark.parametrize(
    "form", [lambda at: f"{at - time.time():.3f}", lambda at: formatdate(at, usegmt=True)]
)
def test_a_busy_server_is_left_alone_for_as_long_as_it_says(form: Callable[[int], str]) -> None:
    opens = 0
    too_early = []

    def answer(prompt: str) -> Reply:
        nonlocal opens
        if not opens:
            opens = int(time.time()) + 3
            return Reply({}, 429, {"Retry-After": form(opens)})
        if time.time() < opens - 0.1:
            too_early.append(prompt)
        return completion(prompt)

    with answering(to_items(answer)) as endpoint:
        done = run(endpoint.url, list("abc"), batch_size=1)
    assert [entry.error for entry in done] == [""] * 3
    assert not too_early


@pytest.mark.parametrize("said_to_wait", ["0", "-1", "nan", "inf", "soon"])
def test_a_wait_that_means_nothing_is_left_out(said_to_wait: str) -> None:
    replies = iter([Reply({}, 429, {"Retry-After": said_to_wait}), completion("x")])
    with answering(to_items(lambda _: next(replies))) as endpoint:
        (done,) = run(endpoint.url, ["a"])
    assert done.answer is not None


def test_a_prompt_that_is_always_too_much_for_now_fails_its_item_alone() -> None:
    replies = to_items(lambda prompt: said("too large", 429) if prompt == "bad" else completion(prompt))
    with answering(replies) as endpoint:
        before, bad, after = run(endpoint.url, ["a", "bad", "b"], timeout_s=0.5)
    assert bad.answer is None
    assert bad.error.endswith("takes no more requests now: 429: too large")
    assert before.answer is not None
    assert after.answer is not None


def test_a_server_that_answers_none_any_more_as_it_is_busy_fails_the_evaluation() -> None:
    with answering(to_items(lambda _: said("no quota", 429))) as endpoint:
        error = refused(lambda: run(endpoint.url, ["x"] * (2 * GIVE_UP_AFTER), timeout_s=0.5, batch_size=1))
    assert (type(error), error.reason) == (Unavailable, "ENDPOINT_FAILING")
    assert "429: no quota" in error.message


def test_a_server_that_does_not_answer_one_request_in_time_fails_that_item() -> None:
    gate = threading.Event()

    with answering(slow_until(gate)) as endpoint:
        slow, fast = run(endpoint.url, ["slow", "fast"], timeout_s=0.5)
        gate.set()
    assert "did not answer within 0.5 s (tried once)" in slow.error
    assert fast.answer is not None


def test_a_server_that_never_comes_to_an_end_fails_that_item() -> None:
    with answering(to_items(lambda _: Reply(" " * 1_000, drip_s=0.05))) as endpoint:
        (done,) = run(endpoint.url, ["a"], timeout_s=0.5)
    assert "did not answer within 0.5 s" in done.error

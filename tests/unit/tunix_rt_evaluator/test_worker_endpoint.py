"""The engine behind an OpenAI-compatible API, against a server on this computer."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from email.utils import formatdate
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from support.fake_endpoint import FakeEndpoint, Reply, answering, completion
from tunix_rt_evaluator.evaluations.model import Decoding, EndpointFields, WorkerItem, WorkerSpec
from tunix_rt_evaluator.openai_endpoint import API_KEY_VARIABLE, Endpoint, EndpointError
from tunix_rt_evaluator.worker.endpoint import open_endpoint
from tunix_rt_evaluator.worker.endpoint_protocol import GIVE_UP_AFTER, Served, read_answer
from tunix_rt_evaluator.worker.engine import Completion, Request
from tunix_rt_evaluator.worker.job import Evaluations
from tunix_rt_kit.errors import DomainError, FailedPrecondition, Unavailable
from tunix_rt_kit.jobs import JobCancelled, JobDir

SPOKE_FIRST = "Hello."
NONSENSE = "answers what is no chat completion"


def said(message: str, status: int) -> Reply:
    return Reply({"error": {"message": message}}, status)


def spec(url: str, *, retries: int = 0, timeout_s: float = 20.0, **decoding: Any) -> WorkerSpec:
    return WorkerSpec(
        evaluation="evaluations/e",
        attempt=1,
        base_model="m",
        models_dir="",
        checkpoint_dir=None,
        base_weights_digest=None,
        chat_template=None,
        decoding=Decoding(**decoding),
        dtype="bfloat16",
        items=(),
        code_revision="test",
        endpoint=EndpointFields(url=url, timeout_s=timeout_s, retries=retries),
    )


def asked(prompts: Sequence[str], samples: int = 1) -> Callable[[Any], list[Request]]:
    """Requests for samples of each prompt, whose item has its number as id."""

    def requests(engine: Any) -> list[Request]:
        items = [WorkerItem(id=str(number), prompt=prompt) for number, prompt in enumerate(prompts)]
        read, failed = engine.read(items)
        assert not failed
        return [Request(prompt, sample) for prompt in read for sample in range(samples)]

    return requests


def nothing() -> None:
    """A check that finds nothing."""


def run(
    url: str, prompts: Sequence[str], samples: int = 1, check: Callable[[], None] = nothing, **values: Any
) -> list[Completion]:
    """What an engine makes of the prompts, in the order of items and samples."""
    engine = open_endpoint(spec(url, **values), check)
    done = list(engine.complete(asked(prompts, samples)(engine), check))
    return sorted(done, key=lambda entry: (int(entry.request.prompt.item_id), entry.request.sample))


def to_items(replies: Callable[[str], Reply]) -> Callable[[str], Reply]:
    """Answers items as ``replies`` says, and the first request well."""
    return lambda prompt: completion("yes") if prompt == SPOKE_FIRST else replies(prompt)


def items_asked(endpoint: FakeEndpoint) -> list[dict[str, Any]]:
    return [body for body in endpoint.requests if body["messages"][0]["content"] != SPOKE_FIRST]


def refused(call: Callable[[], Any]) -> DomainError:
    with pytest.raises(DomainError) as caught:
        call()
    assert "\n" not in caught.value.message
    return caught.value


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


def slow_until(gate: threading.Event) -> Callable[[str], Reply]:
    """Answers the prompt "slow" when the gate opens, and others at once."""

    def answer(prompt: str) -> Reply:
        if prompt == "slow":
            gate.wait(20)
        return completion(prompt)

    return answer


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

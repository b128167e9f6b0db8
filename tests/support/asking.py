"""Asks a fake endpoint as an evaluation's child process does."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from support.fake_endpoint import FakeEndpoint, Reply, completion
from tunix_rt_evaluator.evaluations.job_folders import EndpointFields, WorkerItem, WorkerSpec
from tunix_rt_evaluator.evaluations.model import Decoding
from tunix_rt_evaluator.worker.endpoint import open_endpoint
from tunix_rt_evaluator.worker.engine import Completion, Request
from tunix_rt_kit.errors import DomainError

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


def slow_until(gate: threading.Event) -> Callable[[str], Reply]:
    """Answers the prompt "slow" when the gate opens, and others at once."""

    def answer(prompt: str) -> Reply:
        if prompt == "slow":
            gate.wait(20)
        return completion(prompt)

    return answer

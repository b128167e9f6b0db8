"""An engine that others run: a model behind an OpenAI-compatible API.

Imports no model library. What is not known of such a model stays empty: its weights, its tokenizer, its chat
template.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import os
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any, Final, TypeVar

from tunix_rt_evaluator.evaluations.job_folders import WorkerItem, WorkerSpec
from tunix_rt_evaluator.evaluations.model import Decoding, Generation, ModelFacts
from tunix_rt_evaluator.grading.model import Answer
from tunix_rt_evaluator.openai_endpoint import (
    API_KEY_VARIABLE,
    Endpoint,
    EndpointError,
    Failure,
    Pace,
    one_line,
    text_of,
)
from tunix_rt_evaluator.worker.chat_completions import asked_of, with_calls
from tunix_rt_evaluator.worker.engine import Completion, Engine, Prompt, Report, Request
from tunix_rt_kit.canonical import digest_json
from tunix_rt_kit.errors import DomainError, FailedPrecondition, Unavailable

if TYPE_CHECKING:
    from openai import AsyncOpenAI


# A text with more characters than this cannot be an answer of 8,192 tokens, and would not fit into a message.
_MOST_CHARACTERS: Final = 200_000
_MOST_TOKENS: Final = (1 << 31) - 1
_MOST_NAME: Final = 256

# vLLM, llama.cpp, SGLang and DeepSeek have the first one, OpenRouter, Ollama and newer ones the second.
_REASONING_FIELDS: Final = ("reasoning_content", "reasoning")

GIVE_UP_AFTER: Final = 8
"""Requests in a row that fail for reasons that are not in their prompts."""

_REASONS: Final[dict[Failure, tuple[type[DomainError], str, str]]] = {
    "unreachable": (Unavailable, "ENDPOINT_UNREACHABLE", ""),
    "silent": (Unavailable, "ENDPOINT_FAILING", ""),
    "busy": (Unavailable, "ENDPOINT_FAILING", ""),
    "broken": (Unavailable, "ENDPOINT_FAILING", ""),
    "denied": (
        FailedPrecondition,
        "ENDPOINT_ACCESS_DENIED",
        "; the evaluator's setting endpoint_api_key holds its key",
    ),
    "missing": (
        FailedPrecondition,
        "ENDPOINT_MODEL_UNKNOWN",
        "; spec.endpoint_model or the evaluator's setting endpoint_url names what is not there",
    ),
    "refused": (FailedPrecondition, "ENDPOINT_REQUEST_REFUSED", ""),
    "unusable": (FailedPrecondition, "ENDPOINT_REPLY_INVALID", ""),
    "nonsense": (
        FailedPrecondition,
        "ENDPOINT_REPLY_INVALID",
        "; the evaluator's setting endpoint_url must be the base of an OpenAI-compatible API, such as "
        "http://localhost:8000/v1",
    ),
}
_AT_ONCE: Final[frozenset[Failure]] = frozenset({"unreachable", "missing"})

Cleared = Callable[[str], str]
"""Takes out of a server's text what must not be shown, see ``Endpoint.without_key``."""


@dataclass(frozen=True, slots=True)
class Served:
    """What a server says that it runs: the name of the model, and its own version or configuration. Both may
    be empty."""

    model: str = ""
    fingerprint: str = ""


def read_served(reply: Any, decoding: Decoding, cleared: Cleared) -> Served:
    """What the first reply tells, whatever the model wrote.

    Raises EndpointError where log-probabilities are wanted and there are none, and as
    ``Endpoint.explained`` expects where it is no chat completion.
    """
    choice = reply.choices[0]
    text_of(choice)
    if decoding.log_probabilities:
        _log_probabilities(choice, decoding)
    return Served(_name(reply, "model", cleared), _name(reply, "system_fingerprint", cleared))


def read_answer(
    reply: Any, decoding: Decoding, served: Served, cleared: Cleared, *, may_call: bool = False
) -> Answer:
    """What the model wrote, calls of tools behind its text where it ``may_call`` any; raises as
    ``read_served`` where that cannot be said."""
    choice = reply.choices[0]
    text, finished = text_of(choice), choice.finish_reason
    if may_call and choice.message.tool_calls:
        text = with_calls(text or "", choice.message)
        finished = "stop" if finished == "tool_calls" else finished
    ended = one_line(repr(cleared(str(finished))))
    if (model := _name(reply, "model", cleared)) != served.model:
        raise EndpointError(
            f"the reply is by the model {model!r}, and the first one was by {served.model!r}", "unusable"
        )
    reasoning, reasoned = _reasoning(choice.message), _reasoning_tokens(reply)
    if text is None and (reasoning or reasoned or (finished == "length" and reasoning is not None)):
        text = ""  # Nothing came behind the reasoning, most often because the tokens were used up.
    if text is None:
        raise EndpointError(f"the reply holds no text and ends by {ended}", "unusable")
    if finished not in ("stop", "length"):
        raise EndpointError(f"the reply ends by {ended}, which is neither 'stop' nor 'length'", "refused")
    if (characters := len(text) + len(reasoning or "")) > _MOST_CHARACTERS:
        raise EndpointError(
            f"the reply has {characters:,} characters for at most {decoding.max_new_tokens:,} tokens",
            "unusable",
        )
    return Answer(
        output=text,
        output_tokens=_tokens(reply, "completion_tokens"),
        finish_reason=finished,
        log_probabilities=_log_probabilities(choice, decoding) if decoding.log_probabilities else (),
        reasoning=reasoning or "",
        reasoning_tokens=reasoned,
    )


def _log_probabilities(choice: Any, decoding: Decoding) -> tuple[float, ...]:
    entries = getattr(choice.logprobs, "content", None)
    if entries is None:
        raise EndpointError(
            "the endpoint gives no log-probabilities; spec.decoding.log_probabilities must be left out",
            "unusable",
        )
    found = tuple(float(entry.logprob) for entry in entries)
    if len(found) > decoding.max_new_tokens or not all(map(math.isfinite, found)):
        raise EndpointError(
            f"the reply has {len(found):,} log-probabilities, some of which are no numbers or beyond the "
            f"{decoding.max_new_tokens:,} tokens that were asked for",
            "unusable",
        )
    return found


def _tokens(reply: Any, field: str) -> int:
    """How many tokens the reply says there were; 0 where it does not say."""
    return _count(getattr(getattr(reply, "usage", None), field, None)) or 0


def _reasoning_tokens(reply: Any) -> int | None:
    """How many tokens of the answer's were reasoning, where the server says that there were some."""
    details = getattr(getattr(reply, "usage", None), "completion_tokens_details", None)
    return _count(getattr(details, "reasoning_tokens", None)) or None


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and 0 <= value <= _MOST_TOKENS else None


def _reasoning(message: Any) -> str | None:
    """What a server that keeps reasoning apart put there; None of one that does not."""
    given = [getattr(message, name, None) for name in _REASONING_FIELDS]
    texts = [text for text in given if isinstance(text, str)]
    found = next(filter(None, texts), "") if texts else None
    if found:
        found.encode()  # As in ``text_of``.
    return found


def _name(reply: Any, field: str, cleared: Cleared) -> str:
    """A name that can be shown; empty where there is none."""
    value = getattr(reply, field, None)
    text = value if isinstance(value, str) else ""
    return cleared("".join(filter(str.isprintable, text)))[:_MOST_NAME]


def refusal(error: EndpointError) -> DomainError:
    """What an evaluation ends with when the endpoint fails for all requests."""
    kind, reason, hint = _REASONS[error.failure]
    return kind(f"{error}{hint}", reason=reason)


class Faults:
    """Counts failures.

    A prompt may be refused for what it is, such as one that is too long. Everything else is the endpoint's
    fault, and nothing would be learned by asking it a thousand times. Requests that were under way together
    and failed together are one failure: an endpoint that starts anew refuses all of them at once.
    """

    def __init__(self) -> None:
        self._in_a_row = 0
        self._last_at = -math.inf

    def answered(self) -> None:
        """An answer came."""
        self._in_a_row = 0

    def failed(self, error: EndpointError, sent_at: float) -> None:
        """A request failed in the end that was sent at ``sent_at`` by ``time.perf_counter``; raises what ends
        the evaluation if others would fail as well."""
        if error.failure == "refused":
            return
        if error.failure in _AT_ONCE:
            raise refusal(error)
        if sent_at < self._last_at:
            return
        self._last_at = time.perf_counter()
        self._in_a_row += 1
        if self._in_a_row >= GIVE_UP_AFTER:
            ended = refusal(error)
            raise type(ended)(
                f"{self._in_a_row} requests in a row failed, the last because {ended.message}",
                reason=ended.reason,
            )


T = TypeVar("T")

_LOOK_S: Final = 0.4
_LISTING_S: Final = 10.0
# Seeds stay positive in a signed integer of 32 bits; llama.cpp takes the largest unsigned one for "any".
_SEED_MASK: Final = 0x7FFF_FFFF
_GREETING: Final = {"messages": [{"role": "user", "content": "Hello."}]}
_GREETING_TOKENS: Final = 16


def open_endpoint(spec: WorkerSpec, check: Callable[[], None] = lambda: None) -> Engine:
    """The engine that asks ``spec.endpoint`` for the model ``spec.base_model``, after a first request to it.

    Args:
        spec: its endpoint's key is taken from the environment, ``API_KEY_VARIABLE``.
        check: called at least every half second; what it raises ends the attempt.

    Raises:
        Unavailable: ENDPOINT_UNREACHABLE, ENDPOINT_FAILING.
        FailedPrecondition: ENDPOINT_ACCESS_DENIED, ENDPOINT_MODEL_UNKNOWN, ENDPOINT_REQUEST_REFUSED,
            ENDPOINT_REPLY_INVALID.
    """
    if spec.endpoint is None:
        raise ValueError("the spec has no endpoint")
    endpoint = Endpoint(api_key=os.environ.get(API_KEY_VARIABLE, ""), **spec.endpoint.model_dump())
    engine = EndpointEngine(endpoint, spec)
    engine.connect(check)
    return engine


@dataclass(slots=True)
class _Clock:
    """Shares wall time out among the requests under way: ``each`` is what one got that always was."""

    at: float
    each: float = 0.0

    def tick(self, under_way: int) -> float:
        """Count the time since the last tick, in which so many were under way."""
        now = time.perf_counter()
        self.each += (now - self.at) / max(1, under_way)
        self.at = now
        return self.each


class EndpointEngine:
    """Asks for each answer by a request of its own, at most ``decoding.batch_size`` at once."""

    # The same name may stand for other weights tomorrow.
    keeps = False

    def __init__(self, endpoint: Endpoint, spec: WorkerSpec) -> None:
        self._endpoint = endpoint
        self._model = spec.base_model
        self._decoding = spec.decoding
        self._code_revision = spec.code_revision
        self._served = Served()

    @property
    def facts(self) -> ModelFacts:
        """What the endpoint says of itself; its address is no part of it."""
        version = metadata.version("openai")
        served = self._served
        told = {"endpoint_model": served.model, "endpoint_fingerprint": served.fingerprint}
        return ModelFacts(
            base_weights_digest="",
            tokenizer_digest="",
            chat_template=None,
            chat_template_digest="",
            engine=f"openai/{version}" + (f" {served.fingerprint}" if served.fingerprint else ""),
            package_versions={"openai": version},
            runtime_settings={name: value for name, value in told.items() if value},
            device="",
            code_revision=self._code_revision,
        )

    @property
    def identity(self) -> Mapping[str, Any]:
        """No key for answers: only a name tells which weights gave them."""
        return {"engine": self.facts.engine}

    def connect(self, check: Callable[[], None]) -> None:
        """Find out what is served, and whether it answers; raises as ``open_endpoint``."""
        with asyncio.Runner() as runner:
            task = runner.get_loop().create_task(self._connect())
            try:
                while not task.done():
                    check()
                    runner.run(_some({task}))
                self._served = task.result()
            finally:
                task.cancel()
                runner.run(_ended([task]))

    def read(self, items: Sequence[WorkerItem]) -> tuple[list[Prompt], list[Generation]]:
        """A prompt for each item; which of them are too long, the endpoint says."""
        prompts = []
        for item in items:
            chat = asked_of(item)
            digest = digest_json(chat if "tools" in chat else chat["messages"])
            prompts.append(Prompt(item.id, item.prompt, (), digest, chat))
        return prompts, []

    def prepare(self, report: Report) -> None:
        """Nothing: ``open_endpoint`` has found that the endpoint answers."""

    def complete(self, requests: Sequence[Request], check: Callable[[], None]) -> Iterator[Completion]:
        """Complete requests, each as soon as it is done. One that is refused for now waits for its next turn.

        Raises what ``open_endpoint`` raises when the endpoint stops answering: an error that does not concern
        one request, or several in a row.
        """
        waiting, faults = deque(requests), Faults()
        pace = Pace(self._decoding.batch_size, self._endpoint.patience_s)
        with asyncio.Runner() as runner:
            client = self._client(_once_where_busy)
            under_way: dict[asyncio.Task[tuple[Answer, int]], tuple[Request, float, float]] = {}
            clock = _Clock(time.perf_counter())
            try:
                while waiting or under_way:
                    began = clock.tick(len(under_way))
                    for _ in range(min(len(waiting), pace.room(len(under_way)))):
                        request = waiting.popleft()
                        task = runner.get_loop().create_task(self._answer(client, request))
                        under_way[task] = request, began, time.perf_counter()
                    check()
                    done = runner.run(_some(under_way, pace.pause_s))
                    now = clock.tick(len(under_way))
                    taken = len(under_way) - sum(_busy(task) is not None for task in done)
                    for task in done:
                        request, began, sent_at = under_way.pop(task)
                        busy = _busy(task)
                        if busy is not None and pace.refused(taken, busy.retry_after_s):
                            waiting.append(request)
                        else:
                            yield _completion(request, task, now - began, sent_at, faults, pace)
            finally:
                for task in under_way:
                    task.cancel()
                # Closing the connections tells the server that nobody waits any more.
                runner.run(_ended(under_way, client))

    def _client(self, *hooks: Callable[[Any], Awaitable[None]]) -> AsyncOpenAI:
        """A client; ``hooks`` see each response before it does."""
        from openai import AsyncOpenAI, DefaultAsyncHttpxClient

        http_client = DefaultAsyncHttpxClient(event_hooks={"response": list(hooks)})
        return AsyncOpenAI(**self._endpoint.options, http_client=http_client)

    async def _connect(self) -> Served:
        # By a connection of its own: a server that cannot list its models may end that without a word.
        async with self._client() as client:
            self._check_name(await self._models(client))
        body = self._body(_GREETING, seed=self._decoding.seed, most=_GREETING_TOKENS)
        async with self._client() as client:
            try:
                with self._endpoint.explained():
                    async with asyncio.timeout(self._endpoint.patience_s):
                        reply = await client.chat.completions.create(**body)
                    return read_served(reply, self._decoding, self._endpoint.without_key)
            except EndpointError as error:
                raise refusal(error) from None

    async def _models(self, client: AsyncOpenAI) -> list[list[str]]:
        """The names of each model that is served; no model where the server does not tell at once."""
        try:
            with self._endpoint.explained():
                async with asyncio.timeout(min(_LISTING_S, self._endpoint.timeout_s)):
                    listed = await client.with_options(max_retries=0).models.list()
                    return [
                        [str(model.id), *(getattr(model, "aliases", None) or ())] for model in listed.data
                    ]
        except EndpointError:
            # What is wrong with the endpoint, the request for an answer tells.
            return []

    def _check_name(self, models: Sequence[Sequence[str]]) -> None:
        """A server of one model, such as llama.cpp's, answers for it whatever name it is asked by."""
        if len(models) == 1 and self._model not in models[0]:
            raise FailedPrecondition(
                f"spec.endpoint_model: the endpoint at {self._endpoint.url} has no {self._model!r}, but "
                f"{self._endpoint.shown(models[0][0])!r} alone",
                reason="ENDPOINT_MODEL_UNKNOWN",
                metadata={"endpoint_model": self._model},
            )

    async def _answer(self, client: AsyncOpenAI, request: Request) -> tuple[Answer, int]:
        """The answer, and how many tokens the prompt had."""
        body = self._body(request.prompt.chat, seed=self._seed(request), most=self._decoding.max_new_tokens)
        with self._endpoint.explained():
            async with asyncio.timeout(self._endpoint.patience_s):
                reply = await client.chat.completions.create(**body)
            offered = "tools" in request.prompt.chat
            cleared = self._endpoint.without_key
            answer = read_answer(reply, self._decoding, self._served, cleared, may_call=offered)
            return answer, _tokens(reply, "prompt_tokens")

    def _body(self, chat: Mapping[str, Any], *, seed: int, most: int) -> dict[str, Any]:
        decoding = self._decoding
        body: dict[str, Any] = {
            "model": self._model,
            **chat,
            "max_tokens": min(most, decoding.max_new_tokens),
            "temperature": decoding.temperature,
            "seed": seed & _SEED_MASK,
        }
        if decoding.temperature > 0:
            body["top_p"] = decoding.top_p
        if decoding.log_probabilities:
            body["logprobs"] = True
        return body

    def _seed(self, request: Request) -> int:
        """Another one for each prompt and sample, and the same one each time."""
        name = f"{request.prompt.digest}/{request.sample}".encode()
        return self._decoding.seed + int.from_bytes(hashlib.sha256(name).digest()[:4], "big")


async def _once_where_busy(response: Any) -> None:
    """Keeps the package from trying a 429 again by itself: it would hold the place of another request."""
    if response.status_code == 429:
        response.headers["x-should-retry"] = "false"


def _busy(task: asyncio.Task[Any]) -> EndpointError | None:
    """The error of a request that the endpoint was too busy for."""
    error = task.exception()
    return error if isinstance(error, EndpointError) and error.failure == "busy" else None


def _completion(
    request: Request,
    task: asyncio.Task[tuple[Answer, int]],
    seconds: float,
    sent_at: float,
    faults: Faults,
    pace: Pace,
) -> Completion:
    error = task.exception()
    if error is None:
        faults.answered()
        pace.answered()
        answer, prompt_tokens = task.result()
        return Completion(request, answer, seconds, prompt_tokens=prompt_tokens)
    if not isinstance(error, EndpointError):
        raise error
    faults.failed(error, sent_at)
    return Completion(request, None, seconds, str(error))


async def _some(tasks: Collection[asyncio.Task[T]], pause_s: float = 0.0) -> list[asyncio.Task[T]]:
    """Those that are done after a while, or as soon as one is; in the order in which they were begun.

    A pause that ends earlier ends the while.
    """
    while_s = min(_LOOK_S, pause_s or _LOOK_S)
    if not tasks:
        await asyncio.sleep(while_s)
        return []
    done, _ = await asyncio.wait(tasks, timeout=while_s, return_when=asyncio.FIRST_COMPLETED)
    return [task for task in tasks if task in done]


async def _ended(tasks: Collection[asyncio.Task[Any]], client: AsyncOpenAI | None = None) -> None:
    await asyncio.gather(*tasks, return_exceptions=True)
    if client is not None:
        await client.close()

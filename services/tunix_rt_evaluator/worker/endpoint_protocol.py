"""How an endpoint is asked: what its replies say, which failures end an evaluation, and how many requests it
takes at once."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from tunix_rt_evaluator.evaluations.model import Decoding
from tunix_rt_evaluator.grading.reasoning.model import Answer
from tunix_rt_evaluator.openai_endpoint import EndpointError, Failure, one_line, text_of
from tunix_rt_kit.errors import DomainError, FailedPrecondition, Unavailable

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
_FIRST_PAUSE_S: Final = 0.5
_LONGEST_PAUSE_S: Final = 8.0

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


def read_answer(reply: Any, decoding: Decoding, served: Served, cleared: Cleared) -> Answer:
    """What the model wrote; raises as ``read_served`` where that cannot be said."""
    choice = reply.choices[0]
    text, finished = text_of(choice), choice.finish_reason
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


def read_prompt_tokens(reply: Any) -> int:
    """How many tokens the prompt had; 0 where the server does not say."""
    return _tokens(reply, "prompt_tokens")


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


class Pace:
    """Requests at once: ``most`` of them, or as many as the endpoint takes.

    Where one is refused for now, it takes as many as it did not refuse. When it has answered so many, one
    more is tried. Nothing is sent for as long as the server says; where it does not say and takes none, for
    half a second, and twice as long each time, up to 8 s.

    Args:
        most: requests at once, where the endpoint takes them.
        patience_s: how long a busy endpoint may leave every request without an answer, in seconds; also the
            longest wait that a server may ask for.
    """

    def __init__(self, most: int, patience_s: float) -> None:
        self._most = self._limit = most
        self._patience_s = patience_s
        self._answers = 0
        self._answered_at = self._open_at = time.perf_counter()
        self._next_pause_s = _FIRST_PAUSE_S

    @property
    def pause_s(self) -> float:
        """How long nothing may be sent, from now on."""
        return max(0.0, self._open_at - time.perf_counter())

    def room(self, under_way: int) -> int:
        """How many requests may be sent now, beside so many that are under way."""
        return 0 if self.pause_s else max(0, self._limit - under_way)

    def answered(self) -> None:
        """An answer came."""
        self._answered_at = time.perf_counter()
        self._next_pause_s = _FIRST_PAUSE_S
        self._answers += 1
        if self._answers >= self._limit:
            self._answers = 0
            self._limit = min(self._most, self._limit + 1)

    def refused(self, taken: int, retry_after_s: float | None) -> bool:
        """The endpoint was too busy for a request; returns whether to send that again.

        Not when it takes none, and has answered none for as long as the patience lasts.

        Args:
            taken: how many requests it had then that it did not refuse.
            retry_after_s: how long the server wants to be left alone; None where it does not say.
        """
        now = time.perf_counter()
        if not taken and now - self._answered_at >= self._patience_s:
            return False
        self._answers = 0
        self._limit = max(1, min(self._limit, taken))
        pause_s = min(retry_after_s or 0.0, self._patience_s)
        if not taken and not pause_s and not self.pause_s:
            pause_s = self._next_pause_s
            self._next_pause_s = min(_LONGEST_PAUSE_S, 2 * pause_s)
        self._open_at = max(self._open_at, now + pause_s)
        return True

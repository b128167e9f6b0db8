"""What an endpoint's replies say. Anything may stand in them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from tunix_rt_evaluator.evaluations.model import Decoding
from tunix_rt_evaluator.grading.reasoning.model import Answer
from tunix_rt_evaluator.openai_endpoint import EndpointError, one_line, text_of

# A text with more characters than this cannot be an answer of 8,192 tokens, and would not fit into a message.
_MOST_CHARACTERS: Final = 200_000
_MOST_TOKENS: Final = (1 << 31) - 1
_MOST_NAME: Final = 256

# vLLM, llama.cpp, SGLang and DeepSeek have the first one, OpenRouter, Ollama and newer ones the second.
_REASONING_FIELDS: Final = ("reasoning_content", "reasoning")

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

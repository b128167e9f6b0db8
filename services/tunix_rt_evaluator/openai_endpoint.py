"""OpenAI-compatible APIs, such as those of vLLM, llama.cpp and Ollama: how one is asked, how many requests it
takes at once, and why it did not answer."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, ClassVar, Final, Literal
from urllib.parse import urlsplit

API_KEY_VARIABLE: Final = "TUNIX_RT_EVALUATOR_ENDPOINT_API_KEY"
"""The environment variable that hands an evaluation's child the key."""

Failure = Literal[
    "unreachable", "silent", "denied", "missing", "busy", "broken", "refused", "nonsense", "unusable"
]
"""Why there was no answer: nothing listens; nothing came in time; access was denied; model or path are not
there; 429; 5xx or a connection that ended; this request was refused; what came is no chat completion; it is
one that says nothing usable."""

_STATUSES: Final[dict[int, Failure]] = {
    401: "denied", 402: "denied", 403: "denied", 404: "missing", 405: "missing", 429: "busy",
}  # fmt: skip
_CANNOT_CONNECT: Final = ("ConnectError", "ConnectTimeout", "ProxyError", "UnsupportedProtocol")
# The package waits as long as a server tells it to, up to this.
_LONGEST_RETRY_AFTER_S: Final = 120.0
_SHOWN: Final = 160
_FIRST_PAUSE_S: Final = 0.5
_LONGEST_PAUSE_S: Final = 8.0
# What the package and those who read a reply raise of JSON that is no chat completion.
_UNREADABLE: Final = (
    AttributeError,
    LookupError,
    OverflowError,
    RecursionError,
    TypeError,
    ValueError,
)


class EndpointError(Exception):
    """Why an endpoint gave no answer, in one line without its key.

    ``retry_after_s`` is how long a busy one wants to be left alone, in seconds; None where it does not say.
    """

    def __init__(self, message: str, failure: Failure, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.failure: Failure = failure
        self.retry_after_s = retry_after_s


@dataclass(frozen=True)
class Endpoint:
    """Where an API is.

    Args:
        url: its base, such as ``http://localhost:8000/v1``; empty where there is none.
        api_key: sent to it; empty for a server that wants none.
        timeout_s: how long one request may take.
        retries: how often a request is tried again that got no answer, a 429 or a 5xx.
    """

    title: ClassVar[str] = "the endpoint"

    url: str = ""
    api_key: str = field(default="", repr=False)
    timeout_s: float = 60.0
    retries: int = 3

    @property
    def options(self) -> dict[str, Any]:
        """What the package's clients are made with."""
        return {
            "base_url": self.url,
            "api_key": self.api_key or "none",
            "timeout": self.timeout_s,
            "max_retries": self.retries,
        }

    @property
    def patience_s(self) -> float:
        """How long a request may take with all its tries, in seconds.

        A try's own limit starts anew with each byte, so a server that drips would hold one for ever.
        """
        return (self.retries + 1) * self.timeout_s + self.retries * _LONGEST_RETRY_AFTER_S

    @contextmanager
    def explained(self) -> Iterator[None]:
        """What goes wrong in the block, which asks and reads the answer, becomes an EndpointError."""
        import openai

        where = f"{self.title} at {self.url}"
        try:
            yield
        except (openai.APITimeoutError, TimeoutError) as error:
            connecting = type(error.__cause__).__name__ in _CANNOT_CONNECT
            raise EndpointError(
                f"{where} did not answer within {self.timeout_s:g} s ({self._tries})",
                "unreachable" if connecting else "silent",
            ) from None
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            connected = type(cause).__name__ not in _CANNOT_CONNECT
            happened = "breaks off the connection" if connected else "cannot be reached"
            raise EndpointError(
                f"{where} {happened} ({self._tries}): {self.shown(str(cause) or type(cause).__name__)}",
                "broken" if connected else "unreachable",
            ) from None
        except openai.RateLimitError as error:
            raise EndpointError(
                f"{where} takes no more requests now: 429: {self.shown(_said(error))}",
                "busy",
                _retry_after_s(error.response.headers),
            ) from None
        except openai.APIStatusError as error:
            status = error.status_code
            failure = _STATUSES.get(status, "broken" if status >= 500 else "refused")
            raise EndpointError(f"{where} answers {status}: {self.shown(_said(error))}", failure) from None
        except (openai.OpenAIError, *_UNREADABLE):
            # The package hands on whatever JSON, or text, a server sends with status 200.
            raise EndpointError(f"{where} answers what is no chat completion", "nonsense") from None

    def without_key(self, text: str) -> str:
        """What a server said, as it may be stored."""
        return text.replace(self.api_key, "***") if self.api_key else text

    def shown(self, text: str) -> str:
        """The beginning of what a server said, in one line without the key."""
        return one_line(self.without_key(text))

    @property
    def _tries(self) -> str:
        return f"tried {self.retries + 1} times" if self.retries else "tried once"


def check_url(url: str) -> str:
    """Return the base of an API if it is one; raise ValueError otherwise."""
    right = "http://HOST:PORT/v1 would be right"
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or any(map(str.isspace, url)):
        raise ValueError(right)
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError(f"it must hold no password, query or fragment, as it is shown in errors; {right}")
    if parts.port == 0:
        raise ValueError(f"port 0 is none; {right}")
    return url


def text_of(choice: Any) -> str | None:
    """What a model wrote, None where that is nothing; raises as ``explained`` expects where it is no text."""
    text: str | None = choice.message.content
    if text is not None:
        # JSON can hold halves of surrogate pairs, which nothing that is stored may have.
        text.encode()
    return text


def one_line(text: str) -> str:
    """The beginning of a text, in one line."""
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else line[:_SHOWN] + "..."


def _said(error: Any) -> str:
    """What a server says went wrong: the message of its error, or all of its reply."""
    body = error.body
    said = body.get("message") if isinstance(body, dict) else body
    if isinstance(said, str) and said.strip():
        return said
    return str(error.response.text).strip() or "nothing else"


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """How long a server wants to be left alone: seconds or a date (RFC 9110, 10.2.3); None where it says
    nothing of use."""
    said = headers.get("Retry-After", "")
    seconds = 0.0
    try:
        seconds = float(said)
    except ValueError:
        with suppress(ValueError, OverflowError, LookupError, OSError):
            seconds = parsedate_to_datetime(said).timestamp() - time.time()
    return seconds if 0 < seconds < math.inf else None


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

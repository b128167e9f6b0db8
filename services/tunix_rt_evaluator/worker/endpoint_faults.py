"""When an endpoint's failure is that of one item, and when it ends the evaluation."""

from __future__ import annotations

import math
import time
from typing import Final

from tunix_rt_evaluator.openai_endpoint import EndpointError, Failure
from tunix_rt_kit.errors import DomainError, FailedPrecondition, Unavailable

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

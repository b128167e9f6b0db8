"""What the library raises: one class per canonical code (``google.rpc.Code``), for an exact ``except``.

``reason`` is a stable UPPER_SNAKE name to branch on; the text of a message may change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One wrong field: its path in the request (``traces[3].prompt``), and what is wrong with it."""

    field: str
    description: str


class TunixRtError(Exception):
    """A failure with a meaning for the caller. ``str()`` is one clear line.

    Args:
        message: that line.
        code: name of the canonical code, where it is not the class's own.
        reason: UPPER_SNAKE name of the cause.
        metadata: further facts by name.
        field_violations: the wrong fields, if it is the input that is wrong.
        request_id: leads to the call in the server's log.
    """

    default_code: ClassVar[str] = "UNKNOWN"

    def __init__(
        self,
        message: str,
        *,
        code: str = "",
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        field_violations: Sequence[FieldViolation] = (),
        request_id: str = "",
    ) -> None:
        self.message = " ".join(message.split())
        super().__init__(self.message)
        self.code = code or self.default_code
        self.reason = reason
        self.metadata: dict[str, str] = dict(metadata or {})
        self.field_violations: list[FieldViolation] = list(field_violations)
        self.request_id = request_id

    def __str__(self) -> str:
        return self.message


class CancelledError(TunixRtError):
    """The call was cancelled."""

    default_code = "CANCELLED"


class InvalidArgumentError(TunixRtError, ValueError):
    """The input is wrong whatever the state of the system; ``field_violations`` names each wrong field."""

    default_code = "INVALID_ARGUMENT"


class DeadlineExceededError(TunixRtError):
    """The server did not answer in time."""

    default_code = "DEADLINE_EXCEEDED"


class NotFoundError(TunixRtError):
    """The named resource does not exist."""

    default_code = "NOT_FOUND"


class AlreadyExistsError(TunixRtError):
    """The name or request id is bound to something else."""

    default_code = "ALREADY_EXISTS"


class PermissionDeniedError(TunixRtError):
    """The caller may not do this."""

    default_code = "PERMISSION_DENIED"


class UnauthenticatedError(TunixRtError):
    """The server does not know who calls."""

    default_code = "UNAUTHENTICATED"


class ResourceExhaustedError(TunixRtError):
    """A disk, a memory, a queue or a message is full."""

    default_code = "RESOURCE_EXHAUSTED"


class FailedPreconditionError(TunixRtError):
    """The system's state must change before the call can succeed."""

    default_code = "FAILED_PRECONDITION"


class AbortedError(TunixRtError):
    """A concurrent change got in the way; the whole use case may be tried again."""

    default_code = "ABORTED"


class OutOfRangeError(TunixRtError):
    """A position lies beyond the end."""

    default_code = "OUT_OF_RANGE"


class UnimplementedError(TunixRtError):
    """The server does not offer the operation."""

    default_code = "UNIMPLEMENTED"


class InternalError(TunixRtError):
    """The server failed in a way that it did not foresee; its log has more under ``request_id``."""

    default_code = "INTERNAL"


class UnavailableError(TunixRtError):
    """The server cannot be reached now; the same call may succeed later."""

    default_code = "UNAVAILABLE"


class DataLossError(TunixRtError):
    """Bytes are gone, or are not what they were."""

    default_code = "DATA_LOSS"


# Of the classes above: those that follow are of one of them, or of no code.
_BY_CODE = {kind.default_code: kind for kind in TunixRtError.__subclasses__()}


class FormatError(InvalidArgumentError):
    """A file, or one of its lines, is not what it should be.

    Args:
        line: its number from 1; 0 where the file as a whole is meant.
        message: what is wrong.
        file: its name.
        field_violations: the wrong fields of the line.
    """

    def __init__(
        self, line: int, message: str, *, file: str = "", field_violations: Sequence[FieldViolation] = ()
    ) -> None:
        place = ", ".join(part for part in (file, f"line {line}" if line else "") if part)
        super().__init__(
            f"{place}: {message}" if place else message,
            reason="FORMAT_INVALID",
            metadata={"file": file, "line": str(line)},
            field_violations=field_violations,
        )
        self.line = line
        self.file = file


class JobFailedError(TunixRtError):
    """A dataset build, a training job or an evaluation ended FAILED or CANCELLED.

    ``resource`` is the message (``v1.Dataset``, ``v1.TrainingJob`` or ``v1.Evaluation``) in its last state;
    ``code``, ``reason`` and the rest are those of its error.
    """

    def __init__(self, message: str, *, resource: Any, **facts: Any) -> None:
        super().__init__(message, **facts)
        self.resource = resource


def class_of(code: str) -> type[TunixRtError]:
    """The class of a canonical code's name; ``TunixRtError`` itself for one that has none."""
    return _BY_CODE.get(code, TunixRtError)

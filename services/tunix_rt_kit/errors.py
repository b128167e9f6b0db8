"""Domain errors: what use cases raise, free of gRPC and of databases.

Each class has the name of one canonical code (``google.rpc.Code``); ``serving.calls`` turns an error into a
``google.rpc.Status``. ``reason`` is a stable UPPER_SNAKE name that clients may branch on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, ClassVar, Final, Self

if TYPE_CHECKING:
    from tunix_rt_kit.values import JobState

_REASON = re.compile(r"[A-Z][A-Z0-9_]{0,62}")


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One wrong field of a request: its path (``traces[3].steps[0].content``), and what is wrong with it."""

    field: str
    description: str


class DomainError(Exception):
    """A failure with a meaning for the caller.

    Args:
        message: one clear line for a person.
        reason: UPPER_SNAKE name of the cause; raises ValueError if it is not one.
        metadata: further facts by name, all strings.
        violations: the wrong fields of the request, if it is the request that is wrong.
    """

    code: ClassVar[str] = "UNKNOWN"

    def __init__(
        self,
        message: str,
        *,
        reason: str,
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[FieldViolation] = (),
    ) -> None:
        if not _REASON.fullmatch(reason):
            raise ValueError(f"reason must be UPPER_SNAKE and at most 63 characters, not {reason!r}")
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.metadata: dict[str, str] = dict(metadata or {})
        self.violations: tuple[FieldViolation, ...] = tuple(violations)

    @classmethod
    def of_field(
        cls, field: str, description: str, *, reason: str, metadata: Mapping[str, str] | None = None
    ) -> Self:
        """The error for one wrong field of a request: ``field: description``."""
        wrong = FieldViolation(field, description)
        return cls(f"{field}: {description}", reason=reason, metadata=metadata, violations=[wrong])

    def __str__(self) -> str:
        return self.message


class InvalidArgument(DomainError):
    """The request is wrong whatever the state of the system."""

    code = "INVALID_ARGUMENT"


class NotFound(DomainError):
    """The named resource does not exist."""

    code = "NOT_FOUND"


class AlreadyExists(DomainError):
    """The name or request id is bound to something else."""

    code = "ALREADY_EXISTS"


class FailedPrecondition(DomainError):
    """The system's state must change before the call can succeed."""

    code = "FAILED_PRECONDITION"


class Aborted(DomainError):
    """A concurrent change got in the way; the whole use case may be tried again."""

    code = "ABORTED"


class ResourceExhausted(DomainError):
    """A quota, a disk or a memory is full."""

    code = "RESOURCE_EXHAUSTED"


class Unavailable(DomainError):
    """Something needed is not reachable now; the same call may be tried again."""

    code = "UNAVAILABLE"


class DataLoss(DomainError):
    """Stored bytes are gone or are not what they were."""

    code = "DATA_LOSS"


class Unimplemented(DomainError):
    """This server does not offer the operation."""

    code = "UNIMPLEMENTED"


class Cancelled(DomainError):
    """The operation was cancelled, usually by its caller."""

    code = "CANCELLED"


_NAMED: Final = 5


def not_found(name: str, kind: str, field: str = "name") -> NotFound:
    """The error for a name that nothing has; ``kind`` is its reason's first part, such as DATASET, ``field``
    where the name stands in the request."""
    return NotFound(f"{field}: {name} does not exist", reason=f"{kind}_NOT_FOUND", metadata={"name": name})


def check_living(name: str, kind: str, delete_time: datetime | None) -> None:
    """Refuse the use of what was deleted: raise NotFound if there is a ``delete_time``."""
    if delete_time is None:
        return
    when = delete_time.isoformat(timespec="seconds")
    raise NotFound(
        f"name: {name} was deleted at {when}",
        reason=f"{kind}_NOT_FOUND",
        metadata={"name": name, "delete_time": when},
    )


def check_ended(name: str, kind: str, state: JobState, cancel: str) -> None:
    """Refuse to delete what has not ended: raise FailedPrecondition, which names the command ``cancel``."""
    if state.ended:
        return
    raise FailedPrecondition(
        f"name: {name} is {state}; cancel it first: {cancel}",
        reason=f"{kind}_RUNNING",
        metadata={"name": name, "state": state},
    )


def check_unused(name: str, kind: str, users: Mapping[str, bool], *, force: bool) -> None:
    """Refuse to delete what other resources use: raise FailedPrecondition that names them.

    Args:
        name: what is to be deleted.
        kind: the reason's first part.
        users: what uses it, by name, and whether it still runs, which ``force`` does not outweigh.
        force: whether to delete it although others were made from it.
    """
    running = [user for user, runs in users.items() if runs]
    named = running or ([] if force else list(users))
    if not named:
        return
    shown = ", ".join(named[:_NAMED]) + (f" and {len(named) - _NAMED:,} more" if len(named) > _NAMED else "")
    what = (
        f"{shown}, which still run: cancel those first"
        if running
        else f"{shown}: delete those first, or force it (--force)"
    )
    raise FailedPrecondition(
        f"name: {name} is used by {what}",
        reason=f"{kind}_IN_USE",
        metadata={"name": name, "count": str(len(named)), "used_by": ",".join(named[:_NAMED])},
    )

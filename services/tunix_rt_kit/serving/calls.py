"""Calls from one service to another; domain errors as ``google.rpc.Status`` and back again."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from tunix_rt.wire import ERROR_DOMAIN, error_facts, error_status, failed_call
from tunix_rt_kit import errors
from tunix_rt_kit.callers import ended_by_leaving
from tunix_rt_kit.errors import DomainError, FieldViolation

# Details travel as metadata, of which gRPC peers take 8 KiB by default; base64 adds a third.
_MAX_MESSAGE = 1024
_MAX_VALUE = 256
_MAX_VIOLATIONS_BYTES = 3072

_CLASSES: Final[Mapping[str, type[DomainError]]] = {kind.code: kind for kind in DomainError.__subclasses__()}


def answer_of(method: Any, request: Message, timeout: float) -> Any:
    """What another service answers to ``method`` of a stub; raises grpc.RpcError.

    The call ends when nobody waits any more for the one that it is made in.
    """
    call = method.future(request, timeout=timeout)
    with ended_by_leaving(call.cancel):
        return call.result()


def answers_of(method: Any, request: Message, timeout: float | None = None) -> Generator[Any, None, None]:
    """As ``answer_of``, for a stream; it ends too when nobody reads on."""
    call = method(request, timeout=timeout)
    try:
        with ended_by_leaving(call.cancel):
            yield from call
    finally:
        call.cancel()


@contextmanager
def calling(peer: str) -> Iterator[None]:
    """Turn a failed call of another service into what it means here, as `domain_error` does."""
    try:
        yield
    except grpc.RpcError as error:
        raise domain_error(error, peer) from error


def domain_error(error: grpc.RpcError, peer: str) -> DomainError:
    """What another service's failed call means here.

    A status with our ErrorInfo gives the same domain error again; anything else becomes Unavailable
    (``UPSTREAM_UNAVAILABLE``, ``UPSTREAM_DEADLINE``) or FailedPrecondition (``UPSTREAM_FAILED``).

    Args:
        error: raised by the stub.
        peer: name of the other service, for the message.
    """
    code, text, status, _ = failed_call(error)
    if status is not None and code.name in _CLASSES:
        facts = error_facts(status)
        if facts.domain == ERROR_DOMAIN:
            return _CLASSES[code.name](
                status.message,
                reason=facts.reason,
                metadata=facts.metadata,
                violations=[
                    FieldViolation(entry.field, entry.description) for entry in facts.field_violations
                ],
            )
    if code is grpc.StatusCode.UNAVAILABLE:
        return errors.Unavailable(f"{peer} is not reachable: {text}", reason="UPSTREAM_UNAVAILABLE")
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return errors.Unavailable(f"{peer} did not answer in time", reason="UPSTREAM_DEADLINE")
    return errors.FailedPrecondition(f"{peer} failed with {code.name}: {text}", reason="UPSTREAM_FAILED")


def status_of(error: DomainError) -> status_pb2.Status:
    """The status of a domain error: code, message, ErrorInfo, and BadRequest if there are field violations.

    Long texts are cut. Violations that do not fit are left out: ``violations_omitted`` of ErrorInfo's
    metadata counts them.
    """
    kept = _fitting(error.violations)
    metadata = {key: _cut(value, _MAX_VALUE) for key, value in error.metadata.items()}
    if len(kept) < len(error.violations):
        metadata["violations_omitted"] = str(len(error.violations) - len(kept))
    return error_status(
        error.code,
        _cut(one_line(error.message), _MAX_MESSAGE),
        reason=error.reason,
        metadata=metadata,
        field_violations=kept,
    )


def one_line(text: str) -> str:
    """``text`` with every run of whitespace as one space."""
    return " ".join(text.split())


def _fitting(violations: Iterable[FieldViolation]) -> list[error_details_pb2.BadRequest.FieldViolation]:
    kept, used = [], 0
    for violation in violations:
        entry = error_details_pb2.BadRequest.FieldViolation(
            field=_cut(violation.field, _MAX_VALUE), description=_cut(violation.description, 2 * _MAX_VALUE)
        )
        used += entry.ByteSize() + 4
        if used > _MAX_VIOLATIONS_BYTES:
            break
        kept.append(entry)
    return kept


def _cut(text: str, limit: int) -> str:
    """``text`` in at most ``limit`` UTF-8 bytes, lone surrogates escaped."""
    data = text.encode("utf-8", "backslashreplace")
    if len(data) > limit:
        data = data[: limit - 3] + b"..."
    return data.decode("utf-8", "ignore")

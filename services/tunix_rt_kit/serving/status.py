"""Domain errors as ``google.rpc.Status`` and back again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import grpc
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from tunix_rt_kit import errors
from tunix_rt_kit.errors import DomainError, FieldViolation

ERROR_DOMAIN = "tunix-rt"
# Details travel as metadata, of which gRPC peers take 8 KiB by default; base64 adds a third.
_MAX_MESSAGE = 1024
_MAX_VALUE = 256
_MAX_VIOLATIONS_BYTES = 3072

_CLASSES: Final[Mapping[str, type[DomainError]]] = {kind.code: kind for kind in DomainError.__subclasses__()}


def status_of(error: DomainError) -> status_pb2.Status:
    """The status of a domain error: code, message, ErrorInfo, and BadRequest if there are field violations.

    Long texts are cut. Violations that do not fit are left out: ``violations_omitted`` of ErrorInfo's
    metadata counts them.
    """
    kept = _fitting(error.violations)
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=ERROR_DOMAIN)
    for key, value in error.metadata.items():
        info.metadata[key] = _cut(value, _MAX_VALUE)
    if len(kept) < len(error.violations):
        info.metadata["violations_omitted"] = str(len(error.violations) - len(kept))
    status = status_pb2.Status(
        code=code_pb2.Code.Value(error.code), message=_cut(one_line(error.message), _MAX_MESSAGE)
    )
    status.details.add().Pack(info)
    if kept:
        status.details.add().Pack(error_details_pb2.BadRequest(field_violations=kept))
    return status


def domain_error(error: grpc.RpcError, peer: str) -> DomainError:
    """What another service's failed call means here.

    A status with our ErrorInfo gives the same domain error again; anything else becomes Unavailable
    (``UPSTREAM_UNAVAILABLE``, ``UPSTREAM_DEADLINE``) or FailedPrecondition (``UPSTREAM_FAILED``).

    Args:
        error: raised by the stub.
        peer: name of the other service, for the message.
    """
    call: Any = error
    status = rpc_status.from_call(call)
    if status is not None:
        known = _from_status(status)
        if known is not None:
            return known
    code, details = call.code(), one_line(call.details() or "")
    if code is grpc.StatusCode.UNAVAILABLE:
        return errors.Unavailable(f"{peer} is not reachable: {details}", reason="UPSTREAM_UNAVAILABLE")
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return errors.Unavailable(f"{peer} did not answer in time", reason="UPSTREAM_DEADLINE")
    return errors.FailedPrecondition(f"{peer} failed with {code.name}: {details}", reason="UPSTREAM_FAILED")


@contextmanager
def calling(peer: str) -> Iterator[None]:
    """Turn a failed call of another service into what it means here, as `domain_error` does."""
    try:
        yield
    except grpc.RpcError as error:
        raise domain_error(error, peer) from error


def one_line(text: str) -> str:
    """``text`` with every run of whitespace as one space."""
    return " ".join(text.split())


def _from_status(status: status_pb2.Status) -> DomainError | None:
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    found = False
    for detail in status.details:
        if detail.Is(info.DESCRIPTOR):
            detail.Unpack(info)
            found = info.domain == ERROR_DOMAIN
        elif detail.Is(bad.DESCRIPTOR):
            detail.Unpack(bad)
    kind = _CLASSES.get(code_pb2.Code.Name(status.code)) if found else None
    if kind is None:
        return None
    return kind(
        status.message,
        reason=info.reason,
        metadata=dict(info.metadata),
        violations=[FieldViolation(entry.field, entry.description) for entry in bad.field_violations],
    )


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

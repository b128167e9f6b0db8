"""How calls and errors travel between clients and servers, and from one service to another.

Channels with one message limit, one keepalive and one retry policy; and what a failed call says about itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Final, NamedTuple

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.rpc import code_pb2, error_details_pb2, status_pb2

from tunix_rt.v1 import evaluator_pb2, exporter_pb2, trace_store_pb2, trainer_pb2

ERROR_DOMAIN: Final = "tunix-rt"
"""The domain in the ErrorInfo of every error that our services raise."""
MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024
REQUEST_ID_KEY: Final = "x-request-id"
"""The metadata that carries a call's id, both ways."""
_DETAILS_KEY: Final = "grpc-status-details-bin"
# Calls that change nothing, or that mean the same when they arrive twice.
_SAFE_TO_REPEAT: Final = (
    "Get",
    "List",
    "Measure",
    "Watch",
    "Stream",
    "Read",
    "Compare",
    "Grade",
    "Cancel",
    "Audit",
    "Plan",
    "Resume",
    "Export",
    "Update",
    "Find",
    "Preview",
)
# Up to 5 attempts in up to two and a half seconds.
_RETRY_POLICY: Final = {
    "maxAttempts": 5,
    "initialBackoff": "0.1s",
    "maxBackoff": "1s",
    "backoffMultiplier": 3,
    "retryableStatusCodes": ["UNAVAILABLE"],
}


def services() -> tuple[ServiceDescriptor, ...]:
    """The services of the contract."""
    files = (trace_store_pb2, exporter_pb2, trainer_pb2, evaluator_pb2)
    return tuple(service for file in files for service in file.DESCRIPTOR.services_by_name.values())


def is_retried(method: MethodDescriptor) -> bool:
    """Whether a call of ``method`` may be sent again: a read, or one that carries a request id."""
    return method.name.startswith(_SAFE_TO_REPEAT) or "request_id" in method.input_type.fields_by_name


@cache
def retried_methods() -> tuple[str, ...]:
    """All methods of the contract that may be sent again, such as ``tunix_rt.v1.TraceStore/GetTrace``."""
    return tuple(
        f"{service.full_name}/{method.name}"
        for service in services()
        for method in service.methods
        if is_retried(method)
    )


def open_channel(target: str, *, retried: Sequence[str] | None = None) -> grpc.Channel:
    """A synchronous channel to the server at ``target``; it connects on the first call.

    Keepalive finds a dead peer in half a minute.

    Args:
        target: ``host:port`` or ``unix:PATH``.
        retried: services or methods (``package.Service``, ``package.Service/Method``) whose calls are tried
            again, up to 5 times in up to two and a half seconds, while they fail with UNAVAILABLE. Left
            out: ``retried_methods()``.
    """
    return grpc.insecure_channel(target, options=_options(retried))


def open_aio_channel(target: str, *, retried: Sequence[str] | None = None) -> grpc.aio.Channel:
    """As ``open_channel``, for asyncio; it belongs to the running event loop."""
    return grpc.aio.insecure_channel(target, options=_options(retried))


def _options(retried: Sequence[str] | None) -> list[tuple[str, Any]]:
    names = []
    for entry in retried_methods() if retried is None else retried:
        service, _, method = entry.partition("/")
        names.append({"service": service, "method": method} if method else {"service": service})
    config = {"methodConfig": [{"name": names, "retryPolicy": _RETRY_POLICY}]} if names else {}
    return [
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.keepalive_time_ms", 20_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        # A server that restarts is found again before the last attempt of a call that is retried.
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.min_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 500),
        # A proxy of the environment would be asked for loopback addresses too.
        ("grpc.enable_http_proxy", 0),
        ("grpc.service_config", json.dumps(config)),
    ]


def error_status(
    code: str,
    message: str,
    *,
    reason: str,
    metadata: Mapping[str, str],
    field_violations: Sequence[error_details_pb2.BadRequest.FieldViolation] = (),
) -> status_pb2.Status:
    """The status of an error of ours: an ErrorInfo, and a BadRequest where fields are wrong."""
    status = status_pb2.Status(code=code_pb2.Code.Value(code), message=message)
    info = error_details_pb2.ErrorInfo(reason=reason, domain=ERROR_DOMAIN, metadata=metadata)
    status.details.add().Pack(info)
    if field_violations:
        status.details.add().Pack(error_details_pb2.BadRequest(field_violations=field_violations))
    return status


class ErrorFacts(NamedTuple):
    """What a status says beside its code and message; empty where it does not say."""

    domain: str
    reason: str
    metadata: Mapping[str, str]
    field_violations: Sequence[error_details_pb2.BadRequest.FieldViolation]


def error_facts(status: status_pb2.Status) -> ErrorFacts:
    """What the ErrorInfo and the BadRequest among a status's details say."""
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in status.details:
        if detail.Is(info.DESCRIPTOR):
            detail.Unpack(info)
        elif detail.Is(bad.DESCRIPTOR):
            detail.Unpack(bad)
    return ErrorFacts(info.domain, info.reason, dict(info.metadata), list(bad.field_violations))


class FailedCall(NamedTuple):
    """What a call that failed tells."""

    code: grpc.StatusCode
    text: str
    """gRPC's own text, in one line."""
    status: status_pb2.Status | None
    """What the server's program said; None for an error that gRPC made."""
    request_id: str
    """The server's name for the call; empty if it gave none."""


def failed_call(error: grpc.RpcError) -> FailedCall:
    """Read the error of a stub's call, synchronous or asyncio."""
    call: Any = error
    code: grpc.StatusCode = call.code() or grpc.StatusCode.UNKNOWN
    status, request_id = None, ""
    for key, value in call.trailing_metadata() or ():
        if key == REQUEST_ID_KEY and isinstance(value, str):
            request_id = value
        elif key == _DETAILS_KEY and status is None:
            status = status_pb2.Status.FromString(value)
    if status is not None and status.code != code.value[0]:
        status = None
    return FailedCall(code, " ".join((call.details() or "").split()), status, request_id)

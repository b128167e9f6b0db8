"""Failed calls and failed jobs as the library's errors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import grpc
from google.rpc import code_pb2, error_details_pb2, status_pb2

from tunix_rt.errors import FieldViolation, TunixRtError, class_of

REQUEST_ID_KEY = "x-request-id"
_DETAILS_KEY = "grpc-status-details-bin"
_NOT_THERE = (
    "connection refused",
    "failed to connect",
    "dns resolution",
    "name resolution",
    "no route to host",
)


def error_of_call(error: grpc.RpcError, target: str, request_id: str) -> TunixRtError:
    """The library's error for a call to ``target`` that failed.

    Args:
        error: what gRPC raised: a call's own error, sync or asyncio.
        target: ``host:port`` of the server.
        request_id: the id that the call was sent with, used unless the server names another.
    """
    call: Any = error
    code: grpc.StatusCode = call.code() or grpc.StatusCode.UNKNOWN
    text = " ".join((call.details() or "").split())
    metadata = call.trailing_metadata() or ()
    for key, value in metadata:
        if key == REQUEST_ID_KEY and isinstance(value, str):
            request_id = value
    status = _rich_status(metadata, code)
    if status is not None:
        facts = _facts(status)
        return class_of(code.name)(status.message or text, code=code.name, request_id=request_id, **facts)
    if code is grpc.StatusCode.CANCELLED and not text.startswith("Channel closed"):
        # A server that stops drops the calls that outlast its grace with this code; no caller asked for it.
        code, text = grpc.StatusCode.UNAVAILABLE, "the server stopped"
    message, reason = _plain(code, text, target)
    return class_of(code.name)(
        message, code=code.name, reason=reason, metadata={"target": target}, request_id=request_id
    )


def facts_of_status(status: status_pb2.Status) -> dict[str, Any]:
    """``code``, ``reason``, ``metadata`` and ``field_violations`` of a status, as errors take them."""
    return {"code": code_pb2.Code.Name(status.code), **_facts(status)}


def _rich_status(metadata: Iterable[tuple[str, Any]], code: grpc.StatusCode) -> status_pb2.Status | None:
    for key, value in metadata:
        if key == _DETAILS_KEY:
            status = status_pb2.Status.FromString(value)
            return status if status.code == code.value[0] else None
    return None


def _facts(status: status_pb2.Status) -> dict[str, Any]:
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in status.details:
        if detail.Is(info.DESCRIPTOR):
            detail.Unpack(info)
        elif detail.Is(bad.DESCRIPTOR):
            detail.Unpack(bad)
    return {
        "reason": info.reason,
        "metadata": dict(info.metadata),
        "field_violations": [
            FieldViolation(entry.field, entry.description) for entry in bad.field_violations
        ],
    }


def _plain(code: grpc.StatusCode, text: str, target: str) -> tuple[str, str]:
    """Message and reason of an error that gRPC itself made."""
    if code is grpc.StatusCode.UNAVAILABLE:
        if any(phrase in text.lower() for phrase in _NOT_THERE):
            return (
                f"no tunix-rt server at {target} (start one with `tunix-rt up`, or check the address)",
                "SERVER_NOT_FOUND",
            )
        return f"the connection to the tunix-rt server at {target} broke: {text}", "CONNECTION_BROKEN"
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return f"the tunix-rt server at {target} did not answer in time", "DEADLINE_EXCEEDED"
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return f"the server at {target} does not offer this call: {text}", "NOT_OFFERED"
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "message larger than max" in text:
        return f"a message is larger than 4 MiB: {text}", "MESSAGE_TOO_LARGE"
    return f"the server at {target} answered {code.name}: {text or 'no reason given'}", ""

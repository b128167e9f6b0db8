"""Failed calls and failed jobs as the library's errors."""

from __future__ import annotations

from typing import Any

import grpc
from google.rpc import code_pb2, status_pb2

from tunix_rt.errors import FieldViolation, TunixRtError, class_of
from tunix_rt.wire import error_facts, failed_call

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
    code, text, status, answered_id = failed_call(error)
    request_id = answered_id or request_id
    if status is not None:
        facts = facts_of_status(status)
        return class_of(code.name)(status.message or text, request_id=request_id, **facts)
    if code is grpc.StatusCode.CANCELLED and not text.startswith("Channel closed"):
        # A server that stops drops the calls that outlast its grace with this code; no caller asked for it.
        code, text = grpc.StatusCode.UNAVAILABLE, "the server stopped"
    message, reason = _plain(code, text, target)
    return class_of(code.name)(
        message, code=code.name, reason=reason, metadata={"target": target}, request_id=request_id
    )


def facts_of_status(status: status_pb2.Status) -> dict[str, Any]:
    """``code``, ``reason``, ``metadata`` and ``field_violations`` of a status, as errors take them."""
    facts = error_facts(status)
    return {
        "code": code_pb2.Code.Name(status.code),
        "reason": facts.reason,
        "metadata": facts.metadata,
        "field_violations": [
            FieldViolation(entry.field, entry.description) for entry in facts.field_violations
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

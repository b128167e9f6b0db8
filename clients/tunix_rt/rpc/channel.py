"""Channels to servers: the message limit, keepalive, and which calls are tried again."""

from __future__ import annotations

import json
from typing import Any, Final

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor

from tunix_rt.v1 import evaluator_pb2, exporter_pb2, trace_store_pb2, trainer_pb2

MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024

# Calls that change nothing, or that mean the same when they arrive twice.
_SAFE_TO_REPEAT = (
    "Get",
    "List",
    "Watch",
    "Stream",
    "Read",
    "Compare",
    "Cancel",
    "Audit",
    "Plan",
    "Resume",
    "Export",
)


def services() -> tuple[ServiceDescriptor, ...]:
    """The services of the contract."""
    files = (trace_store_pb2, exporter_pb2, trainer_pb2, evaluator_pb2)
    return tuple(service for file in files for service in file.DESCRIPTOR.services_by_name.values())


def is_retried(method: MethodDescriptor) -> bool:
    """Whether a call of ``method`` may be sent again: a read, or one that carries a request id."""
    return method.name.startswith(_SAFE_TO_REPEAT) or "request_id" in method.input_type.fields_by_name


def channel_options() -> list[tuple[str, Any]]:
    """Channel arguments of every channel."""
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
        ("grpc.service_config", json.dumps(service_config())),
    ]


def service_config() -> dict[str, Any]:
    """The gRPC service config: up to 5 attempts in up to two and a half seconds, on UNAVAILABLE alone."""
    names = [
        {"service": service.full_name, "method": method.name}
        for service in services()
        for method in service.methods
        if is_retried(method)
    ]
    policy = {
        "maxAttempts": 5,
        "initialBackoff": "0.1s",
        "maxBackoff": "1s",
        "backoffMultiplier": 3,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    return {"methodConfig": [{"name": names, "retryPolicy": policy}]}


def open_channel(target: str) -> grpc.Channel:
    """A synchronous channel; it connects on the first call."""
    return grpc.insecure_channel(target, options=channel_options())


def open_aio_channel(target: str) -> grpc.aio.Channel:
    """An asyncio channel; it belongs to the running event loop."""
    return grpc.aio.insecure_channel(target, options=channel_options())

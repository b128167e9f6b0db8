"""Channels from one service to another."""

from __future__ import annotations

import json
from collections.abc import Generator, Sequence
from typing import Any

import grpc
from google.protobuf.message import Message

from tunix_rt_kit.callers import ended_by_leaving
from tunix_rt_kit.serving.settings import MEBIBYTE

MAX_MESSAGE_BYTES = 4 * MEBIBYTE


def open_channel(target: str, *, retried: Sequence[str] = ()) -> grpc.Channel:
    """A synchronous channel to the server at ``target`` (``host:port``); it connects on the first call.

    Open one per target where a process is put together, and close it there. Keepalive finds a dead peer in
    half a minute. Calls that fail with UNAVAILABLE are tried again, up to 5 times in about 10 seconds, if
    their service or method is in ``retried``.

    Args:
        target: the server's address.
        retried: ``tunix_rt.v1.TraceStore`` or ``tunix_rt.v1.TraceStore/GetTrace``: only calls that change
        nothing, or
            that carry a ``request_id``.
    """
    return grpc.insecure_channel(target, options=channel_options(retried))


def open_aio_channel(target: str, *, retried: Sequence[str] = ()) -> grpc.aio.Channel:
    """As ``open_channel``, for asyncio; it belongs to the running event loop."""
    return grpc.aio.insecure_channel(target, options=channel_options(retried))


def channel_options(retried: Sequence[str] = ()) -> list[tuple[str, Any]]:
    """Channel arguments: the 4 MiB message limit, keepalive, and the service config for retries."""
    options: list[tuple[str, Any]] = [
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.keepalive_time_ms", 20_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        # A proxy of the environment would be asked for loopback addresses too.
        ("grpc.enable_http_proxy", 0),
    ]
    if retried:
        options.append(("grpc.service_config", json.dumps(_service_config(retried))))
    return options


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


def _service_config(retried: Sequence[str]) -> dict[str, Any]:
    names = []
    for entry in retried:
        service, _, method = entry.partition("/")
        names.append({"service": service, "method": method} if method else {"service": service})
    policy = {
        "maxAttempts": 5,
        "initialBackoff": "0.2s",
        "maxBackoff": "3s",
        "backoffMultiplier": 2.5,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    return {"methodConfig": [{"name": names, "retryPolicy": policy}]}

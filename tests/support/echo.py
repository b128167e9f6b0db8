"""A tiny service over all four kinds of handlers, whose requests say what shall go wrong."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
from google.protobuf.wrappers_pb2 import StringValue

from tunix_rt_kit.errors import FieldViolation, InvalidArgument, NotFound
from tunix_rt_kit.serving.calls import run_blocking
from tunix_rt_kit.serving.server import ServiceRegistration

FULL_NAME = "tunix_rt.test.Echo"


def act(word: str) -> str:
    if word == "domain":
        raise NotFound("no such echo", reason="ECHO_NOT_FOUND", metadata={"echo": "x"})
    if word == "fields":
        raise InvalidArgument(
            "two fields are wrong",
            reason="ECHO_INVALID",
            violations=[FieldViolation("a.b", "must be 1"), FieldViolation("c", "must be 2")],
        )
    if word == "many":
        raise InvalidArgument(
            "é" * 5000,
            reason="ECHO_INVALID",
            metadata={"long": "m" * 5000},
            violations=[FieldViolation(f"rows[{i}]", "x" * 100) for i in range(1000)],
        )
    if word == "bug":
        raise KeyError("secret detail")
    return word


async def unary_unary(request: StringValue, context: Any) -> StringValue:
    if request.value == "abort":
        await context.abort(grpc.StatusCode.OUT_OF_RANGE, "own abort")
    if request.value == "slow":
        await asyncio.sleep(0.3)
    if request.value == "hang":
        await asyncio.sleep(60)
    if request.value == "stuck":
        await run_blocking(time.sleep, 60)
    if request.value == "locked":
        # Backtracks for hours, and holds the interpreter's lock meanwhile.
        await run_blocking(re.match, "(a+)+$", "a" * 60 + "b")
    return StringValue(value=act(request.value))


async def unary_stream(request: StringValue, _: Any) -> AsyncIterator[StringValue]:
    yield StringValue(value="first")
    yield StringValue(value=act(request.value))


async def stream_unary(requests: AsyncIterator[StringValue], _: Any) -> StringValue:
    return StringValue(value=",".join([act(request.value) async for request in requests]))


async def stream_stream(requests: AsyncIterator[StringValue], _: Any) -> AsyncIterator[StringValue]:
    async for request in requests:
        yield StringValue(value=act(request.value))


def add(server: grpc.aio.Server) -> None:
    codec: dict[str, Any] = {
        "request_deserializer": StringValue.FromString,
        "response_serializer": StringValue.SerializeToString,
    }
    handlers = {
        "UnaryUnary": grpc.unary_unary_rpc_method_handler(unary_unary, **codec),
        "UnaryStream": grpc.unary_stream_rpc_method_handler(unary_stream, **codec),
        "StreamUnary": grpc.stream_unary_rpc_method_handler(stream_unary, **codec),
        "StreamStream": grpc.stream_stream_rpc_method_handler(stream_stream, **codec),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(FULL_NAME, handlers),))


REGISTRATION = ServiceRegistration(FULL_NAME, add)


async def call(channel: grpc.aio.Channel, kind: str, word: str, **options: Any) -> tuple[list[str], Any]:
    """Call one method with one word; returns the answers and the call."""
    codec: dict[str, Any] = {
        "request_serializer": StringValue.SerializeToString,
        "response_deserializer": StringValue.FromString,
    }
    request = StringValue(value=word)

    async def requests() -> AsyncIterator[StringValue]:
        yield request

    path = f"/{FULL_NAME}/{kind}"
    if kind == "UnaryUnary":
        rpc: Any = channel.unary_unary(path, **codec)(request, **options)
    elif kind == "UnaryStream":
        rpc = channel.unary_stream(path, **codec)(request, **options)
    elif kind == "StreamUnary":
        rpc = channel.stream_unary(path, **codec)(requests(), **options)
    else:
        rpc = channel.stream_stream(path, **codec)(requests(), **options)
    if kind.endswith("Stream"):
        return [answer.value async for answer in rpc], rpc
    return [(await rpc).value], rpc


KINDS = ("UnaryUnary", "UnaryStream", "StreamUnary", "StreamStream")

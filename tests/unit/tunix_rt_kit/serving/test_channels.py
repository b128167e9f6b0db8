"""Calls from one service to another: what is tried again, and what a failure means to the caller."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue

from support import echo
from tunix_rt.wire import open_aio_channel
from tunix_rt_kit.errors import DomainError, FailedPrecondition, Unavailable
from tunix_rt_kit.serving.calls import domain_error
from tunix_rt_kit.serving.server import ServiceRegistration, running_server
from tunix_rt_kit.serving.settings import ServerSettings


class Flaky:
    """A service whose method fails with UNAVAILABLE the first times that it is called."""

    def __init__(self, failures: int) -> None:
        self.calls = 0
        self._failures = failures

    async def answer(self, request: StringValue, _: Any) -> StringValue:
        self.calls += 1
        if self.calls <= self._failures:
            raise Unavailable("not yet", reason="FLAKY")
        return request

    @asynccontextmanager
    async def channel(self, retried: list[str]) -> AsyncIterator[grpc.aio.Channel]:
        def add(server: grpc.aio.Server) -> None:
            handler = grpc.unary_unary_rpc_method_handler(
                self.answer,
                request_deserializer=StringValue.FromString,
                response_serializer=StringValue.SerializeToString,
            )
            handlers = grpc.method_handlers_generic_handler(echo.FULL_NAME, {"UnaryUnary": handler})
            server.add_generic_rpc_handlers((handlers,))

        settings = ServerSettings(listen="127.0.0.1:0", shutdown_grace_s=1)
        async with (
            running_server(settings, [ServiceRegistration(echo.FULL_NAME, add)]) as running,
            open_aio_channel(running.address, retried=retried) as channel,
        ):
            yield channel


@pytest.mark.parametrize("retried", [echo.FULL_NAME, f"{echo.FULL_NAME}/UnaryUnary"])
async def test_a_call_that_may_be_repeated_is_tried_again(retried: str) -> None:
    flaky = Flaky(failures=1)
    async with flaky.channel([retried]) as channel:
        assert (await echo.call(channel, "UnaryUnary", "hello"))[0] == ["hello"]
    assert flaky.calls == 2


@pytest.mark.parametrize("retried", [[], [f"{echo.FULL_NAME}/Another"]])
async def test_any_other_call_is_not(retried: list[str]) -> None:
    flaky = Flaky(failures=1)
    async with flaky.channel(retried) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await echo.call(channel, "UnaryUnary", "hello")
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert flaky.calls == 1


@pytest.mark.parametrize(
    ("word", "options", "kind", "reason", "text"),
    [
        ("hang", {"timeout": 0.1}, Unavailable, "UPSTREAM_DEADLINE", "the echo did not answer in time"),
        ("abort", {}, FailedPrecondition, "UPSTREAM_FAILED", "the echo failed with OUT_OF_RANGE: own abort"),
        ("bug", {}, FailedPrecondition, "UPSTREAM_FAILED", "the echo failed with INTERNAL: internal error"),
    ],
)
async def test_what_a_failure_means_here(
    word: str, options: dict[str, float], kind: type[DomainError], reason: str, text: str
) -> None:
    settings = ServerSettings(listen="127.0.0.1:0", shutdown_grace_s=0.1)
    async with (
        running_server(settings, [echo.REGISTRATION]) as running,
        open_aio_channel(running.address) as channel,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await echo.call(channel, "UnaryUnary", word, **options)
    error = domain_error(caught.value, "the echo")
    assert isinstance(error, kind) and error.reason == reason
    assert str(error).startswith(text)


async def test_field_violations_survive_the_way_through_another_service() -> None:
    settings = ServerSettings(listen="127.0.0.1:0", shutdown_grace_s=0.1)
    async with (
        running_server(settings, [echo.REGISTRATION]) as running,
        open_aio_channel(running.address) as channel,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await echo.call(channel, "UnaryUnary", "fields")
    error = domain_error(caught.value, "the echo")
    assert [(wrong.field, wrong.description) for wrong in error.violations] == [
        ("a.b", "must be 1"),
        ("c", "must be 2"),
    ]


async def test_a_unix_socket_is_an_address_too(tmp_path: Path) -> None:
    settings = ServerSettings(listen=f"unix:{tmp_path}/socket", shutdown_grace_s=0.1)
    async with (
        running_server(settings, [echo.REGISTRATION]) as running,
        open_aio_channel(running.address) as channel,
    ):
        assert running.address == settings.listen
        assert (await echo.call(channel, "UnaryUnary", "hello"))[0] == ["hello"]

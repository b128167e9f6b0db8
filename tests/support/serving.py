"""Services on a real server in this process, and what their errors say."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from tunix_rt.wire import open_aio_channel
from tunix_rt_kit.errors import DomainError
from tunix_rt_kit.serving.calls import domain_error
from tunix_rt_kit.serving.server import BuiltService, opened, running_server
from tunix_rt_kit.serving.settings import ServerSettings


@asynccontextmanager
async def served_at(*services: BuiltService, stop: asyncio.Event | None = None) -> AsyncIterator[str]:
    """The address of a server that serves ``services`` on a free port of this machine."""
    settings = ServerSettings(listen="127.0.0.1:0", log_level="error", shutdown_grace_s=0.2)
    async with (
        opened(*services) as registrations,
        running_server(settings, registrations, stop=stop) as server,
    ):
        yield server.address


@asynccontextmanager
async def served(
    *services: BuiltService, stop: asyncio.Event | None = None
) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to a server as ``served_at``."""
    async with served_at(*services, stop=stop) as address, open_aio_channel(address, retried=()) as channel:
        yield channel


async def refused(call: Awaitable[Any]) -> DomainError:
    """The domain error with which a call fails; the test fails if it does not."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return domain_error(caught.value, "the service")


async def assert_ends_when_left(call: Any) -> None:
    """Leave a call that keeps this process, its server, busy: a second later it must not be any more."""
    await asyncio.sleep(0.5)
    assert not call.done()
    call.cancel()
    await asyncio.sleep(1.0)
    before = time.process_time()
    await asyncio.sleep(0.5)
    assert time.process_time() - before < 0.25


def fields(error: DomainError) -> list[str]:
    """The names of the fields that an error calls wrong."""
    return [violation.field for violation in error.violations]

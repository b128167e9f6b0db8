"""A trace store over a real channel, on both databases."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from support.migrated import migrated
from support.serving import served
from support.storing import settings_for
from tunix_rt import v1
from tunix_rt_trace_store.wiring import build, migrate


@pytest.fixture
async def channel(database_url: str, tmp_path: Path) -> AsyncIterator[grpc.aio.Channel]:
    settings = settings_for(database_url, tmp_path)
    migrated(settings, migrate)
    async with served(build(settings, asyncio.Event())) as opened:
        yield opened


@pytest.fixture
def store(channel: grpc.aio.Channel) -> Any:
    return v1.TraceStoreStub(channel)

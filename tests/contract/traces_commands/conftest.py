"""The commands and a client of one trace store, on each database."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from support.migrated import migrated
from support.threaded import real_server
from tunix_rt import Client
from tunix_rt.cli.main import app
from tunix_rt_trace_store.wiring import TraceStoreSettings, build, migrate

Run = Callable[..., Result]


@pytest.fixture
def client(database_url: str, tmp_path: Path) -> Iterator[Client]:
    options = TraceStoreSettings(listen="127.0.0.1:0", database_url=database_url, data_dir=tmp_path)
    migrated(options, migrate)

    def service(stopping: asyncio.Event) -> Any:
        return build(options, stopping)

    with real_server(service) as address, Client(address) as client:
        yield client


@pytest.fixture
def run(client: Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TUNIX_RT_SERVER", client.targets.trace_store)
    monkeypatch.setenv("COLUMNS", "160")

    def invoke(*arguments: str, exit_code: int = 0, input: str | bytes | None = None) -> Result:
        result = CliRunner().invoke(app, ["traces", *arguments], input=input)
        assert result.exit_code == exit_code, result.output
        return result

    return invoke

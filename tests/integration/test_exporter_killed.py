"""An exporter that is killed at any moment: the build is made again, and nothing half-written is seen."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from support.exporting import real_store
from support.serving import served_at
from support.traces import trace
from tunix_rt import v1
from tunix_rt_kit.serving.channels import open_aio_channel

TRACES = 3_000
STATE = v1.Dataset.State
UNFINISHED = (STATE.STATE_QUEUED, STATE.STATE_RUNNING)


class Exporter:
    """An exporter in a process of its own; ``stub`` calls it."""

    def __init__(self, process: subprocess.Popen[bytes], stub: v1.ExporterStub) -> None:
        self.process = process
        self.stub = stub

    async def create(self, dataset_id: str) -> v1.Dataset:
        request = v1.CreateDatasetRequest(spec=v1.DatasetSpec(dataset_id=dataset_id))
        return await self.stub.CreateDataset(request)  # type: ignore[misc]

    async def ended(self, dataset_id: str) -> v1.Dataset:
        request = v1.WatchDatasetRequest(name=f"datasets/{dataset_id}@1")
        return [dataset async for dataset in self.stub.WatchDataset(request)][-1]  # type: ignore[attr-defined]

    async def get(self, dataset_id: str) -> v1.Dataset:
        return await self.stub.GetDataset(v1.GetDatasetRequest(name=f"datasets/{dataset_id}@1"))  # type: ignore[misc]


@asynccontextmanager
async def exporter(folder: Path, store: str) -> AsyncIterator[Exporter]:
    socket = folder / "socket"
    socket.unlink(missing_ok=True)
    command = [sys.executable, "-m", "tunix_rt_exporter", "serve", "--listen", f"unix:{socket}"]
    command += ["--data-dir", str(folder / "data"), "--trace-store-target", store, "--log-level", "error"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(command, env=environment) as process:
        try:
            async with open_aio_channel(f"unix:{socket}") as channel:
                await asyncio.wait_for(channel.channel_ready(), 60)
                yield Exporter(process, v1.ExporterStub(channel))
        finally:
            process.kill()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[str]:
    async with served_at(real_store(tmp_path / "store")) as address, open_aio_channel(address) as channel:
        stub = v1.TraceStoreStub(channel)
        for start in range(0, TRACES, 1_000):
            batch = [trace(number) for number in range(start, start + 1_000)]
            await stub.BatchCreateTraces(v1.BatchCreateTracesRequest(traces=batch))  # type: ignore[misc]
        yield address


async def killed_during(folder: Path, store: str, dataset_id: str, stage: str, after_s: float) -> v1.Dataset:
    """Serve until the build is at ``stage``, or done, and a while longer; then kill the server."""
    async with exporter(folder, store) as running:
        dataset = await running.create(dataset_id)
        while dataset.state in UNFINISHED and dataset.progress.stage != stage:
            dataset = await running.get(dataset_id)
        await asyncio.sleep(after_s)
        running.process.send_signal(signal.SIGKILL)
        running.process.wait()
    return dataset


async def test_killed_builds_are_made_again_to_the_same_bytes(tmp_path: Path, store: str) -> None:
    artifacts = tmp_path / "data" / "artifacts" / "sha256"
    cases = list(itertools.product(("reading traces", "comparing rows", "writing rows"), (0, 0.05)))
    for number, (stage, after_s) in enumerate(cases):
        dataset = await killed_during(tmp_path, store, f"killed-{number}", stage, after_s)
        assert dataset.state in UNFINISHED or stage != "reading traces"
        for path in filter(Path.is_file, artifacts.rglob("*")):
            assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
    async with exporter(tmp_path, store) as running:
        await running.create("undisturbed")
        expected = await running.ended("undisturbed")
        assert (expected.state, expected.trace_count) == (STATE.STATE_SUCCEEDED, TRACES)
        for number in range(len(cases)):
            dataset = await running.ended(f"killed-{number}")
            assert (dataset.state, dataset.digest) == (STATE.STATE_SUCCEEDED, expected.digest)
    assert not list((tmp_path / "data" / "exporter-builds").iterdir())

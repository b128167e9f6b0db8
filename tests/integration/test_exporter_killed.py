# ruff: noqa: ARG002  (gRPC hands every method a context)
"""An exporter that is killed at any moment: the build is made again, by the next server or by another on the
same database, and nothing half-written is seen."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from support.exporting import EvalSets, real_store
from support.program import Program
from support.serving import served, served_at
from support.traces import trace
from tunix_rt import v1
from tunix_rt.wire import open_aio_channel
from tunix_rt_exporter import wiring
from tunix_rt_exporter.wiring import ExporterSettings
from tunix_rt_kit.serving.server import BuiltService, ServiceRegistration

TRACES = 3_000
STATE = v1.Dataset.State
UNFINISHED = (STATE.STATE_QUEUED, STATE.STATE_RUNNING)


class Exporter:
    """An exporter in a process of its own; ``stub`` calls it."""

    def __init__(self, process: Program, stub: v1.ExporterStub) -> None:
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
async def exporter(folder: Path, store: str, *flags: str) -> AsyncIterator[Exporter]:
    socket = folder / "socket"
    socket.unlink(missing_ok=True)
    options = ["--data-dir", str(folder / "data"), "--trace-store-target", store, "--log-level", "error"]
    arguments = ["serve", "--listen", f"unix:{socket}", *options, *flags]
    with Program("tunix_rt_exporter", arguments, folder / "exporter.log") as process:
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
            # The exporter would otherwise be kept busy with saying how far it is.
            await asyncio.sleep(0.005)
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


class HoldingStore(v1.TraceStoreServicer):
    """Streams three traces, and the last of them once ``go_on`` is set. ``streams`` counts the streams for
    the builds of each source, ``open`` those that go on."""

    def __init__(self) -> None:
        self.streams: Counter[str] = Counter()
        self.open = 0
        self.go_on = asyncio.Event()

    async def StreamTraces(self, request: v1.StreamTracesRequest, context: Any) -> AsyncIterator[Any]:
        yield v1.StreamTracesResponse(header=v1.StreamTracesHeader(as_of=3))
        if not request.as_of:
            return
        self.streams[request.filter.sources[0]] += 1
        self.open += 1
        try:
            for number in (1, 2, 3):
                message = trace(number, sequence=number, content_digest=f"sha256:{number:064x}")
                yield v1.StreamTracesResponse(batch=v1.TraceBatch(traces=[message]))
                if number == 2:
                    await self.go_on.wait()
        finally:
            self.open -= 1

    def built(self) -> BuiltService:
        def add(server: grpc.aio.Server) -> None:
            v1.add_TraceStoreServicer_to_server(self, server)

        return BuiltService(ServiceRegistration("tunix_rt.v1.TraceStore", add), lambda: None, lambda: None)


@dataclass
class Shared:
    """Exporters on one database and one data folder, and the trace store of both."""

    folder: Path
    settings: ExporterSettings
    store: HoldingStore

    @asynccontextmanager
    async def exporter(self) -> AsyncIterator[v1.ExporterStub]:
        """One more of them, in this process."""
        stop = asyncio.Event()
        async with served(wiring.build(self.settings, stop), stop=stop) as channel:
            yield v1.ExporterStub(channel)

    async def create(self, stub: Any, dataset_id: str) -> str:
        """Ask for a dataset of a source of its own name; returns its resource name."""
        spec = v1.DatasetSpec(
            dataset_id=dataset_id,
            filter=v1.TraceFilter(sources=[dataset_id]),
            splits=[v1.SplitFraction(split="train", fraction=1)],
        )
        dataset = await stub.CreateDataset(v1.CreateDatasetRequest(spec=spec))
        return str(dataset.name)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not condition():
                await asyncio.sleep(0.02)


async def end_of(stub: Any, name: str) -> v1.Dataset:
    watch = stub.WatchDataset(v1.WatchDatasetRequest(name=name))
    return [dataset async for dataset in watch][-1]


@pytest.fixture
async def shared(tmp_path: Path, database_url: str) -> AsyncIterator[Shared]:
    store = HoldingStore()
    async with served_at(store.built(), EvalSets().built()) as address:
        settings = ExporterSettings(
            data_dir=tmp_path / "data",
            database_url=database_url,
            trace_store_target=address,
            evaluator_target=address,
        )
        wiring.migrate(settings)
        yield Shared(tmp_path, settings, store)


async def test_two_exporters_on_one_database_share_the_builds_and_make_none_twice(shared: Shared) -> None:
    async with shared.exporter() as first, shared.exporter() as second:
        names = [await shared.create(first, f"d{number}") for number in range(5)]
        # Each of them builds one at a time.
        await shared.until(lambda: shared.store.open == 2)
        running = sorted(shared.store.streams)
        cancelled = f"datasets/{running[0]}@1"
        for stub in (first, second):
            # Neither knows whether it is the one that builds it.
            await stub.CancelDataset(v1.CancelDatasetRequest(name=cancelled))  # type: ignore[misc]
        assert (await end_of(second, cancelled)).state == STATE.STATE_CANCELLED
        await shared.until(lambda: shared.store.open == 2)
        shared.store.go_on.set()
        ended = [await end_of(second, name) for name in names if name != cancelled]
    assert [(dataset.state, dataset.trace_count) for dataset in ended] == [(STATE.STATE_SUCCEEDED, 3)] * 4
    assert set(shared.store.streams.values()) == {1}
    assert len(shared.store.streams) == 5
    assert not list((shared.folder / "data" / "exporter-builds").iterdir())


async def test_the_build_of_a_killed_exporter_goes_on_with_another_on_its_database(shared: Shared) -> None:
    store, settings = shared.store, shared.settings
    flags = ["--database-url", settings.database_url]
    async with exporter(shared.folder, settings.trace_store_target, *flags) as first:
        name = await shared.create(first.stub, "d")
        await shared.until(lambda: store.open == 1)
        async with shared.exporter() as second:
            # It has looked at the queue by then.
            await asyncio.sleep(0.5)
            assert store.streams["d"] == 1
            first.process.send_signal(signal.SIGKILL)
            first.process.wait()
            store.go_on.set()
            # Its lease would have lasted for 30 s.
            async with asyncio.timeout(20):
                dataset = await end_of(second, name)
    assert (dataset.state, dataset.trace_count) == (STATE.STATE_SUCCEEDED, 3)
    assert store.streams["d"] == 2
    assert not list((shared.folder / "data" / "exporter-builds").iterdir())

# ruff: noqa: ARG002  (gRPC hands every method a request)
"""How builds run: cancelled, interrupted, and from a trace store that shrinks, stalls or goes away."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from support.exporting import ALL_TRAIN, Exporting, exporting, failure
from support.serving import refused
from support.traces import trace
from tunix_rt import v1
from tunix_rt_exporter.datasets.repository import SqlDatasetRepository
from tunix_rt_kit.errors import FailedPrecondition
from tunix_rt_kit.serving.server import BuiltService, ServiceRegistration
from tunix_rt_kit.values import JobState

STATE = v1.Dataset.State
EXAMPLE = v1.DATASET_FORMAT_TRAINING_EXAMPLE


async def test_a_snapshot_with_deleted_traces_fails_the_build(world: Exporting) -> None:
    results = await world.add([trace(i) for i in range(3)])
    await world.store.DeleteTrace(v1.DeleteTraceRequest(name=results[1].name))
    dataset = await world.build(as_of=3)
    assert dataset.state == STATE.STATE_FAILED
    assert failure(dataset)[0] == "SNAPSHOT_INCOMPLETE"


class ShrinkingStore(v1.TraceStoreServicer):
    """Traces of its present snapshot are deleted while it is streamed, ``deletions`` times; ``streamed`` are
    the snapshots that were asked for."""

    def __init__(self, deletions: int) -> None:
        self.newest = 10
        self.deletions = deletions
        self.streamed: list[int] = []
        self.go_on = asyncio.Event()

    async def StreamTraces(self, request: v1.StreamTracesRequest, context: Any) -> AsyncIterator[Any]:
        yield v1.StreamTracesResponse(header=v1.StreamTracesHeader(as_of=request.as_of or self.newest))
        if not request.as_of:
            return
        self.streamed.append(request.as_of)
        message = trace(1, sequence=1, content_digest=f"sha256:{1:064x}")
        yield v1.StreamTracesResponse(batch=v1.TraceBatch(traces=[message]))
        await self.go_on.wait()
        if self.deletions:
            self.deletions -= 1
            self.newest += 1
        if request.as_of < self.newest:
            raise FailedPrecondition("traces have been deleted", reason="SNAPSHOT_INCOMPLETE")

    def built(self) -> BuiltService:
        def add(server: grpc.aio.Server) -> None:
            v1.add_TraceStoreServicer_to_server(self, server)

        return BuiltService(ServiceRegistration("tunix_rt.v1.TraceStore", add), lambda: None, lambda: None)


@pytest.mark.parametrize(
    ("deletions", "as_of", "pinned", "streamed"),
    [
        (2, 0, False, [10, 11, 12]),
        (7, 0, False, [10, 11, 12, 13, 14, 15]),
        # Who asks for a snapshot by number looks whether it is there.
        (1, 10, False, [10, 10]),
        (1, 0, True, [10, 10]),
    ],
    ids=["a few", "too often", "asked for", "asked for by another"],
)
async def test_a_build_during_which_traces_are_deleted_takes_a_newer_snapshot_unless_one_was_asked_for(
    database_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    deletions: int,
    as_of: int,
    pinned: bool,
    streamed: list[int],
) -> None:
    monkeypatch.setattr("tunix_rt_exporter.datasets.build._RETRY_PAUSE_S", 0.01)
    store = ShrinkingStore(deletions)
    async with exporting(tmp_path, database_url, store.built()) as world:
        asked = await world.create(splits=ALL_TRAIN, as_of=as_of)
        assert asked.spec.as_of == 10
        if pinned:
            same = await world.create(splits=ALL_TRAIN, as_of=10)
            assert same.name == asked.name
        store.go_on.set()
        dataset = await world.ended(asked.name)
        assert (store.streamed, dataset.spec.as_of) == (streamed, streamed[-1])
        if deletions == 2:
            assert (dataset.state, dataset.trace_count) == (STATE.STATE_SUCCEEDED, 1)
        else:
            assert (dataset.state, failure(dataset)[0]) == (STATE.STATE_FAILED, "SNAPSHOT_INCOMPLETE")


async def test_a_queued_build_can_be_cancelled_and_asked_for_again(world: Exporting) -> None:
    await world.add([trace(i) for i in range(2000)])
    first = await world.create("first")
    second = await world.create("second")
    cancelled = await world.exporter.CancelDataset(v1.CancelDatasetRequest(name=second.name))
    assert cancelled.state in {STATE.STATE_CANCELLED, STATE.STATE_CANCELLING}
    assert (await world.ended(second.name)).state == STATE.STATE_CANCELLED
    done = await world.ended(first.name)
    assert done.state == STATE.STATE_SUCCEEDED
    assert await world.exporter.CancelDataset(v1.CancelDatasetRequest(name=first.name)) == done
    assert (await world.build("second")).state == STATE.STATE_SUCCEEDED


class SlowStore(v1.TraceStoreServicer):
    """Streams traces for ever, unless ``broken`` is set; then each stream breaks off after three of ten.

    ``after`` holds the place that each stream was to begin at.
    """

    def __init__(self, broken: bool = False) -> None:
        self.broken = broken
        self.streams = 0
        self.after: list[int] = []

    async def StreamTraces(self, request: v1.StreamTracesRequest, context: Any) -> AsyncIterator[Any]:
        self.streams += 1
        self.after.append(request.after_sequence)
        yield v1.StreamTracesResponse(header=v1.StreamTracesHeader(as_of=1_000_000))
        for number in itertools.count(1):
            if self.broken and number > min(3 * self.streams, 10):
                if number <= 10:
                    await context.abort(grpc.StatusCode.UNAVAILABLE, "gone")
                return
            message = trace(number, sequence=number, content_digest=f"sha256:{number:064x}")
            yield v1.StreamTracesResponse(batch=v1.TraceBatch(traces=[message]))
            await asyncio.sleep(0 if self.broken else 0.01)

    def built(self) -> BuiltService:
        def add(server: grpc.aio.Server) -> None:
            v1.add_TraceStoreServicer_to_server(self, server)

        return BuiltService(ServiceRegistration("tunix_rt.v1.TraceStore", add), lambda: None, lambda: None)


async def test_a_running_build_can_be_cancelled(database_url: str, tmp_path: Path) -> None:
    async with exporting(tmp_path, database_url, SlowStore().built()) as world:
        name = (await world.create()).name
        async for dataset in world.exporter.WatchDataset(v1.WatchDatasetRequest(name=name)):
            if dataset.progress.completed:
                assert dataset.progress.stage == "reading traces"
                await world.exporter.CancelDataset(v1.CancelDatasetRequest(name=name))
                break
        ended = await world.ended(name)
        assert (ended.state, ended.digest) == (STATE.STATE_CANCELLED, "")
        assert (await refused(world.read(name))).reason == "DATASET_NOT_READY"
        assert not list((world.settings.data_dir / "exporter-builds").iterdir())


class SilentStore(SlowStore):
    """Sends a header and then nothing, for ever."""

    async def StreamTraces(self, request: v1.StreamTracesRequest, context: Any) -> AsyncIterator[Any]:
        yield v1.StreamTracesResponse(header=v1.StreamTracesHeader(as_of=1_000_000))
        await asyncio.Event().wait()


async def test_a_build_can_be_cancelled_while_the_trace_store_is_silent(tmp_path: Path) -> None:
    async with exporting(tmp_path, "", SilentStore().built()) as world:
        name = (await world.create()).name
        while (await world.exporter.GetDataset(v1.GetDatasetRequest(name=name))).state == STATE.STATE_QUEUED:
            await asyncio.sleep(0.02)
        await world.exporter.CancelDataset(v1.CancelDatasetRequest(name=name))
        ended = await asyncio.wait_for(world.ended(name), 60)
        assert ended.state == STATE.STATE_CANCELLED


async def test_a_build_waits_for_a_trace_store_that_went_away(tmp_path: Path) -> None:
    store = SlowStore(broken=True)
    async with exporting(tmp_path, "", store.built()) as world:
        dataset = await world.build(splits=ALL_TRAIN)
        assert (dataset.state, dataset.splits[0].row_count) == (STATE.STATE_SUCCEEDED, 10)
        assert store.streams > 3
        # One stream is for the number of the snapshot.
        assert store.after == [0, 0, 6, 9]


class StuckStore(SlowStore):
    """Sends the same three traces over and over: each stream breaks off, or falls ``silent``, after them."""

    def __init__(self, silent: bool) -> None:
        super().__init__()
        self.silent = silent

    async def StreamTraces(self, request: v1.StreamTracesRequest, context: Any) -> AsyncIterator[Any]:
        yield v1.StreamTracesResponse(header=v1.StreamTracesHeader(as_of=1_000_000))
        for number in range(1, 4):
            message = trace(number, sequence=number, content_digest=f"sha256:{number:064x}")
            yield v1.StreamTracesResponse(batch=v1.TraceBatch(traces=[message]))
        if self.silent:
            await asyncio.Event().wait()
        await context.abort(grpc.StatusCode.UNAVAILABLE, "gone")


@pytest.mark.parametrize("silent", [False, True])
async def test_a_build_gives_up_a_stream_that_brings_nothing_new(tmp_path: Path, silent: bool) -> None:
    async with exporting(tmp_path, "", StuckStore(silent).built(), upstream_patience_s=1) as world:
        dataset = await asyncio.wait_for(world.build(splits=ALL_TRAIN), 60)
        assert dataset.state == STATE.STATE_FAILED
        assert failure(dataset)[0] == "UPSTREAM_UNAVAILABLE"


async def test_a_database_that_stays_read_only_fails_the_build_by_name_once_it_can(
    world: Exporting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also the build that had not begun, and one that is done and waits to be stored is not lost."""
    moves: list[JobState] = []
    move = SqlDatasetRepository.change_state

    def refuse(repository: Any, build_id: str, states: Any, to: JobState, **more: Any) -> bool:
        moves.append(to)
        if to is refused_to or moves.count(to) < 3:
            raise FailedPrecondition("the database is read-only", reason="DATABASE_READ_ONLY")
        return move(repository, build_id, states, to, **more)

    await world.add([trace(number) for number in range(10)])
    monkeypatch.setattr(SqlDatasetRepository, "change_state", refuse)
    refused_to: JobState | None = JobState.RUNNING
    dataset = await asyncio.wait_for(world.build("begun"), 60)
    assert (dataset.state, failure(dataset)[0]) == (STATE.STATE_FAILED, "DATABASE_READ_ONLY")
    moves[:], refused_to = [JobState.RUNNING] * 2, None
    assert (await asyncio.wait_for(world.build("done"), 60)).state == STATE.STATE_SUCCEEDED
    assert moves.count(JobState.SUCCEEDED) == 3


async def test_a_build_does_not_wait_for_ever(tmp_path: Path) -> None:
    async with exporting(tmp_path, "", SlowStore(broken=True).built(), upstream_patience_s=0) as world:
        dataset = await world.build(splits=ALL_TRAIN)
        assert dataset.state == STATE.STATE_FAILED
        assert failure(dataset)[0] == "UPSTREAM_UNAVAILABLE"


async def test_an_interrupted_build_goes_on_with_the_next_server(database_url: str, tmp_path: Path) -> None:
    async with exporting(tmp_path, database_url, SlowStore().built()) as world:
        name = (await world.create(splits=ALL_TRAIN)).name
        async for dataset in world.exporter.WatchDataset(v1.WatchDatasetRequest(name=name)):
            if dataset.progress.completed:
                break
    async with exporting(tmp_path, database_url, SlowStore(broken=True).built()) as world:
        dataset = await world.ended(name)
        assert (dataset.state, dataset.splits[0].row_count) == (STATE.STATE_SUCCEEDED, 10)


async def test_a_watch_shows_progress(world: Exporting) -> None:
    await world.add([trace(i) for i in range(2000)])
    name = (await world.create()).name
    seen = [dataset async for dataset in world.exporter.WatchDataset(v1.WatchDatasetRequest(name=name))]
    assert seen[-1].state == STATE.STATE_SUCCEEDED
    assert seen[-1].progress.completed == seen[-1].progress.total == 2000

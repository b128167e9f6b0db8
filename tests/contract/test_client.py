"""The client library against the real trace store and exporter, on both databases."""

from __future__ import annotations

import asyncio
import io
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from support.migrated import migrated
from support.threaded import real_server
from support.traces import step, trace
from tunix_rt import AsyncClient, Client, ImportResult, import_traces, jobs, v1
from tunix_rt.errors import AlreadyExistsError, InvalidArgumentError, JobFailedError, NotFoundError
from tunix_rt.formats import read_traces, trace_to_json
from tunix_rt.importing import ImportStoppedError
from tunix_rt_exporter.wiring import ExporterSettings
from tunix_rt_exporter.wiring import build as build_exporter
from tunix_rt_exporter.wiring import migrate as migrate_exporter
from tunix_rt_kit.canonical import digest_file
from tunix_rt_kit.serving.server import BuiltService
from tunix_rt_trace_store.wiring import TraceStoreSettings, build, migrate

pytestmark = pytest.mark.one_database

Builder = Callable[[asyncio.Event], BuiltService]


@pytest.fixture
def store(database_url: str, tmp_path: Path) -> Builder:
    settings = TraceStoreSettings(listen="127.0.0.1:0", database_url=database_url, data_dir=tmp_path)
    migrated(settings, migrate)
    return lambda stopping: build(settings, stopping)


@pytest.fixture
def address(store: Builder) -> Iterator[str]:
    with real_server(store) as address:
        yield address


@pytest.fixture
def client(address: str) -> Iterator[Client]:
    with Client(address) as client:
        yield client


@pytest.fixture
async def async_client(address: str) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(address) as client:
        yield client


def test_every_call_of_the_trace_store(client: Client) -> None:
    calls = client.trace_store
    first = calls.create_trace(trace(1))
    other = calls.create_trace(trace(2, steps=[step(0, content="at once")]))
    assert calls.get_trace(first.name) == first
    assert [found.name for found in calls.list_traces()] == [other.name, first.name]
    assert list(calls.stream_traces()) == [first, other]
    scores = calls.score_trace(first.name, criteria=["structure", "answer"]).scores
    assert [score.criterion for score in scores] == ["structure", "answer"]
    (result,) = calls.batch_score_traces([other.name], criteria=["structure"]).results
    assert [score.trace for score in result.scores] == [other.name]
    own = v1.TraceScore(trace=other.name, criterion="judge", value=0.5)
    assert calls.write_scores([own]).written_count == 1
    assert [score.value for score in calls.list_scores(other.name, criterion="judge")] == [0.5]
    assert len(list(calls.list_scores(first.name, page_size=1))) == 2
    compared = calls.compare_traces(first.name, other.name)
    assert (compared.base.trace, compared.other.trace) == (first, other)
    calls.delete_trace(first.name)
    with pytest.raises(NotFoundError, match=first.name) as caught:
        calls.get_trace(first.name)
    assert caught.value.reason
    assert caught.value.request_id


async def test_every_call_of_the_trace_store_in_asyncio(async_client: AsyncClient) -> None:
    calls = async_client.trace_store
    first = await calls.create_trace(trace(1))
    batch = await calls.batch_create_traces([trace(1), trace(2)], duplicate_policy=v1.DUPLICATE_POLICY_SKIP)
    assert (batch.created_count, batch.skipped_count) == (1, 1)
    request = v1.BatchCreateTracesRequest(
        traces=[trace(1), trace(2)], duplicate_policy=v1.DUPLICATE_POLICY_SKIP, request_id="encoded"
    )
    encoded = await calls.batch_create_encoded_traces(request.SerializeToString())
    assert [entry.name for entry in encoded.results] == [entry.name for entry in batch.results]
    assert await calls.get_trace(first.name) == first
    names = [found.name async for found in calls.list_traces(page_size=1)]
    assert names == [batch.results[1].name, first.name]
    stream = calls.stream_traces()
    assert await stream.start() == 2
    assert [found.name async for found in stream] == names[::-1]
    assert (await calls.score_trace(first.name)).scores[0].criterion == "structure"
    (result,) = (await calls.batch_score_traces([first.name])).results
    assert result.scores[0].criterion == "structure"
    own = v1.TraceScore(trace=first.name, criterion="judge", value=0.5)
    assert (await calls.write_scores([own])).written_count == 1
    listed = [score.criterion async for score in calls.list_scores(first.name, page_size=1)]
    assert listed == ["judge", "structure", "structure"]
    assert (await calls.compare_traces(*names)).base.trace.name == names[0]
    await calls.delete_trace(first.name)
    with pytest.raises(NotFoundError):
        await calls.get_trace(first.name)


def test_pages_are_fetched_as_needed(client: Client) -> None:
    import_traces(client, (trace(i) for i in range(25)))
    pager = client.trace_store.list_traces(page_size=10, filter=v1.TraceFilter(sources=["tests"]))
    pages = list(pager.pages())
    assert [len(page.traces) for page in pages] == [10, 10, 5]
    assert len({found.name for found in pager}) == 25
    rest = client.trace_store.list_traces(
        page_size=10, page_token=pages[1].next_page_token, filter=v1.TraceFilter(sources=["tests"])
    )
    assert list(rest) == list(pages[2].traces)


def test_a_stream_knows_its_snapshot(client: Client) -> None:
    import_traces(client, (trace(i) for i in range(5)))
    stream = client.trace_store.stream_traces()
    assert stream.as_of == 5
    client.trace_store.create_trace(trace(9))
    assert len(list(stream)) == 5
    again = client.trace_store.stream_traces(as_of=5)
    assert again.as_of == 5
    assert len(list(again)) == 5
    assert client.trace_store.stream_traces(filter=v1.TraceFilter(sources=["none"])).as_of == 6
    with pytest.raises(InvalidArgumentError):
        next(client.trace_store.stream_traces(as_of=7))


def test_a_request_id_makes_a_call_repeatable(client: Client) -> None:
    first = client.trace_store.create_trace(trace(1), request_id="mine")
    assert client.trace_store.create_trace(trace(1), request_id="mine") == first
    assert client.trace_store.create_trace(trace(1)).name != first.name
    with pytest.raises(AlreadyExistsError):
        client.trace_store.create_trace(trace(2), request_id="mine")


def test_wrong_fields_are_named(client: Client) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        client.trace_store.create_trace(v1.Trace(trace_version="1.0", prompt="p", final_answer="a"))
    assert [violation.field for violation in caught.value.field_violations] == ["trace.steps"]


def test_an_import_again_adds_nothing(client: Client) -> None:
    traces = [trace(i) for i in range(2300)]
    progress: list[ImportResult] = []
    result = import_traces(client, traces, on_progress=progress.append)
    assert (result.read, result.created, result.skipped) == (2300, 2300, 0)
    assert progress[-1] == result
    again = import_traces(client, traces)
    assert (again.read, again.created, again.skipped) == (2300, 0, 2300)
    assert len(list(client.trace_store.stream_traces())) == 2300


def test_an_import_with_the_same_id_adds_nothing_even_when_duplicates_are_kept(client: Client) -> None:
    traces = [trace(i) for i in range(30)]
    for _ in range(2):
        result = import_traces(client, traces, duplicate_policy="keep", batch_size=10, import_id="loop")
        assert result.created == 30
    assert import_traces(client, traces, duplicate_policy="keep").created == 30
    assert len(list(client.trace_store.stream_traces())) == 60


def test_a_trace_that_the_store_refuses_is_named_by_its_place(client: Client) -> None:
    traces = [trace(i) for i in range(50)]
    traces[33].prompt = ""
    with pytest.raises(ImportStoppedError) as caught:
        import_traces(client, traces, batch_size=10, in_flight=1)
    assert "30 traces stored, then: trace 34: prompt: " in str(caught.value)
    assert len(list(client.trace_store.stream_traces())) == 30


def test_what_is_stored_can_be_written_and_read_again(client: Client) -> None:
    import_traces(client, (trace(i, metadata={"a": [1, None, {"b": 0.5}]}) for i in range(5)))
    stored = list(client.trace_store.stream_traces())
    text = "\n".join(trace_to_json(found) for found in stored)
    again = import_traces(client, read_traces(io.StringIO(text)))
    assert (again.created, again.skipped) == (0, 5)
    listing = "\n".join(
        json.dumps(json.loads(trace_to_json(found)) | {"name": found.name}) for found in stored
    )
    assert import_traces(client, read_traces(io.StringIO(listing))).skipped == 5


def test_an_import_survives_restarts_of_the_server(store: Builder) -> None:
    total, restarts = 4000, 3
    servers = ExitStack()
    listen = servers.enter_context(real_server(store))
    restart = threading.Event()
    done = threading.Event()

    def restart_when_told() -> None:
        nonlocal servers
        while not done.is_set():
            if restart.wait(0.02):
                restart.clear()
                servers.close()
                servers = ExitStack()
                servers.enter_context(real_server(store, listen))

    manager = threading.Thread(target=restart_when_told)
    manager.start()
    try:
        with Client(listen) as client:
            told = 0

            def on_progress(result: ImportResult) -> None:
                nonlocal told
                if told < restarts and result.read >= (told + 1) * total / (restarts + 1):
                    told += 1
                    restart.set()

            result = import_traces(
                client,
                (trace(i) for i in range(total)),
                batch_size=50,
                duplicate_policy="keep",
                on_progress=on_progress,
            )
            assert told == restarts
            assert result.created == total
            prompts = [found.prompt for found in client.trace_store.stream_traces()]
            assert sorted(prompts) == sorted(trace(i).prompt for i in range(total))
    finally:
        done.set()
        manager.join()
        servers.close()


@pytest.fixture
def pair(store: Builder, tmp_path: Path) -> Iterator[Client]:
    """A client of a real trace store and a real exporter."""
    with real_server(store) as trace_store:
        settings = ExporterSettings(
            listen="127.0.0.1:0",
            data_dir=tmp_path / "exporter",
            trace_store_target=trace_store,
            evaluator_target="127.0.0.1:1",
        )
        migrated(settings, migrate_exporter)
        with (
            real_server(lambda stopping: build_exporter(settings, stopping)) as exporter,
            Client(
                f"trace-store={trace_store},exporter={exporter},trainer=127.0.0.1:1,evaluator=127.0.0.1:1"
            ) as client,
        ):
            yield client


def spec(**changes: Any) -> v1.DatasetSpec:
    fields = {
        "dataset_id": "d",
        "splits": [
            v1.SplitFraction(split="train", fraction=0.5),
            v1.SplitFraction(split="test", fraction=0.5),
        ],
    }
    return v1.DatasetSpec(**(fields | changes))


def test_every_call_of_the_exporter(pair: Client, tmp_path: Path) -> None:
    import_traces(pair, (trace(i) for i in range(40)))
    created = pair.exporter.create_dataset(spec())
    states: list[int] = []
    built = jobs.wait_for_dataset(pair, created.name, lambda update: states.append(update.state))
    assert states[-1] == built.state == v1.Dataset.STATE_SUCCEEDED
    assert pair.exporter.get_dataset(created.name) == built
    assert [found.name for found in pair.exporter.list_datasets(page_size=1)] == [created.name]
    assert pair.exporter.cancel_dataset(created.name) == built
    prompts = []
    for split in built.splits:
        rows = pair.exporter.read_dataset(created.name, split.split, format=v1.DATASET_FORMAT_TRACE)
        prompts += [found.prompt for found in read_traces(io.BytesIO(rows))]
        header = pair.exporter.download_dataset(created.name, split.split, tmp_path / split.split)
        assert (header.digest, header.size_bytes) == (digest_file(tmp_path / split.split), len(rows))
    assert sorted(prompts) == sorted(trace(i).prompt for i in range(40))
    with pytest.raises(InvalidArgumentError, match="nope"):
        pair.exporter.read_dataset(created.name, "nope")


def test_a_dataset_of_nothing_fails_with_its_reason(pair: Client) -> None:
    import_traces(pair, [trace(1)])
    created = pair.exporter.create_dataset(spec(filter=v1.TraceFilter(sources=["nobody"])))
    with pytest.raises(JobFailedError, match=r"datasets/d@1 failed: ") as caught:
        jobs.wait_for_dataset(pair, created.name)
    assert caught.value.reason == "DATASET_EMPTY"
    assert caught.value.resource.state == v1.Dataset.STATE_FAILED

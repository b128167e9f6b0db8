# ruff: noqa: ARG002  (a port's methods take more than this one uses)
"""Builds as jobs of the engine, while the database comes and goes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.datasets import built, source
from support.disk import largest_file
from tunix_rt_exporter.datasets.build import Builds
from tunix_rt_exporter.datasets.model import Dataset, DatasetSpec, EvalPrompts, SourceTrace
from tunix_rt_exporter.datasets.repository import SqlDatasetRepository
from tunix_rt_exporter.tables import build_leases
from tunix_rt_kit.artifacts import ArtifactStore
from tunix_rt_kit.database import Database
from tunix_rt_kit.errors import ResourceExhausted, Unavailable
from tunix_rt_kit.jobs.engine import JobEngine
from tunix_rt_kit.jobs.leases import SqlLeases
from tunix_rt_kit.values import NO_REQUEST_ID, JobState

SPEC = DatasetSpec.model_validate({"dataset_id": "d", "splits": [{"split": "train", "fraction": 1}]})


class ShakyDatabase(Database):
    """Refuses every write while ``away``; ``refused`` counts them."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.away = threading.Event()
        self.refused = 0

    @contextmanager
    def write(self) -> Iterator[Any]:
        if self.away.is_set():
            self.refused += 1
            raise Unavailable("the database is away", reason="DATABASE_UNAVAILABLE")
        with super().write() as session:
            yield session


class Upstream:
    """Traces and eval sets; ``between`` is called after the first part of the traces."""

    def __init__(self) -> None:
        self.between: Callable[[], object] = lambda: None
        self.pause_s = 0.3

    def resolve(self, wanted: Mapping[str, Any], as_of: int) -> int:
        return as_of or 1

    def unchanged_since(self, wanted: Mapping[str, Any], as_of: int) -> bool:
        return True

    def traces(
        self, wanted: Mapping[str, Any], as_of: int, pause: Callable[[float], None]
    ) -> Iterator[Sequence[SourceTrace]]:
        yield [source(number) for number in range(10)]
        self.between()
        for number in range(10, 13):
            pause(self.pause_s)
            yield [source(number)]

    def names(self) -> Iterator[str]:
        return iter(())

    def prompts(self, name: str) -> EvalPrompts:
        return EvalPrompts(name, "", {})


class World:
    def __init__(self, folder: Path) -> None:
        self.database = ShakyDatabase(f"sqlite:///{folder}/exporter.db")
        self.repository = SqlDatasetRepository(self.database)
        self.repository.migrate()
        self.upstream = Upstream()
        self.artifacts = ArtifactStore(folder / "artifacts")
        self.folder = folder / "builds"
        self.builds = Builds(
            self.repository,
            traces=self.upstream,
            eval_sets=self.upstream,
            artifacts=self.artifacts,
            folder=self.folder,
            slots=1,
        )
        leases = SqlLeases(self.database, build_leases)
        self.builds.remove_leftovers(leases)
        self.engine = JobEngine(leases, [self.builds])
        self.engine.start()

    def create(self) -> Dataset:
        dataset = self.repository.create(SPEC, NO_REQUEST_ID, lambda _: False)
        self.engine.wake()
        return dataset

    def dataset(self) -> Dataset:
        found = self.repository.find("d", "1")
        assert found is not None
        return found

    def state(self) -> JobState:
        return self.dataset().state

    def until(self, done: Callable[[], bool], seconds: float = 30) -> None:
        end = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < end, self.state()
            time.sleep(0.02)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.engine.stop(30.0)
    world.database.close()


def test_a_build_outlasts_a_database_that_goes_away(world: World) -> None:
    world.upstream.between = world.database.away.set
    world.create()
    # Its progress, and the move to its end.
    world.until(lambda: world.database.refused >= 4)
    assert world.state() is JobState.RUNNING
    world.database.away.clear()
    world.until(lambda: world.state().ended)
    assert world.state() is JobState.SUCCEEDED


def test_a_failure_is_kept_once_the_database_is_back(world: World) -> None:
    def fail() -> None:
        world.database.away.set()
        raise Unavailable("the trace store is away", reason="UPSTREAM_UNAVAILABLE")

    world.upstream.between = fail
    world.create()
    world.until(lambda: world.database.refused >= 2)
    world.database.away.clear()
    world.until(lambda: world.state().ended)
    assert world.state() is JobState.FAILED


def test_a_move_that_was_kept_but_not_answered_does_not_end_the_build(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    change_state, forgotten = SqlDatasetRepository.change_state, []

    def forget_once(*arguments: Any, **more: Any) -> bool:
        changed = change_state(*arguments, **more)
        if not forgotten:
            forgotten.append(arguments[3])
            raise Unavailable("the database went away", reason="DATABASE_UNAVAILABLE")
        return changed

    monkeypatch.setattr(SqlDatasetRepository, "change_state", forget_once)
    world.create()
    world.until(lambda: world.state().ended)
    assert (forgotten, world.state()) == ([JobState.RUNNING], JobState.SUCCEEDED)


def test_a_server_that_stops_while_the_database_is_away_leaves_the_build_to_the_next(world: World) -> None:
    world.upstream.between = world.database.away.set
    world.create()
    world.until(lambda: world.database.refused >= 4)
    world.engine.stop(30.0)
    assert world.state() is JobState.RUNNING


def test_a_build_that_nobody_runs_can_be_cancelled(world: World) -> None:
    world.upstream.between = lambda: waiting.wait(30)
    waiting = threading.Event()
    world.create()
    world.until(lambda: world.state() is JobState.RUNNING)
    other = SPEC.model_copy(update={"version": "2"})
    build_id = world.repository.create(other, NO_REQUEST_ID, lambda _: False).build_id
    world.repository.change_state(build_id, [JobState.QUEUED], JobState.CANCELLING)
    world.engine.cancel(build_id)
    world.until(lambda: world.repository.by_build(build_id).state is JobState.CANCELLED)
    waiting.set()


def test_an_error_that_nobody_foresaw_names_the_build(world: World) -> None:
    def fail() -> None:
        raise ValueError("a bug")

    world.upstream.between = fail
    build_id = world.create().build_id
    world.until(lambda: world.state().ended)
    failure = world.dataset().failure
    assert failure is not None
    assert (failure.code, failure.reason) == ("INTERNAL", "INTERNAL")
    assert failure.message == "internal error; the server's log says more"
    assert failure.metadata == {"build_id": build_id, "type": "ValueError"}


def test_a_server_that_starts_deletes_what_others_left_but_not_what_they_work_with(world: World) -> None:
    def other_server_starts() -> None:
        leases = SqlLeases(world.database, build_leases)
        world.builds.remove_leftovers(leases)
        left.extend(path.name for path in world.folder.iterdir())

    left: list[str] = []
    for name in ("0190-of-a-killed-server.x", "0190-of-a-server-of-before"):
        (world.folder / name).mkdir()
        (world.folder / name / "rows").write_bytes(b"half")
    world.upstream.between = other_server_starts
    build_id = world.create().build_id
    world.until(lambda: world.state().ended)
    assert world.state() is JobState.SUCCEEDED
    assert [name.partition(".")[0] for name in left] == [build_id]
    assert not list(world.folder.iterdir())


@pytest.mark.parametrize("failures", [2, 9])
def test_a_build_waits_a_while_for_artifacts_that_are_away(
    world: World, monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    monkeypatch.setattr("tunix_rt_exporter.datasets.build._RETRY_PAUSE_S", 0.01)
    world.upstream.pause_s = 0
    left, writer = [None] * failures, ArtifactStore.writer

    def fail(store: ArtifactStore) -> Any:
        if left:
            left.pop()
            raise Unavailable("artifacts are away", reason="STORAGE_UNAVAILABLE")
        return writer(store)

    monkeypatch.setattr(ArtifactStore, "writer", fail)
    world.create()
    world.until(lambda: world.state().ended)
    assert world.state() is (JobState.SUCCEEDED if failures == 2 else JobState.FAILED)
    assert not list(world.folder.iterdir())


def test_a_build_that_waits_for_artifacts_can_be_cancelled(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunix_rt_exporter.datasets.build._RETRY_PAUSE_S", 60)
    failed = threading.Event()

    def fail(_: ArtifactStore) -> Any:
        failed.set()
        raise Unavailable("artifacts are away", reason="STORAGE_UNAVAILABLE")

    monkeypatch.setattr(ArtifactStore, "writer", fail)
    world.upstream.pause_s = 0
    build_id = world.create().build_id
    assert failed.wait(30)
    world.repository.change_state(build_id, [JobState.RUNNING], JobState.CANCELLING)
    world.engine.cancel(build_id)
    world.until(lambda: world.state() is JobState.CANCELLED)


@pytest.mark.parametrize("method", ["exact", "near"])
def test_a_build_whose_rows_find_no_space_says_so(tmp_path: Path, method: str) -> None:
    traces = [source(number) for number in range(300)]
    with largest_file(16_000), pytest.raises(ResourceExhausted, match="no space left") as caught:
        built(tmp_path, [traces], deduplication={"method": method})
    assert caught.value.reason == "STORAGE_FULL"

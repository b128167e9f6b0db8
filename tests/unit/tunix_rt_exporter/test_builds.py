# ruff: noqa: ARG002  (a port's methods take more than this one uses)
"""The queue of builds while the database comes and goes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.datasets import source
from tunix_rt_exporter.datasets.builds import Builds
from tunix_rt_exporter.datasets.model import Dataset, DatasetSpec, EvalPrompts, SourceTrace
from tunix_rt_exporter.datasets.repository import SqlDatasetRepository
from tunix_rt_kit.artifacts import ArtifactStore
from tunix_rt_kit.database import Database
from tunix_rt_kit.errors import Unavailable
from tunix_rt_kit.values import NO_REQUEST_ID, JobState

SPEC = DatasetSpec.model_validate({"dataset_id": "d", "splits": [{"split": "train", "fraction": 1}]})


class ShakyDatabase(Database):
    """Refuses every write while ``away``; ``refused`` counts them. ``forgets`` answers keep the write."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.away = threading.Event()
        self.forgets = 0
        self.refused = 0

    @contextmanager
    def write(self) -> Iterator[Any]:
        if self.away.is_set():
            self.refused += 1
            raise Unavailable("the database is away", reason="DATABASE_UNAVAILABLE")
        with super().write() as session:
            yield session
        if self.forgets:
            self.forgets -= 1
            raise Unavailable("the database went away", reason="DATABASE_UNAVAILABLE")


class Upstream:
    """Traces and eval sets; ``between`` is called after the first part of the traces."""

    def __init__(self, between: Callable[[], object] = lambda: None) -> None:
        self.between = between

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
            pause(0.3)
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
        self.builds = Builds(
            self.repository,
            traces=self.upstream,
            eval_sets=self.upstream,
            artifacts=ArtifactStore(folder / "artifacts"),
            folder=folder / "builds",
            slots=1,
        )
        self.builds.start()

    def create(self) -> Dataset:
        return self.repository.create(SPEC, NO_REQUEST_ID, lambda _: False)

    def state(self) -> JobState:
        found = self.repository.find("d", "1")
        assert found is not None
        return found.state

    def until(self, done: Callable[[], bool], seconds: float = 30) -> None:
        end = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < end, self.state()
            time.sleep(0.02)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.builds.stop(30.0)
    world.database.close()


def test_a_build_outlasts_a_database_that_goes_away(world: World) -> None:
    world.upstream.between = world.database.away.set
    world.builds.submit(world.create().build_id)
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
    world.builds.submit(world.create().build_id)
    world.until(lambda: world.database.refused >= 2)
    world.database.away.clear()
    world.until(lambda: world.state().ended)
    assert world.state() is JobState.FAILED


def test_a_move_that_was_kept_but_not_answered_does_not_end_the_build(world: World) -> None:
    build_id = world.create().build_id
    world.database.forgets = 1
    world.builds.submit(build_id)
    world.until(lambda: world.state().ended)
    assert world.state() is JobState.SUCCEEDED


def test_a_server_that_stops_while_the_database_is_away_leaves_the_build_to_the_next(world: World) -> None:
    world.upstream.between = world.database.away.set
    world.builds.submit(world.create().build_id)
    world.until(lambda: world.database.refused >= 4)
    world.builds.stop(30.0)
    assert world.state() is JobState.RUNNING


def test_a_build_that_nobody_runs_can_be_cancelled(world: World) -> None:
    build_id = world.create().build_id
    world.repository.move(build_id, {JobState.QUEUED}, JobState.CANCELLING)
    world.builds.cancel(build_id)
    assert world.state() is JobState.CANCELLED

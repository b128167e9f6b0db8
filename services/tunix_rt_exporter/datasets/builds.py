"""Runs builds in the background, and leaves each in a state that tells the truth."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, TypeVar

from tunix_rt_exporter.datasets.build import DatasetBuild
from tunix_rt_exporter.datasets.model import (
    BuildResult,
    Dataset,
    EvalPrompts,
    EvalSetSource,
    Parent,
    TraceSource,
)
from tunix_rt_exporter.datasets.rows import parent_of
from tunix_rt_exporter.datasets.service import DatasetRepository
from tunix_rt_kit.artifacts import ArtifactStore
from tunix_rt_kit.artifacts.store import storage_error
from tunix_rt_kit.chat import ChatTemplate
from tunix_rt_kit.errors import DomainError, FailedPrecondition
from tunix_rt_kit.jobs import JobRunner
from tunix_rt_kit.jobs.runner import AWAY
from tunix_rt_kit.serving.logging import get_logger
from tunix_rt_kit.values import JobError, JobState, Progress

_log = get_logger("tunix_rt.exporter")
_PROGRESS_S: Final = 0.25
_LIVE: Final = (JobState.RUNNING, JobState.CANCELLING)
T = TypeVar("T")


class BuildCancelled(Exception):
    """The build was asked to stop."""


class BuildInterrupted(Exception):
    """The server stops; the build begins again with the next one."""


class Builds:
    """The queue of builds.

    Args:
        repository: where datasets are remembered.
        traces, eval_sets: what datasets are made from.
        artifacts: where their files go.
        folder: for unfinished builds; its content is deleted at the start.
        slots: how many builds run at once.
    """

    def __init__(
        self,
        repository: DatasetRepository,
        *,
        traces: TraceSource,
        eval_sets: EvalSetSource,
        artifacts: ArtifactStore,
        folder: Path,
        slots: int,
    ) -> None:
        self._repository = repository
        self._traces = traces
        self._eval_sets = eval_sets
        self._artifacts = artifacts
        self._folder = folder
        self._runner = JobRunner(slots, self._run, on_error=self._crashed, name="build")

    def start(self) -> None:
        """Queue what an earlier server did not finish; delete what it left half-written (a day after)."""
        try:
            if self._folder.exists():
                shutil.rmtree(self._folder)
            self._folder.mkdir(parents=True)
        except OSError as error:
            raise storage_error(error, str(self._folder)) from error
        self._artifacts.remove_stale()
        for dataset in self._repository.in_states([JobState.CANCELLING]):
            self._repository.move(dataset.build_id, {JobState.CANCELLING}, JobState.CANCELLED)
        for dataset in self._repository.in_states([JobState.QUEUED, JobState.RUNNING]):
            self._repository.move(dataset.build_id, {JobState.RUNNING}, JobState.QUEUED)
            self._runner.submit(dataset.build_id)

    def stop(self, grace_s: float) -> None:
        """End the running builds, within so many seconds; they begin again with the next server."""
        self._runner.stop(grace_s)

    def submit(self, build_id: str) -> None:
        """Put a queued build at the end of the queue."""
        if not self._runner.stopping.is_set():
            self._runner.submit(build_id)

    def cancel(self, build_id: str) -> None:
        """Take a build out of the queue, or tell it to stop."""
        if self._runner.cancel(build_id) == "unknown":
            # Nobody is left who would end it.
            self._repository.move(build_id, {JobState.CANCELLING}, JobState.CANCELLED)

    def _run(self, build_id: str, cancelled: threading.Event) -> None:
        # RUNNING too: a database that went away may have kept the move whose answer it did not give.
        waiting, move = {JobState.QUEUED, JobState.RUNNING}, self._repository.move
        with suppress(BuildInterrupted):
            try:
                if not self._patiently(lambda: move(build_id, waiting, JobState.RUNNING), cancelled):
                    return
                dataset = self._patiently(lambda: self._repository.by_build(build_id), cancelled)
                if dataset is None:
                    return
                result = self._build(dataset, cancelled)
            except BuildCancelled:
                self._end(build_id, _LIVE, JobState.CANCELLED)
            except BuildInterrupted:
                self._end(build_id, {JobState.RUNNING}, JobState.QUEUED)
                self._end(build_id, {JobState.CANCELLING}, JobState.CANCELLED)
            except DomainError as error:
                self._fail(build_id, JobError(code=error.code, **_facts(error)))
            else:
                self._end(build_id, _LIVE, JobState.SUCCEEDED, result=result)

    def _end(
        self,
        build_id: str,
        states: Collection[JobState],
        to: JobState,
        *,
        failure: JobError | None = None,
        result: BuildResult | None = None,
    ) -> None:
        """Store how a build ended, as soon as that can be stored; raises BuildInterrupted if the server stops
        before."""
        try:
            self._runner.record(
                lambda: self._repository.move(build_id, states, to, failure=failure, result=result)
            )
        except DomainError as error:
            raise BuildInterrupted from error

    def _patiently(self, ask: Callable[[], T], cancelled: threading.Event) -> T:
        """What the database answers once it can; raises BuildInterrupted or BuildCancelled if the server or
        the build is to stop before, and DomainError for what will not pass by itself."""
        try:
            return self._runner.insist(ask, cancelled)
        except AWAY as error:
            raise (BuildInterrupted if self._runner.stopping.is_set() else BuildCancelled) from error

    def _build(self, dataset: Dataset, cancelled: threading.Event) -> BuildResult:
        spec = dataset.spec

        def check() -> None:
            if cancelled.is_set():
                raise BuildCancelled
            if self._runner.stopping.is_set():
                raise BuildInterrupted

        def pause(seconds: float) -> None:
            end = time.monotonic() + seconds
            while (left := end - time.monotonic()) > 0:
                check()
                cancelled.wait(min(left, 0.2))
            check()

        with self._own_folder(dataset.build_id) as folder:
            build = DatasetBuild(
                spec,
                template=ChatTemplate.of(spec.chat_template),
                eval_sets=[self._eval_sets.prompts(name) for name in spec.eval_sets],
                other_eval_sets=lambda: self._other_eval_sets(spec.eval_sets),
                store=self._artifacts,
                folder=folder,
                report=self._reporter(dataset.build_id, check),
                parent=self._parent(spec.parent, cancelled),
            )
            return build.run(self._traces.traces(spec.filter, spec.as_of, pause))

    def _other_eval_sets(self, named: Collection[str]) -> Iterator[EvalPrompts]:
        for name in self._eval_sets.names():
            if name not in named:
                yield self._eval_sets.prompts(name)

    def _parent(self, name: str, cancelled: threading.Event) -> Parent | None:
        if not name:
            return None
        dataset_id, _, version = name.removeprefix("datasets/").partition("@")
        dataset = self._patiently(lambda: self._repository.find(dataset_id, version), cancelled)
        if dataset is None or dataset.result is None:
            raise FailedPrecondition(f"the parent {name} is not complete", reason="DATASET_NOT_READY")
        return parent_of(self._artifacts, dataset.result)

    @contextmanager
    def _own_folder(self, build_id: str) -> Iterator[Path]:
        folder = self._folder / build_id
        try:
            folder.mkdir()
        except OSError as error:
            raise storage_error(error, str(folder)) from error
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _reporter(self, build_id: str, check: Callable[[], None]) -> Callable[[Progress], None]:
        told, stage = 0.0, ""

        def report(progress: Progress) -> None:
            nonlocal told, stage
            check()
            now = time.monotonic()
            if progress.stage != stage or progress.completed == progress.total or now - told >= _PROGRESS_S:
                # A database that is away costs the watchers a figure, not the build.
                with suppress(DomainError):
                    self._repository.set_progress(build_id, progress)
                told, stage = time.monotonic(), progress.stage

        return report

    def _crashed(self, build_id: str, error: Exception) -> None:
        message = "internal error; the server's log says more"
        metadata = {"build_id": build_id, "type": type(error).__name__}
        self._fail(build_id, JobError(code="INTERNAL", reason="INTERNAL", message=message, metadata=metadata))

    def _fail(self, build_id: str, failure: JobError) -> None:
        _log.warning("build_failed", build=build_id, reason=failure.reason, message=failure.message)
        self._end(build_id, {JobState.QUEUED, *_LIVE}, JobState.FAILED, failure=failure)


def _facts(error: DomainError) -> dict[str, object]:
    return {"reason": error.reason, "message": error.message, "metadata": error.metadata}

"""Builds of datasets as jobs of the engine."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

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
from tunix_rt_kit.artifacts.store import storage_errors
from tunix_rt_kit.chat import ChatTemplate
from tunix_rt_kit.errors import DomainError, FailedPrecondition
from tunix_rt_kit.jobs import JobKind, Run
from tunix_rt_kit.jobs.engine import LIVE, Leases
from tunix_rt_kit.values import JobError, JobState, Progress

_PROGRESS_S: Final = 0.25
# How often a build begins again by itself, and the first pause before, which then doubles: 15.5 s in all.
_MOST_RETRIES: Final = 5
_RETRY_PAUSE_S: Final = 0.5


class Builds(JobKind):
    """The builds of datasets. A build that was interrupted begins anew.

    Args:
        repository: where datasets are remembered.
        traces, eval_sets: what datasets are made from.
        artifacts: where their files go.
        folder: for unfinished builds, of all servers with this data folder.
        slots: how many builds run at once.
    """

    name = "build"

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
        super().__init__(repository, slots)
        self._repository = repository
        self._traces = traces
        self._eval_sets = eval_sets
        self._artifacts = artifacts
        self._folder = folder

    def remove_leftovers(self, leases: Leases) -> None:
        """Delete what servers that have ended left half-written; unfinished artifacts a day after."""
        with storage_errors(str(self._folder)):
            self._folder.mkdir(parents=True, exist_ok=True)
            folders = list(self._folder.iterdir())
        # Read after the folders: a build is leased for as long as it has one.
        leased = {build_id for build_id, lease in leases.all().items() if not lease.free}
        for folder in folders:
            if folder.name.partition(".")[0] not in leased:
                shutil.rmtree(folder, ignore_errors=True)
        self._artifacts.remove_stale()

    def work(self, run: Run) -> None:
        change, build_id = self._repository.change_state, run.job_id
        # RUNNING too: another server may have begun, or the answer to this very change may have been lost.
        waiting = (JobState.QUEUED, JobState.RUNNING)
        if not run.retry(lambda: change(build_id, waiting, JobState.RUNNING)):
            run.check()
            return
        result = self._built(run)
        # What is done waits for a database that is full or read-only, too.
        run.retry(lambda: change(build_id, LIVE, JobState.SUCCEEDED, result=result), (DomainError,))

    def failure(self, job_id: str, error: Exception) -> JobError:
        if isinstance(error, DomainError):
            return super().failure(job_id, error)
        message = "internal error; the server's log says more"
        metadata = {"build_id": job_id, "type": type(error).__name__}
        return JobError(code="INTERNAL", reason="INTERNAL", message=message, metadata=metadata)

    def _built(self, run: Run) -> BuildResult:
        """What comes of a build, begun again a few times if what it needs can be had by that."""
        retries = 0
        while True:
            dataset = run.retry(lambda: self._repository.by_build(run.job_id))
            try:
                return self._build(dataset, run)
            except DomainError as error:
                if retries == _MOST_RETRIES or not self._may_go_on(error, dataset, run):
                    raise
            run.pause(_RETRY_PAUSE_S * 2**retries)
            retries += 1

    def _may_go_on(self, error: DomainError, dataset: Dataset, run: Run) -> bool:
        """Whether a build that failed by ``error`` may do better now, from a newer snapshot if need be."""
        if error.reason == "SNAPSHOT_INCOMPLETE" and dataset.snapshot_open:
            as_of = self._traces.resolve(dataset.spec.filter, 0)
            return run.retry(lambda: self._repository.take_snapshot(dataset, as_of))
        return error.reason == "STORAGE_UNAVAILABLE"

    def _build(self, dataset: Dataset, run: Run) -> BuildResult:
        spec = dataset.spec
        with self._own_folder(dataset.build_id) as folder:
            build = DatasetBuild(
                spec,
                template=ChatTemplate.of(spec.chat_template),
                eval_sets=[self._eval_sets.prompts(name) for name in spec.eval_sets],
                other_eval_sets=lambda: self._other_eval_sets(spec.eval_sets),
                store=self._artifacts,
                folder=folder,
                report=self._reporter(run),
                parent=self._parent(spec.parent, run),
            )
            return build.run(self._traces.traces(spec.filter, spec.as_of, run.pause))

    def _other_eval_sets(self, named: Collection[str]) -> Iterator[EvalPrompts]:
        for name in self._eval_sets.names():
            if name not in named:
                yield self._eval_sets.prompts(name)

    def _parent(self, name: str, run: Run) -> Parent | None:
        if not name:
            return None
        dataset_id, _, version = name.removeprefix("datasets/").partition("@")
        dataset = run.retry(lambda: self._repository.find(dataset_id, version))
        if dataset is None or dataset.result is None:
            raise FailedPrecondition(f"the parent {name} is not complete", reason="DATASET_NOT_READY")
        return parent_of(self._artifacts, dataset.result)

    @contextmanager
    def _own_folder(self, build_id: str) -> Iterator[Path]:
        """An empty folder of this run's own, in place of those that earlier servers left of the build."""
        for left in self._folder.glob(f"{build_id}*"):
            shutil.rmtree(left, ignore_errors=True)
        with storage_errors(str(self._folder)):
            folder = Path(tempfile.mkdtemp(prefix=f"{build_id}.", dir=self._folder))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _reporter(self, run: Run) -> Callable[[Progress], None]:
        told, stage = 0.0, ""

        def report(progress: Progress) -> None:
            nonlocal told, stage
            run.check()
            now = time.monotonic()
            if progress.stage != stage or progress.completed == progress.total or now - told >= _PROGRESS_S:
                # A database that is away costs the watchers a figure, not the build.
                with suppress(DomainError):
                    self._repository.set_progress(run.job_id, progress)
                told, stage = time.monotonic(), progress.stage

        return report

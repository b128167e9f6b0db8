"""What the use cases need of the world: a trace store, eval sets, and a place to remember datasets."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Protocol

from tunix_rt_exporter.datasets.model import BuildResult, Dataset, DatasetSpec, EvalPrompts, SourceTrace
from tunix_rt_kit.values import JobError, JobState, Progress, RequestKey, StoredFile

Filter = Mapping[str, Any]


class TraceSource(Protocol):
    """The trace store."""

    def resolve(self, wanted: Filter, as_of: int) -> int:
        """The number of the snapshot, the newest for 0.

        Raises InvalidArgument for a filter or snapshot that the store refuses, Unavailable.
        """

    def unchanged_since(self, wanted: Filter, as_of: int) -> bool:
        """Whether the newest snapshot holds exactly the matching traces of the snapshot ``as_of``."""

    def traces(
        self, wanted: Filter, as_of: int, pause: Callable[[float], None]
    ) -> Iterator[Sequence[SourceTrace]]:
        """The matching traces of a snapshot in the order of commits, by parts.

        While the store is away, ``pause`` is called with seconds to wait, and may raise to give up. Raises
        Unavailable after too long a time, FailedPrecondition if traces of the snapshot were deleted.
        """


class EvalSetSource(Protocol):
    """The evaluator."""

    def names(self) -> Iterator[str]:
        """The names of all eval sets, newest first; raises Unavailable."""

    def prompts(self, name: str) -> EvalPrompts:
        """The prompts of an eval set; raises NotFound (EVAL_SET_NOT_FOUND), Unavailable."""


class DatasetRepository(Protocol):
    """Where datasets are remembered."""

    def create(self, spec: DatasetSpec, request: RequestKey, rebuild: Callable[[Dataset], bool]) -> Dataset:
        """The dataset of the spec's name and version, queued if it is new or ``rebuild`` of the stored one
        is true. ``rebuild`` may raise to refuse. Raises AlreadyExists(REQUEST_ID_REUSED)."""

    def find(self, dataset_id: str, version: str) -> Dataset | None:
        """The dataset, or None."""

    def by_build(self, build_id: str) -> Dataset | None:
        """The dataset of a build, or None if it has another build by now."""

    def newest(self, before: int | None, limit: int) -> list[Dataset]:
        """Up to ``limit`` datasets, newest first, with number below ``before``."""

    def in_states(self, states: Collection[JobState]) -> list[Dataset]:
        """The datasets in one of these states, oldest first."""

    def move(
        self,
        build_id: str,
        states: Collection[JobState],
        to: JobState,
        *,
        failure: JobError | None = None,
        result: BuildResult | None = None,
    ) -> bool:
        """Change the state of a build if it is one of ``states``; says whether it was."""

    def set_progress(self, build_id: str, progress: Progress) -> None:
        """Remember how far a build has come."""


class DerivedFiles(Protocol):
    """Which derived file belongs to which dataset."""

    def find(self, dataset_digest: str, path: str) -> StoredFile | None:
        """The file that was bound to this path of the dataset, or None."""

    def bind(self, dataset_digest: str, file: StoredFile) -> StoredFile:
        """Bind a file to its path unless one is bound already; returns the one that is."""

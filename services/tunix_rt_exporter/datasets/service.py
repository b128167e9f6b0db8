"""What the exporter does."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, Protocol, TypeVar

from pydantic import ValidationError

from tunix_rt_exporter.datasets.derived import DatasetFiles
from tunix_rt_exporter.datasets.model import (
    BuildResult,
    Dataset,
    DatasetFilter,
    DatasetFormat,
    DatasetSpec,
    Download,
    EvalSetSource,
    TraceSource,
    TraceUse,
)
from tunix_rt_exporter.datasets.rows import RowPlaces, stored_places
from tunix_rt_exporter.datasets.write import trace_use
from tunix_rt_kit.artifacts import ArtifactStore
from tunix_rt_kit.canonical import digest_bytes, digest_json
from tunix_rt_kit.chat import ChatTemplate
from tunix_rt_kit.errors import (
    AlreadyExists,
    DataLoss,
    FailedPrecondition,
    FieldViolation,
    InvalidArgument,
    NotFound,
    check_ended,
    check_living,
    check_unused,
    not_found,
)
from tunix_rt_kit.jobs.engine import JobEngine, JobStore
from tunix_rt_kit.serving.requests import (
    Paging,
    Violations,
    checked_labels,
    field_path,
    field_problems,
    listed,
    parse_names,
)
from tunix_rt_kit.values import (
    NO_LABELS,
    JobError,
    JobState,
    ListAsked,
    Order,
    Page,
    Position,
    Progress,
    RequestKey,
    StoredFile,
    Value,
)

DATASET_NAME: Final = "datasets/{dataset_id}@{version}"
ValueT = TypeVar("ValueT", bound=Value)

CHUNK_BYTES: Final = 1 << 20
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_MOST_COUNTED: Final = 1_000
_INDEXING_S: Final = 2.0


class DatasetRepository(JobStore, Protocol):
    """Where datasets are kept, and the queue of their builds."""

    def create(
        self,
        spec: DatasetSpec,
        request: RequestKey,
        rebuild: Callable[[Dataset], bool],
        *,
        snapshot_open: bool = False,
        labels: Mapping[str, Any] = NO_LABELS,
    ) -> Dataset:
        """The dataset of the spec's name and version, queued if it is new or ``rebuild`` of the stored one
        is true. ``rebuild`` may raise to refuse. Raises AlreadyExists(REQUEST_ID_REUSED).

        ``snapshot_open`` says that another snapshot than the spec's would do as well; ``labels`` take the
        place of those that a stored one has.
        """

    def find(self, dataset_id: str, version: str) -> Dataset | None:
        """The dataset, or None."""

    def by_build(self, build_id: str) -> Dataset:
        """The dataset of a build that has not ended."""

    def delete(
        self, dataset_id: str, version: str, check: Callable[[Dataset, Mapping[str, bool]], None]
    ) -> None:
        """Mark a dataset as deleted, unless ``check`` raises.

        ``check`` is given the dataset and those that name it as their parent, each with whether it is still
        built; none comes, and none of it changes, before the mark is there.
        """

    def page(
        self, wanted: DatasetFilter, order: Order, after: Position | None, limit: int
    ) -> Sequence[tuple[Dataset, Position]]:
        """Up to ``limit`` datasets that are wanted, in that order, from behind ``after`` on."""

    def set_labels(self, dataset_id: str, version: str, labels: Mapping[str, Any]) -> bool:
        """Change what people call a dataset; returns whether it is there."""

    def change_state(
        self,
        job_id: str,
        expected: Sequence[JobState],
        state: JobState,
        *,
        error: JobError | None = None,
        result: BuildResult | None = None,
    ) -> bool:
        """Set a build's state if it is one of ``expected``; returns whether it was."""

    def take_snapshot(self, dataset: Dataset, as_of: int) -> bool:
        """Have the dataset made of another snapshot, if nobody asked for its present one by number; returns
        whether that is so."""

    def set_progress(self, build_id: str, progress: Progress) -> None:
        """Keep how far a build has come."""

    def keep_places(self, dataset: Dataset, places: RowPlaces) -> None:
        """Keep where the traces of a dataset went, unless it is not that build any more."""

    def without_places(self, before: int | None) -> Dataset | None:
        """The newest complete dataset, with number below ``before``, of whose traces that is not kept."""

    def places(
        self, digest: bytes, after: int, before: int | None, limit: int
    ) -> Sequence[tuple[Dataset, int, int]]:
        """Up to ``limit`` complete datasets, newest first, with number above ``after`` and below ``before``,
        in which the content of this digest went somewhere: its place and row number there."""


class ExporterService:
    """The use cases.

    Args:
        repository: where datasets are remembered.
        traces: the trace store.
        eval_sets: the evaluator.
        artifacts: where the files of datasets are.
        files: finds, and where need be makes, the file of a split in a format.
        engine: runs the builds.
    """

    def __init__(
        self,
        repository: DatasetRepository,
        *,
        traces: TraceSource,
        eval_sets: EvalSetSource,
        artifacts: ArtifactStore,
        files: DatasetFiles,
        engine: JobEngine,
    ) -> None:
        self._repository = repository
        self._traces = traces
        self._eval_sets = eval_sets
        self._artifacts = artifacts
        self._files = files
        self._engine = engine

    def create_dataset(
        self, fields: dict[str, Any], request_id: str, labels: Mapping[str, Any] = NO_LABELS
    ) -> Dataset:
        """Start to build a dataset, or give back the one that is stored for the same spec.

        Raises InvalidArgument (SPEC_INVALID, FILTER_INVALID, AS_OF_INVALID, CHAT_TEMPLATE_...) that names
        each wrong field, NotFound(EVAL_SET_NOT_FOUND), AlreadyExists (DATASET_VERSION_BOUND,
        REQUEST_ID_REUSED), Unavailable.
        """
        asked, labels = checked_spec(fields), checked_labels(labels)
        body = asked.model_dump(mode="json")
        request = RequestKey(
            "CreateDataset", request_id, digest_json({"spec": body, **labels} if labels else body)
        )
        for index, name in enumerate(asked.eval_sets):
            with naming(f"spec.eval_sets[{index}]"):
                self._eval_sets.prompts(name)
        self._check_parent(asked)
        spec = asked.model_copy(update={"as_of": self._snapshot(asked)})
        try:
            dataset = self._repository.create(
                spec,
                request,
                lambda stored: _rebuilds(stored, spec),
                snapshot_open=not asked.as_of,
                labels=labels,
            )
        except AlreadyExists as error:
            raise self._explained(error, asked) from None
        if dataset.state is JobState.QUEUED:
            self._engine.wake()
        return dataset

    def get_dataset(self, name: str, field: str = "name") -> Dataset:
        """One dataset by its resource name; raises NotFound(DATASET_NOT_FOUND)."""
        parts = parse_names(DATASET_NAME, name, field)
        dataset = self._repository.find(parts["dataset_id"], parts["version"])
        if dataset is None:
            raise not_found(name, "DATASET", field)
        return dataset

    def list_datasets(self, asked: ListAsked) -> Page[Dataset]:
        """One page of those that are wanted, the newest first unless another order is asked for."""
        return listed("ListDatasets", DatasetFilter, asked, self._repository.page)

    def update_dataset(self, name: str, labels: Mapping[str, Any]) -> Dataset:
        """Change what people call a dataset: those of its labels that are given."""
        parts = parse_names(DATASET_NAME, name, "dataset.name")
        self._repository.set_labels(**parts, labels=checked_labels(labels, "dataset"))
        return self.get_dataset(name, "dataset.name")

    def cancel_dataset(self, name: str) -> Dataset:
        """Ask a build to stop; one that has ended is returned as it is."""
        # Again if a server took the build up, or gave it back, in between.
        while (dataset := self.get_dataset(name)).state in (JobState.QUEUED, JobState.RUNNING):
            self._repository.change_state(dataset.build_id, [JobState.QUEUED], JobState.CANCELLED)
            self._repository.change_state(dataset.build_id, [JobState.RUNNING], JobState.CANCELLING)
        if not dataset.state.ended:
            self._engine.cancel(dataset.build_id)
        return dataset

    def delete_dataset(self, name: str, *, force: bool) -> Dataset:
        """Delete a dataset; what it was stays on record.

        Raises NotFound(DATASET_NOT_FOUND), also if it is deleted already; FailedPrecondition:
        DATASET_RUNNING, it is still built; DATASET_IN_USE, others were derived from it, and not ``force``, or
        are derived now.
        """
        parts = parse_names(DATASET_NAME, name)
        self._living(name)

        def check(dataset: Dataset, children: Mapping[str, bool]) -> None:
            _check_living(dataset)
            check_ended(name, "DATASET", dataset.state, f"tunix-rt dataset cancel {dataset.spec.key}")
            check_unused(name, "DATASET", children, force=force)

        self._repository.delete(parts["dataset_id"], parts["version"], check)
        return self.get_dataset(name)

    def _living(self, name: str) -> Dataset:
        dataset = self.get_dataset(name)
        _check_living(dataset)
        return dataset

    def read_dataset(self, name: str, split: str, kind: DatasetFormat, offset: int) -> Download:
        """One split in one format, from byte ``offset`` on. A derived format is made by its first reader.

        Raises FailedPrecondition(DATASET_NOT_READY), InvalidArgument (SPLIT_UNKNOWN, OFFSET_INVALID), and
        DataLoss if the file is gone or, at its end, if it is damaged.
        """
        dataset, result = self.complete_dataset(name)
        splits = {entry.split: entry for entry in result.splits}
        if split not in splits:
            raise InvalidArgument.of_field(
                "split", f"is {split!r}; one of {', '.join(splits)} would be right", reason="SPLIT_UNKNOWN"
            )
        file = self._files.get(dataset, result, splits[split], kind)
        return self._download(file, f"{dataset.spec.key}-{file.path.replace('/', '.')}", offset)

    def read_dropped_rows(self, name: str, offset: int) -> Download:
        """The report of what a build left out; empty when nothing was. Raises as ``read_dataset``."""
        dataset, result = self.complete_dataset(name)
        file = result.dropped_rows
        if file is None:
            file = StoredFile(path="dropped.jsonl", size_bytes=0, digest=digest_bytes(b""), uri="")
        return self._download(file, f"{dataset.spec.key}-dropped.jsonl", offset)

    def list_trace_uses(
        self, content_digest: str, size: int, page_token: str
    ) -> tuple[Page[TraceUse], Sequence[str]]:
        """One page of the complete datasets that a trace went into or was left out of, newest first, and the
        names of those that cannot be read.

        The rows of datasets of earlier versions are looked up in their files, once, for some seconds a call:
        then the page ends before the first whose rows are not known yet.

        Raises InvalidArgument(CONTENT_DIGEST_INVALID).
        """
        digits = content_digest.removeprefix("sha256:")
        if not _DIGEST.fullmatch(digits):
            problem = f"is {_shown(content_digest)}; sha256: and 64 hex digits would be right"
            raise InvalidArgument.of_field("content_digest", problem, reason="CONTENT_DIGEST_INVALID")
        paging = Paging(size, page_token, method="ListTraceUses", content_digest=digits)
        before = paging.after("number")
        unknown, unreadable = self._index_rows(before)
        found = self._repository.places(bytes.fromhex(digits), unknown, before, paging.limit + 1)
        page = paging.page(found, lambda entry: {"number": entry[0].number})
        if unknown and not page.next_page_token:
            page = Page(page.items, paging.token({"number": unknown + 1}))
        uses = [
            trace_use(self._artifacts, dataset, digits, place, number)
            for dataset, place, number in page.items
        ]
        return Page(uses, page.next_page_token), unreadable

    def _index_rows(self, before: int | None) -> tuple[int, Sequence[str]]:
        """Keep where the traces of older datasets went, for some seconds.

        Returns the number of the newest dataset that is left, 0 for none, and the names of those that cannot
        be read.
        """
        unreadable: list[str] = []
        began = time.monotonic()
        while (dataset := self._repository.without_places(before)) is not None:
            if time.monotonic() - began > _INDEXING_S:
                return dataset.number, unreadable
            before = dataset.number
            assert dataset.result is not None
            try:
                self._repository.keep_places(dataset, stored_places(self._artifacts, dataset.result))
            except DataLoss:
                unreadable.append(f"datasets/{dataset.spec.key}")
        return 0, unreadable

    def complete_dataset(self, name: str) -> tuple[Dataset, BuildResult]:
        """A dataset that was built, and what came of it.

        Raises NotFound(DATASET_NOT_FOUND), also if it was deleted; FailedPrecondition(DATASET_NOT_READY).
        """
        dataset = self._living(name)
        if dataset.result is None:
            raise FailedPrecondition(
                f"{name} is {dataset.state.lower()} and cannot be read; only a dataset that succeeded can",
                reason="DATASET_NOT_READY",
                metadata={"name": name, "state": dataset.state},
            )
        return dataset, dataset.result

    def _download(self, file: StoredFile, file_name: str, offset: int) -> Download:
        if not 0 <= offset <= file.size_bytes:
            right = f"0 to {file.size_bytes} bytes would be right"
            raise InvalidArgument.of_field("offset", f"is {offset}; {right}", reason="OFFSET_INVALID")
        if not file.size_bytes:
            return Download(file, file_name, iter(()))
        self._artifacts.stat(file.digest)
        return Download(file, file_name, self._artifacts.iter_chunks(file.digest, offset, CHUNK_BYTES))

    def _check_parent(self, spec: DatasetSpec) -> None:
        if not spec.parent:
            return
        with naming("spec.parent"):
            parent, _ = self.complete_dataset(spec.parent)
        for name in ("seed", "splits", "split_group"):
            if getattr(parent.spec, name) != getattr(spec, name):
                raise InvalidArgument.of_field(
                    f"spec.{name}",
                    f"differs from that of {spec.parent}, whose rows would move to other splits; "
                    f"{_shown(parent.spec.model_dump(mode='json')[name])} would be right",
                    reason="PARENT_SPLITS_DIFFER",
                )

    def _explained(self, error: AlreadyExists, asked: DatasetSpec) -> AlreadyExists:
        """``error`` in words for whoever did not set the snapshot that differs, and does not know of it."""
        stored = self._repository.find(asked.dataset_id, asked.version)
        different = error.metadata.get("fields", "").split(",")
        if asked.as_of or stored is None or "as_of" not in different:
            return error
        as_of, more = stored.spec.as_of, self._next_version(asked)
        since = self._since(stored.spec)
        way_out = f"set {more}, or as_of {as_of}"
        if different == ["as_of"]:
            key = f"datasets/{asked.key}"
            error.message = f"{key} was built from snapshot {as_of}, and {since} since: {way_out}"
        error.violations = tuple(
            FieldViolation(entry.field, f"was not set: {since} since snapshot {as_of}; {way_out}")
            if entry.field == "spec.as_of"
            else entry
            for entry in error.violations
        )
        return error

    def _since(self, spec: DatasetSpec) -> str:
        """What happened to the traces that a spec matches since its snapshot, in words."""
        added = self._traces.added_since(spec.filter, spec.as_of, _MOST_COUNTED)
        if not added:
            return "some of its traces were deleted or got other scores"
        least = "at least " if added == _MOST_COUNTED else ""
        return f"{least}{added:,} {'trace was' if added == 1 else 'traces were'} added"

    def _next_version(self, spec: DatasetSpec) -> str:
        """A version that is free, if versions are numbers."""
        if not (spec.version.isascii() and spec.version.isdecimal()):
            return "another version"
        version = int(spec.version) + 1
        while self._repository.find(spec.dataset_id, str(version)) is not None:
            version += 1
        return f"version {version}"

    def _snapshot(self, asked: DatasetSpec) -> int:
        if not asked.as_of:
            stored = self._repository.find(asked.dataset_id, asked.version)
            if (
                stored is not None
                and stored.is_bound
                and stored.spec.filter == asked.filter
                and self._traces.unchanged_since(asked.filter, stored.spec.as_of)
            ):
                return stored.spec.as_of
        return self._traces.resolve(asked.filter, asked.as_of)


def checked_spec(fields: dict[str, Any]) -> DatasetSpec:
    """The spec of a request, as far as it can be told without asking anyone; raises InvalidArgument."""
    spec = checked(DatasetSpec, fields, "spec", reason="SPEC_INVALID")
    with naming("spec.chat_template"):
        ChatTemplate.of(spec.chat_template).check()
        for token in spec.special_tokens:
            if token in spec.chat_template.system_instruction:
                raise InvalidArgument.of_field(
                    "spec.chat_template.system_instruction",
                    f"holds {token!r}, one of spec.special_tokens",
                    reason="CHAT_MARKER_IN_CONTENT",
                )
    return spec


def checked(kind: type[ValueT], fields: dict[str, Any], path: str, *, reason: str) -> ValueT:
    """``fields``, which stand at ``path`` in a request, as a value; raises InvalidArgument."""
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        violations = Violations()
        for location, description in field_problems(error):
            if location == ("selection", "count"):
                location = ("selection", fields["selection"]["strategy"])
            violations.add(field_path((path, *location)), description)
        violations.raise_if_any(reason)
        raise


@contextmanager
def naming(field: str) -> Iterator[None]:
    """An error about the request that names no field yet is one of ``field``."""
    try:
        yield
    except (InvalidArgument, NotFound, FailedPrecondition) as error:
        if not error.violations:
            error.violations = (FieldViolation(field, error.message),)
        raise


def _check_living(dataset: Dataset) -> None:
    check_living(f"datasets/{dataset.spec.key}", "DATASET", dataset.delete_time)


def _rebuilds(stored: Dataset, spec: DatasetSpec) -> bool:
    if not stored.is_bound:
        return True
    before, after = stored.spec.model_dump(mode="json"), spec.model_dump(mode="json")
    different = [name for name in after if before[name] != after[name]]
    if not different:
        # One that was deleted is built again, and must then have the digest that it had.
        return stored.delete_time is not None or stored.state in (JobState.FAILED, JobState.CANCELLED)
    raise AlreadyExists(
        f"datasets/{spec.key} is bound to another spec: {', '.join(different)} differ; use another version",
        reason="DATASET_VERSION_BOUND",
        metadata={"name": f"datasets/{spec.key}", "fields": ",".join(different)},
        violations=[
            FieldViolation(f"spec.{name}", f"is {_shown(after[name])}, but {_shown(before[name])} is stored")
            for name in different
        ],
    )


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:80] + "..."

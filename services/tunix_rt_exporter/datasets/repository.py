"""Datasets and their derived files in the database."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final

from sqlalchemy import ColumnElement, Row, and_, delete, insert, select, update
from sqlalchemy.orm import Session

from tunix_rt_exporter.datasets.model import BuildResult, Dataset, DatasetFilter, DatasetSpec
from tunix_rt_exporter.datasets.rows import RowPlaces
from tunix_rt_exporter.tables import (
    VERSION_TABLE,
    dataset_rows,
    datasets,
    derived_files,
    requests,
    supervision_audits,
)
from tunix_rt_kit.database import (
    Database,
    Listing,
    RequestLog,
    bulk_insert,
    change_labels,
    holds,
    label_values,
    row_fields,
    transaction_lock,
)
from tunix_rt_kit.errors import check_living
from tunix_rt_kit.serving.requests import new_id
from tunix_rt_kit.values import (
    NO_LABELS,
    JobError,
    JobState,
    Order,
    Position,
    Progress,
    RequestKey,
    Stored,
    StoredFile,
    subjects,
)

_LISTING: Final = Listing(
    datasets,
    datasets.c.number,
    {"name": (datasets.c.dataset_id, datasets.c.version)},
    ids=datasets.c.dataset_id + "@" + datasets.c.version,
)

_ROWS_AT_ONCE: Final = 50_000
_COMPLETE: Final = and_(datasets.c.state == JobState.SUCCEEDED, datasets.c.delete_time.is_(None))


class SqlDatasetRepository:
    """Datasets on SQLite or PostgreSQL; raises what ``Database`` raises besides what each method says."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._requests = RequestLog(requests)

    def migrate(self) -> None:
        """Bring the schema to the newest revision."""
        self._database.upgrade("tunix_rt_exporter:migrations", VERSION_TABLE)

    def create(
        self,
        spec: DatasetSpec,
        request: RequestKey,
        rebuild: Callable[[Dataset], bool],
        *,
        snapshot_open: bool = False,
        labels: Mapping[str, Any] = NO_LABELS,
    ) -> Dataset:
        def bind() -> str:
            transaction_lock(session, f"dataset {spec.key}")
            stored = _one(session, _named(spec.dataset_id, spec.version))
            if stored is None:
                _check_parent(session, spec)
                named = {"dataset_id": spec.dataset_id, "version": spec.version}
                session.execute(insert(datasets).values({**queued, **named, **label_values(labels)}))
                return spec.key
            if labels:
                _changed(session, label_values(labels), datasets.c.number == stored.number)
            if rebuild(stored):
                _check_parent(session, spec)
                digest = stored.result.digest if stored.result else stored.bound_digest
                # What is built again after it was deleted is of the very snapshot that its digest is of.
                again = {"bound_digest": digest, "snapshot_open": snapshot_open and digest is None}
                _changed(session, queued | again, datasets.c.number == stored.number)
                if stored.delete_time is not None and digest is not None:
                    _forget_audits(session, digest)
            elif stored.snapshot_open and not snapshot_open:
                # Whoever asks for this very snapshot must not get another one.
                _changed(session, {"snapshot_open": False}, datasets.c.number == stored.number)
            return spec.key

        queued = {**_queued(spec), "snapshot_open": snapshot_open}

        with self._database.write() as session:
            key, _ = self._requests.once(session, request, bind)
            dataset_id, _, version = key.partition("@")
            return _dataset(session.execute(select(datasets).where(_named(dataset_id, version))).one())

    def find(self, dataset_id: str, version: str) -> Dataset | None:
        with self._database.read() as session:
            return _one(session, _named(dataset_id, version))

    def by_build(self, build_id: str) -> Dataset:
        with self._database.read() as session:
            return _dataset(session.execute(select(datasets).where(datasets.c.build_id == build_id)).one())

    def page(
        self, wanted: DatasetFilter, order: Order, after: Position | None, limit: int
    ) -> Sequence[tuple[Dataset, Position]]:
        return _LISTING.page(self._database, wanted, order, after, limit, _dataset)

    def set_labels(self, dataset_id: str, version: str, labels: Mapping[str, Any]) -> bool:
        with self._database.write() as session:
            return change_labels(session, datasets, labels, _named(dataset_id, version))

    def delete(
        self, dataset_id: str, version: str, check: Callable[[Dataset, Mapping[str, bool]], None]
    ) -> None:
        key = f"{dataset_id}@{version}"
        with self._database.write() as session:
            transaction_lock(session, f"dataset {key}")
            stored = _one(session, _named(dataset_id, version))
            if stored is None:
                return
            check(stored, _derived(session, key))
            _changed(session, {"delete_time": datetime.now(UTC)}, datasets.c.number == stored.number)
            session.execute(delete(dataset_rows).where(dataset_rows.c.dataset_number == stored.number))

    def unfinished(self) -> Sequence[tuple[str, JobState]]:
        query = select(datasets.c.build_id, datasets.c.state).order_by(datasets.c.create_time)
        query = query.where(datasets.c.state.in_([state for state in JobState if not state.ended]))
        with self._database.read() as session:
            return [(row.build_id, JobState(row.state)) for row in session.execute(query)]

    def change_state(
        self,
        job_id: str,
        expected: Sequence[JobState],
        state: JobState,
        *,
        error: JobError | None = None,
        result: BuildResult | None = None,
    ) -> bool:
        values: dict[str, Any] = {"state": state}
        if state is JobState.QUEUED:
            values |= {"start_time": None, "progress": None}
        elif state is JobState.RUNNING:
            values["start_time"] = datetime.now(UTC)
        elif state.ended:
            values["end_time"] = datetime.now(UTC)
            values["failure"] = error.model_dump(mode="json") if error else None
            if result is not None:
                values |= {"result": result.model_dump(mode="json"), "digest": result.digest}
        with self._database.write() as session:
            where = (datasets.c.build_id == job_id, datasets.c.state.in_(expected))
            return _changed(session, values, *where)

    def stored(self) -> list[Stored]:
        """All datasets, their audits and files that were derived from them as what they take of the disk."""
        found, living = [], {}
        with self._database.read() as session:
            for dataset in map(_dataset, session.execute(select(datasets))):
                result, name = dataset.result, f"datasets/{dataset.spec.key}"
                files = [] if result is None else [result.manifest, result.dropped_rows]
                for split in result.splits if result else ():
                    files += split.files.values()
                digests = frozenset(file.digest for file in files if file)
                deleted = dataset.delete_time is not None
                unfinished = not dataset.state.ended
                found.append(Stored("dataset", name, digests, deleted=deleted, unfinished=unfinished))
                if result is not None and not deleted:
                    living[result.digest] = name
            for row in session.execute(select(derived_files)):
                digests = frozenset([str(row.file["digest"])])
                name = f"{living.get(row.dataset_digest, row.dataset_digest)} {row.path}"
                gone = row.dataset_digest not in living
                found.append(Stored("derived file", name, digests, deleted=gone, derived=True))
            for row in session.execute(select(supervision_audits)):
                name = (
                    f"{living.get(row.dataset_digest, row.dataset_digest)}/supervisionAudits/{row.audit_id}"
                )
                digests = frozenset([str(row.audit["report"]["digest"])])
                gone = row.dataset_digest not in living
                found.append(Stored("supervision audit", name, digests, deleted=gone))
        return found

    def take_snapshot(self, dataset: Dataset, as_of: int) -> bool:
        spec = dataset.spec.model_copy(update={"as_of": as_of})
        with self._database.write() as session:
            transaction_lock(session, f"dataset {spec.key}")
            where = (datasets.c.build_id == dataset.build_id, datasets.c.snapshot_open)
            return _changed(session, {"spec": spec.model_dump(mode="json")}, *where)

    def keep_places(self, dataset: Dataset, places: RowPlaces) -> None:
        build = and_(
            datasets.c.number == dataset.number,
            datasets.c.build_id == dataset.build_id,
            datasets.c.delete_time.is_(None),
        )
        own = dataset_rows.c.dataset_number == dataset.number
        waiting, behind, columns = iter(places), b"", dataset_rows.c.keys()
        more = True
        while more:
            batch = list(islice(waiting, _ROWS_AT_ONCE))
            more = len(batch) == _ROWS_AT_ONCE
            here = [own, dataset_rows.c.digest > behind]
            if more:
                behind = batch[-1][0]
                here.append(dataset_rows.c.digest <= behind)
            # Some at a time: others want to write, too. Each part takes the place of what another server, or
            # a build that failed, left of it, so that the last one finds all of them there.
            with self._database.write() as session:
                transaction_lock(session, f"rows of dataset {dataset.number}")
                if not _changed(session, {"rows_indexed": not more}, build):
                    # It was deleted, or is built anew.
                    return
                session.execute(delete(dataset_rows).where(*here))
                rows = [dict(zip(columns, (dataset.number, *row), strict=True)) for row in batch]
                bulk_insert(session, dataset_rows, rows)

    def without_places(self, before: int | None) -> Dataset | None:
        query = select(datasets).where(_COMPLETE, datasets.c.rows_indexed.is_(False))
        if before is not None:
            query = query.where(datasets.c.number < before)
        with self._database.read() as session:
            row = session.execute(query.order_by(datasets.c.number.desc()).limit(1)).one_or_none()
            return None if row is None else _dataset(row)

    def places(
        self, digest: bytes, after: int, before: int | None, limit: int
    ) -> Sequence[tuple[Dataset, int, int]]:
        here = and_(dataset_rows.c.dataset_number == datasets.c.number, dataset_rows.c.digest == digest)
        query = (
            select(datasets, dataset_rows.c.place, dataset_rows.c.row_number)
            .join(dataset_rows, here)
            .where(_COMPLETE, datasets.c.number > after)
            .order_by(datasets.c.number.desc())
            .limit(limit)
        )
        if before is not None:
            query = query.where(datasets.c.number < before)
        with self._database.read() as session:
            return [(_dataset(row), row.place, row.row_number) for row in session.execute(query)]

    def set_progress(self, build_id: str, progress: Progress) -> None:
        with self._database.write() as session:
            _changed(session, {"progress": progress.model_dump(mode="json")}, datasets.c.build_id == build_id)


class SqlDerivedFiles:
    """Derived files on SQLite or PostgreSQL; raises what ``Database`` raises."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, dataset_digest: str, path: str) -> StoredFile | None:
        with self._database.read() as session:
            return _file(session, dataset_digest, path)

    def bind(self, dataset_digest: str, file: StoredFile) -> StoredFile:
        with self._database.write() as session:
            transaction_lock(session, f"derived {dataset_digest} {file.path}")
            bound = _file(session, dataset_digest, file.path)
            if bound is not None:
                return bound
            session.execute(
                insert(derived_files).values(
                    dataset_digest=dataset_digest,
                    path=file.path,
                    file=file.model_dump(mode="json"),
                    create_time=datetime.now(UTC),
                )
            )
            return file


def _named(dataset_id: str, version: str) -> ColumnElement[bool]:
    return and_(datasets.c.dataset_id == dataset_id, datasets.c.version == version)


def _forget_audits(session: Session, digest: str) -> None:
    """Forget the audits of a content that is built again, whose reports may be freed; another dataset of this
    content keeps them."""
    same = and_(datasets.c.digest == digest, datasets.c.delete_time.is_(None))
    if session.execute(select(datasets.c.number).where(same)).first() is None:
        session.execute(delete(supervision_audits).where(supervision_audits.c.dataset_digest == digest))


def _check_parent(session: Session, spec: DatasetSpec) -> None:
    """Refuse a dataset whose parent was deleted since it was looked at; the parent then stays until the
    session's end."""
    if not spec.parent:
        return
    key = spec.parent.removeprefix("datasets/")
    transaction_lock(session, f"dataset {key}")
    dataset_id, _, version = key.partition("@")
    parent = _one(session, _named(dataset_id, version))
    if parent is not None:
        check_living(spec.parent, "DATASET", parent.delete_time)


def _derived(session: Session, key: str) -> dict[str, bool]:
    """The datasets that are derived from one, and whether each is still built."""
    table, dialect = datasets.c, session.get_bind().dialect.name
    from_it = holds(table.subjects, f"parents datasets/{key}", dialect)
    query = select(table.dataset_id, table.version, table.state).where(table.delete_time.is_(None), from_it)
    return {
        f"datasets/{row.dataset_id}@{row.version}": not JobState(row.state).ended
        for row in session.execute(query)
    }


def _queued(spec: DatasetSpec) -> dict[str, Any]:
    about = {"parents": [spec.parent], "eval_sets": spec.eval_sets}
    return {
        "build_id": new_id(),
        "state": JobState.QUEUED,
        "spec": spec.model_dump(mode="json"),
        "progress": None,
        "failure": None,
        "result": None,
        "digest": None,
        "create_time": datetime.now(UTC),
        "start_time": None,
        "end_time": None,
        "rows_indexed": False,
        "delete_time": None,
        "subjects": subjects(datasets=[f"datasets/{spec.key}"], **about),
    }


def _changed(session: Session, values: Mapping[str, Any], *where: ColumnElement[bool]) -> bool:
    """Set values of the dataset of which ``where`` is true; returns whether there is one."""
    statement = update(datasets).where(*where).values(values).returning(datasets.c.number)
    return bool(session.execute(statement).all())


def _one(session: Session, where: ColumnElement[bool]) -> Dataset | None:
    row = session.execute(select(datasets).where(where)).one_or_none()
    return None if row is None else _dataset(row)


def _dataset(row: Row[Any]) -> Dataset:
    return Dataset.model_validate(row_fields(row, Dataset))


def _file(session: Session, dataset_digest: str, path: str) -> StoredFile | None:
    found = session.execute(
        select(derived_files.c.file).where(
            derived_files.c.dataset_digest == dataset_digest, derived_files.c.path == path
        )
    ).one_or_none()
    return None if found is None else StoredFile.model_validate(found.file)

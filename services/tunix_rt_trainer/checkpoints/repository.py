"""Checkpoints and their exports in the database."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import delete, insert, or_, select, update

from tunix_rt_kit.database import Database, Ordered, holds, made_between, row_fields
from tunix_rt_kit.errors import check_living, not_found
from tunix_rt_kit.values import JobState, Order, Position, Stored, StoredFile
from tunix_rt_trainer.checkpoints.model import (
    Checkpoint,
    CheckpointFilter,
    ExportFormat,
    checkpoint_name,
)
from tunix_rt_trainer.tables import checkpoints, exports, jobs

_LIST: Final = Ordered(
    checkpoints,
    (checkpoints.c.job_id, checkpoints.c.step),
    {"base_model": (jobs.c.base_model,), "dataset": (jobs.c.dataset,)},
)
_ENDED: Final = [state.value for state in JobState if state.ended]


class SqlCheckpointRepository:
    """Checkpoints on SQLite or PostgreSQL; raises what ``Database`` raises besides what each method says."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, checkpoint: Checkpoint, *, best: bool) -> None:
        """Store a checkpoint as the job's latest, and as its best one if it is; one of the same step by an
        earlier attempt is replaced."""
        job_id, step = checkpoint.job_id, checkpoint.step
        values = checkpoint.model_dump(mode="json", exclude={"create_time"})
        with self._database.write() as session:
            same = (checkpoints.c.job_id == job_id, checkpoints.c.step == step)
            query = select(checkpoints.c.digest).where(*same, checkpoints.c.delete_time.is_(None))
            if session.execute(query).scalar_one_or_none() != checkpoint.digest:
                session.execute(delete(exports).where(exports.c.job_id == job_id, exports.c.step == step))
            session.execute(delete(checkpoints).where(*same))
            session.execute(insert(checkpoints).values(**values, create_time=checkpoint.create_time))
            latest: dict[str, Any] = {"checkpoint_step": step}
            if best:
                latest["best_checkpoint_step"] = step
            session.execute(update(jobs).where(jobs.c.id == job_id).values(**latest))

    def get(self, job_id: str, step: int) -> Checkpoint:
        """One checkpoint; raises NotFound(CHECKPOINT_NOT_FOUND)."""
        with self._database.read() as session:
            row = session.execute(
                select(checkpoints).where(checkpoints.c.job_id == job_id, checkpoints.c.step == step)
            ).one_or_none()
        if row is None:
            raise not_found(checkpoint_name(job_id, step), "CHECKPOINT")
        return _checkpoint(row)

    def export(self, job_id: str, step: int, format_: ExportFormat) -> Sequence[StoredFile] | None:
        """The files of a checkpoint in a format, or None if it was not exported so."""
        where = (exports.c.job_id == job_id, exports.c.step == step, exports.c.format == format_)
        with self._database.read() as session:
            files = session.execute(select(exports.c.files).where(*where)).scalar_one_or_none()
        return None if files is None else [StoredFile.model_validate(entry) for entry in files]

    def add_export(self, job_id: str, step: int, format_: ExportFormat, files: Sequence[StoredFile]) -> None:
        """Store the files of a checkpoint in a format, in place of those that were there."""
        where = (exports.c.job_id == job_id, exports.c.step == step, exports.c.format == format_)
        stored = [file.model_dump(mode="json") for file in files]
        values = {"job_id": job_id, "step": step, "format": format_, "files": stored}
        living = select(checkpoints.c.delete_time).where(
            checkpoints.c.job_id == job_id, checkpoints.c.step == step
        )
        with self._database.write() as session:
            # Locked, so that it is not deleted meanwhile.
            found = session.execute(living.with_for_update()).one_or_none()
            if found is None:
                raise not_found(checkpoint_name(job_id, step), "CHECKPOINT")
            check_living(checkpoint_name(job_id, step), "CHECKPOINT", found.delete_time)
            session.execute(delete(exports).where(*where))
            session.execute(insert(exports).values(**values))

    def delete(self, job_id: str, step: int) -> bool:
        """Mark a checkpoint, and with it its exports, as deleted, if it is there and its job has ended;
        returns whether it was."""
        ended = select(jobs.c.id).where(jobs.c.id == job_id, jobs.c.state.in_(_ENDED)).with_for_update()
        where = (checkpoints.c.job_id == job_id, checkpoints.c.step == step)
        with self._database.write() as session:
            # Locked, so that it is not resumed meanwhile.
            if session.execute(ended).one_or_none() is None:
                return False
            changed = session.connection().execute(
                update(checkpoints)
                .where(*where, checkpoints.c.delete_time.is_(None))
                .values(delete_time=datetime.now(UTC))
            )
        return changed.rowcount == 1

    def stored(self) -> list[Stored]:
        """All checkpoints and their exports as what they take of the disk."""
        found, deleted = [], set()
        with self._database.read() as session:
            for row in session.execute(select(checkpoints)):
                files = [*row.files, row.manifest_file]
                name = checkpoint_name(row.job_id, row.step)
                digests = frozenset(str(file["digest"]) for file in files)
                found.append(Stored("checkpoint", name, digests, deleted=row.delete_time is not None))
                if row.delete_time is not None:
                    deleted.add(name)
            for row in session.execute(select(exports)):
                name = checkpoint_name(row.job_id, row.step)
                digests = frozenset(str(file["digest"]) for file in row.files)
                shown = f"{name} {row.format}"
                found.append(Stored("export", shown, digests, deleted=name in deleted, derived=True))
        return found

    def page(
        self, job_id: str | None, wanted: CheckpointFilter, order: Order, after: Position | None, limit: int
    ) -> list[tuple[Checkpoint, Position]]:
        """Up to ``limit`` checkpoints of a job, or of all jobs, in an order, from behind a place on; those
        that were deleted are left out unless ``show_deleted``."""
        where = [jobs.c.id == checkpoints.c.job_id, *made_between(checkpoints.c.create_time, wanted)]
        if job_id is not None:
            where.append(checkpoints.c.job_id == job_id)
        if not wanted.show_deleted:
            where.append(checkpoints.c.delete_time.is_(None))
        if wanted.base_models:
            where.append(jobs.c.base_model.in_(wanted.base_models))
        if wanted.datasets:
            dialect = self._database.dialect
            where.append(
                or_(*(holds(jobs.c.subjects, f"datasets {name}", dialect) for name in wanted.datasets))
            )
        with self._database.read() as session:
            rows = _LIST.rows(session, where, order, after, limit)
        return [(_checkpoint(row), place) for row, place in rows]


def _checkpoint(row: Any) -> Checkpoint:
    return Checkpoint.model_validate(row_fields(row, Checkpoint))

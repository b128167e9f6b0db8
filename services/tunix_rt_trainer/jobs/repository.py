"""Training jobs in the database."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from sqlalchemy import insert, select, update
from sqlalchemy.orm import Session

from tunix_rt_kit.database import Database, Listing, RequestLog, change_labels, label_values, row_fields
from tunix_rt_kit.errors import not_found
from tunix_rt_kit.values import (
    JobError,
    JobState,
    Order,
    Position,
    RequestKey,
    Stored,
    subjects,
)
from tunix_rt_trainer.jobs.model import (
    JobUpdate,
    QueuedJob,
    TrainingAttempt,
    TrainingInput,
    TrainingJob,
    TrainingJobFilter,
)
from tunix_rt_trainer.tables import NO_LOSS, VERSION_TABLE, checkpoints, jobs, requests

_ACTIVE = (JobState.QUEUED.value, JobState.RUNNING.value, JobState.CANCELLING.value)
_LISTING: Final = Listing(jobs, jobs.c.id)


class SqlJobRepository:
    """Jobs on SQLite or PostgreSQL; raises what ``Database`` raises besides what each method says.

    A change of state names the states that it may follow, so of two at the same time one comes first.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._requests = RequestLog(requests)

    def migrate(self) -> None:
        """Bring the schema to the newest revision."""
        self._database.upgrade("tunix_rt_trainer:migrations", VERSION_TABLE)

    def requested(self, request: RequestKey) -> str | None:
        """Id of the job that a request made before; raises AlreadyExists(REQUEST_ID_REUSED)."""
        # A write, after which the call is carried to its end: who asks by request id may come back for it.
        with self._database.write() as session:
            return self._requests.made(session, request)

    def create(self, job: TrainingJob, inputs: TrainingInput, request: RequestKey) -> str:
        """Store a job, once for each request id, and return its id.

        Raises AlreadyExists(REQUEST_ID_REUSED).
        """
        with self._database.write() as session:
            return self._requests.once(session, request, lambda: _insert(session, job, inputs))[0]

    def get(self, job_id: str) -> TrainingJob:
        """One job; raises NotFound(TRAINING_JOB_NOT_FOUND)."""
        with self._database.read() as session:
            return _job(_row(session, job_id))

    def queued(self, job_id: str) -> QueuedJob:
        """What is needed to run a job; raises NotFound(TRAINING_JOB_NOT_FOUND)."""
        with self._database.read() as session:
            row = _row(session, job_id)
        return QueuedJob(_job(row), TrainingInput.model_validate(row.inputs))

    def page(
        self, wanted: TrainingJobFilter, order: Order, after: Position | None, limit: int
    ) -> Sequence[tuple[TrainingJob, Position]]:
        """Up to ``limit`` jobs that are wanted, in that order, from behind ``after`` on."""
        return _LISTING.page(self._database, wanted, order, after, limit, _job)

    def set_labels(self, job_id: str, labels: Mapping[str, Any]) -> None:
        """Change what people call a job; raises NotFound(TRAINING_JOB_NOT_FOUND)."""
        with self._database.write() as session:
            _row(session, job_id)
            change_labels(session, jobs, labels, jobs.c.id == job_id)

    def unfinished(self) -> Sequence[tuple[str, JobState]]:
        query = select(jobs.c.id, jobs.c.state).where(jobs.c.state.in_(_ACTIVE)).order_by(jobs.c.id)
        with self._database.read() as session:
            return [(row.id, JobState(row.state)) for row in session.execute(query)]

    def state(self, job_id: str) -> JobState:
        with self._database.read() as session:
            return JobState(session.execute(select(jobs.c.state).where(jobs.c.id == job_id)).scalar_one())

    def change_state(
        self,
        job_id: str,
        expected: Sequence[JobState],
        state: JobState,
        *,
        attempts: Sequence[TrainingAttempt] = (),
        error: JobError | None = None,
    ) -> bool:
        """Set a job's state if it is one of ``expected``; returns whether it was.

        An ended job gets its end time. A queued one loses how it had ended, and what its last attempt told of
        its progress. ``attempts``, if any, are all starts of the job, of which the last one has just begun.
        """
        values: dict[str, Any] = {"state": state.value}
        if attempts:
            values["attempt_count"] = attempts[-1].number
            values["start_time"] = attempts[-1].start_time
            values["attempts"] = [_dump(attempt) for attempt in attempts]
        if error is not None:
            values["error"] = error.model_dump(mode="json")
        if state.ended:
            values["end_time"] = datetime.now(UTC)
        if state is JobState.QUEUED:
            values |= {"progress": None, "stage_timings": [], "error": None, "end_time": None}
        with self._database.write() as session:
            changed = session.connection().execute(
                update(jobs)
                .where(
                    jobs.c.id == job_id,
                    jobs.c.state.in_([entry.value for entry in expected]),
                    jobs.c.delete_time.is_(None),
                )
                .values(**values)
            )
        return changed.rowcount == 1

    def delete(self, job_id: str) -> bool:
        """Mark a job and its checkpoints as deleted, if it has ended and is there; returns whether it was."""
        now = datetime.now(UTC)
        with self._database.write() as session:
            changed = session.connection().execute(
                update(jobs)
                .where(jobs.c.id == job_id, jobs.c.state.not_in(_ACTIVE), jobs.c.delete_time.is_(None))
                .values(delete_time=now)
            )
            if changed.rowcount != 1:
                return False
            of_job = (checkpoints.c.job_id == job_id, checkpoints.c.delete_time.is_(None))
            session.execute(update(checkpoints).where(*of_job).values(delete_time=now))
        return True

    def stored(self, root: Path) -> list[Stored]:
        """All jobs as what they take of the disk; ``root`` has their folders."""
        query = select(jobs.c.id, jobs.c.state, jobs.c.inputs, jobs.c.delete_time)
        found = []
        with self._database.read() as session:
            for row in session.execute(query):
                inputs = TrainingInput.model_validate(row.inputs)
                files = [file for file in (inputs.train, inputs.validation) if file is not None]
                # One that failed or was cancelled can be resumed.
                over = row.state == JobState.SUCCEEDED or row.delete_time is not None
                found.append(
                    Stored(
                        "training job",
                        f"trainingJobs/{row.id}",
                        needs=frozenset() if over else frozenset(file.digest for file in files),
                        folder=str(root / row.id),
                        deleted=row.delete_time is not None,
                        unfinished=row.state in _ACTIVE,
                    )
                )
        return found

    def base_models(self) -> Sequence[tuple[str, str, bool]]:
        """What needs a base model: of each the resource name, the base model as its job names it, and whether
        it still runs."""
        running = select(jobs.c.id, jobs.c.spec).where(jobs.c.state.in_(_ACTIVE))
        left = (
            select(checkpoints.c.job_id, checkpoints.c.step, jobs.c.spec)
            .join(jobs, jobs.c.id == checkpoints.c.job_id)
            .where(checkpoints.c.delete_time.is_(None), jobs.c.state.not_in(_ACTIVE))
        )
        with self._database.read() as session:
            found = [(f"trainingJobs/{row.id}", row.spec, True) for row in session.execute(running)]
            for row in session.execute(left):
                found.append((f"trainingJobs/{row.job_id}/checkpoints/{row.step}", row.spec, False))
        # All weights of a model stand in its own checkpoint.
        return [
            (name, spec["base_model"], runs)
            for name, spec, runs in found
            if runs or spec.get("lora") is not None
        ]

    def save(self, job_id: str, update_: JobUpdate) -> None:
        """Store how far a job has come."""
        values: dict[str, Any] = {
            "progress": _dump(update_.progress),
            "latest_metrics": _dump(update_.latest_metrics),
            "stage_timings": [_dump(timing) for timing in update_.stage_timings],
        }
        if update_.latest_metrics is not None:
            loss = update_.latest_metrics.loss
            values["loss"] = loss if math.isfinite(loss) else NO_LOSS
        if update_.spec is not None:
            values["spec"] = _dump(update_.spec)
        if update_.attempts:
            values["attempts"] = [_dump(attempt) for attempt in update_.attempts]
        with self._database.write() as session:
            session.execute(update(jobs).where(jobs.c.id == job_id).values(**values))


def _insert(session: Session, job: TrainingJob, inputs: TrainingInput) -> str:
    session.execute(
        insert(jobs).values(
            id=job.id,
            state=job.state.value,
            spec=_dump(job.spec),
            inputs=_dump(inputs),
            stage_timings=[],
            attempt_count=0,
            attempts=[],
            create_time=job.create_time,
            base_model=job.spec.base_model,
            dataset=job.spec.dataset,
            subjects=subjects(models=[job.spec.base_model], datasets=[job.spec.dataset]),
            **label_values({"display_name": job.display_name, "tags": job.tags, "note": job.note}),
        )
    )
    return job.id


def _row(session: Session, job_id: str) -> Any:
    row = session.execute(select(jobs).where(jobs.c.id == job_id)).one_or_none()
    if row is None:
        raise not_found(f"trainingJobs/{job_id}", "TRAINING_JOB")
    return row


def _job(row: Any) -> TrainingJob:
    inputs = TrainingInput.model_validate(row.inputs)
    further = {
        "dataset_digest": inputs.dataset_digest,
        "chat_template_digest": inputs.chat_template_digest,
        # Jobs from before attempts were recorded have none.
        "attempts": row.attempts or (),
    }
    return TrainingJob.model_validate(row_fields(row, TrainingJob) | further)


def _dump(value: Any) -> Any:
    return None if value is None else value.model_dump(mode="json")

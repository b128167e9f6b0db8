"""Jobs that count to a number in a database, and an engine that runs them, in this process or another.

``python -m support.fake_jobs DATABASE_URL LEASE_S`` runs jobs that never end until it is told to stop by
SIGTERM or whoever started it has ended. It prints "started", and "over" each time that it leaves a job.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Column, Integer, MetaData, String, Table, func, insert, select, update

from tunix_rt_kit.database import Database
from tunix_rt_kit.jobs.engine import JobEngine, JobKind
from tunix_rt_kit.jobs.leases import SqlLeases, lease_table
from tunix_rt_kit.jobs.run import Run
from tunix_rt_kit.values import JobError, JobState

metadata = MetaData()
jobs = Table(
    "jobs",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("state", String(16), nullable=False),
    Column("reason", String(64)),
    Column("ends", Integer, nullable=False),
)
# A step of a job is stored once: two that run it would meet here.
steps = Table(
    "steps",
    metadata,
    Column("job_id", String(36), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
)
leases = lease_table(metadata, "leases")


class Jobs:
    """The table of jobs."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def add(self, *job_ids: str, state: JobState = JobState.QUEUED) -> None:
        with self.database.write() as session:
            session.execute(insert(jobs), [{"id": name, "state": state, "ends": 0} for name in job_ids])

    def unfinished(self) -> Sequence[tuple[str, JobState]]:
        query = select(jobs.c.id, jobs.c.state).order_by(jobs.c.id)
        with self.database.read() as session:
            rows = [(row.id, JobState(row.state)) for row in session.execute(query)]
        return [(job_id, state) for job_id, state in rows if not state.ended]

    def state(self, job_id: str) -> JobState:
        with self.database.read() as session:
            return JobState(session.execute(select(jobs.c.state).where(jobs.c.id == job_id)).scalar_one())

    def change_state(
        self, job_id: str, expected: Sequence[JobState], state: JobState, *, error: JobError | None = None
    ) -> bool:
        values: dict[str, Any] = {"state": state, "reason": error.reason if error else None}
        if state.ended:
            values["ends"] = jobs.c.ends + 1
        with self.database.write() as session:
            changed = session.connection().execute(
                update(jobs).where(jobs.c.id == job_id, jobs.c.state.in_(expected)).values(values)
            )
        return changed.rowcount == 1

    def reason(self, job_id: str) -> str:
        with self.database.read() as session:
            return str(session.execute(select(jobs.c.reason).where(jobs.c.id == job_id)).scalar_one())

    def owners(self) -> dict[str, str]:
        """Whose each leased job is."""
        with self.database.read() as session:
            return {row.job_id: row.owner for row in session.execute(select(leases))}

    def ends(self, job_id: str) -> int:
        """How often the job ended."""
        with self.database.read() as session:
            return int(session.execute(select(jobs.c.ends).where(jobs.c.id == job_id)).scalar_one())

    def steps(self, job_id: str) -> int:
        """How far the job has counted."""
        with self.database.read() as session:
            query = select(func.count()).select_from(steps).where(steps.c.job_id == job_id)
            return int(session.execute(query).scalar_one())

    def add_step(self, job_id: str, number: int) -> None:
        with self.database.write() as session:
            session.execute(insert(steps).values(job_id=job_id, number=number))


class Counting(JobKind):
    """Counts to ``most``, a step every ``pause_s`` seconds, and goes on where another run of the job ended.

    ``at_step`` is called before each step. ``most`` may be set while it counts.
    """

    name = "counting"
    store: Jobs

    def __init__(
        self,
        store: Jobs,
        slots: int = 1,
        *,
        most: int = 10,
        pause_s: float = 0.02,
        at_step: Callable[[Run], object] = lambda _: None,
    ) -> None:
        super().__init__(store, slots)
        self.most = most
        self.pause_s = pause_s
        self.at_step = at_step
        self.begun: list[str] = []

    def work(self, run: Run) -> None:
        self.begun.append(run.job_id)
        store, waiting = self.store, (JobState.QUEUED, JobState.RUNNING)
        if not run.retry(lambda: store.change_state(run.job_id, waiting, JobState.RUNNING)):
            run.check()
            return
        number = run.retry(lambda: store.steps(run.job_id))
        while number < self.most:
            self.at_step(run)
            run.pause(self.pause_s)
            run.retry(lambda at=number: store.add_step(run.job_id, at))  # type: ignore[misc]
            number += 1
        states = (JobState.RUNNING, JobState.CANCELLING)
        run.record(lambda: store.change_state(run.job_id, states, JobState.SUCCEEDED))


def engine_of(kind: Counting, lease_s: float = 3_600.0, poll_s: float = 0.05) -> JobEngine:
    """An engine of its own for a kind, not started; its leases outlast any test unless told otherwise."""
    return JobEngine(SqlLeases(kind.store.database, leases, lease_s), [kind], poll_s=poll_s)


class _Endless(Counting):
    def work(self, run: Run) -> None:
        try:
            super().work(run)
        finally:
            print("over", flush=True)


def main() -> None:
    told, parent = threading.Event(), os.getppid()
    signal.signal(signal.SIGTERM, lambda *_: told.set())
    kind = _Endless(Jobs(Database(sys.argv[1])), slots=2, most=sys.maxsize)
    engine = engine_of(kind, float(sys.argv[2]))
    engine.start()
    print("started", flush=True)
    while not told.is_set() and os.getppid() == parent:
        time.sleep(0.05)
    engine.stop(5.0)


if __name__ == "__main__":
    main()

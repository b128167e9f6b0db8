"""Who has which job, in a table of the service's database."""

from __future__ import annotations

import platform
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import psutil
from sqlalchemy import (
    Boolean,
    Column,
    Float,
    MetaData,
    String,
    Table,
    delete,
    extract,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from tunix_rt_kit.database import Database
from tunix_rt_kit.database.engine import guarded
from tunix_rt_kit.jobs.engine import Lease
from tunix_rt_kit.jobs.files import is_process, machine_start, process_start
from tunix_rt_kit.jobs.run import LeaseLost

LEASE_S: Final = 30.0
"""How long a server may be silent before its jobs are another's."""
_EPOCH_DAY: Final = 2_440_587.5
_DAY_S: Final = 86_400.0


def lease_columns() -> list[Column[Any]]:
    """The columns of a service's table of leases, for its metadata and for the migration that makes it."""
    return [
        Column("job_id", String(36), primary_key=True),
        Column("owner", String(120), nullable=False),
        # By the database's clock, in seconds since 1970.
        Column("expires", Float(53), nullable=False),
        Column("at_once", Boolean, nullable=False),
    ]


def lease_table(metadata: MetaData, name: str) -> Table:
    """The table of leases in a service's metadata."""
    return Table(name, metadata, *lease_columns())


class SqlLeases:
    """The leases of one engine, on SQLite or PostgreSQL; raises what ``Database`` raises.

    Args:
        database: the service's.
        table: made by ``lease_table``.
        seconds: how long a lease lasts that is not renewed. The leases of a process of this machine that has
            ended are free at once.
    """

    def __init__(self, database: Database, table: Table, seconds: float = LEASE_S) -> None:
        self.seconds = seconds
        self._database = database
        self._table = table
        self._machine = _machine()
        process = psutil.Process()
        self._owner = f"{self._machine} {process.pid} {process_start(process.pid)} {uuid.uuid4().hex[:8]}"
        self._now: Any = extract("epoch", func.clock_timestamp())
        if database.dialect == "sqlite":
            self._now = (func.julianday("now") - _EPOCH_DAY) * _DAY_S

    def all(self) -> dict[str, Lease]:
        table = self._table
        query = select(table.c.job_id, table.c.owner, table.c.at_once, table.c.expires < self._now)
        with self._database.read() as session:
            rows = session.execute(query).all()
        return {
            job_id: Lease(
                mine=owner == self._owner, free=self._is_free(owner, bool(expired)), at_once=at_once
            )
            for job_id, owner, at_once, expired in rows
        }

    def claim(self, job_id: str) -> bool:
        table = self._table
        # Whoever has it may be writing: then it is not silent.
        query = select(table.c.owner, table.c.expires < self._now).where(table.c.job_id == job_id)
        with suppress(IntegrityError), self._write() as session:
            row = session.execute(query.with_for_update(skip_locked=True)).one_or_none()
            if row is not None:
                if not self._is_free(row[0], bool(row[1])):
                    return False
                session.execute(delete(table).where(table.c.job_id == job_id))
            expires = self._now + self.seconds
            session.execute(
                insert(table).values(job_id=job_id, owner=self._owner, expires=expires, at_once=False)
            )
            return True
        return False

    def renew(self, job_ids: Sequence[str]) -> None:
        table = self._table
        mine = (table.c.owner == self._owner, table.c.job_id.in_(job_ids))
        with self._write() as session:
            session.execute(update(table).where(*mine).values(expires=self._now + self.seconds))

    def release(self, job_id: str) -> None:
        with self._write() as session:
            session.execute(delete(self._table).where(*self._mine(job_id)))

    def end_at_once(self, job_id: str) -> None:
        with self._write() as session:
            session.execute(update(self._table).where(self._table.c.job_id == job_id).values(at_once=True))

    @contextmanager
    def held(self, job_id: str, lost: Callable[[], None]) -> Iterator[None]:
        # On PostgreSQL this lets the lease be renewed, and keeps it from being taken until the write is done.
        query = (
            select(self._table.c.owner).where(*self._mine(job_id)).with_for_update(read=True, key_share=True)
        )

        def check(session: Session) -> None:
            self._limit_idle(session)
            if session.execute(query).one_or_none() is None:
                lost()
                raise LeaseLost(job_id)

        with guarded(check):
            yield

    def confirm(self) -> None:
        # A write begins with the look at the lease.
        with self._database.write():
            pass

    @contextmanager
    def _write(self) -> Iterator[Session]:
        with self._database.write() as session:
            self._limit_idle(session)
            yield session

    def _limit_idle(self, session: Session) -> None:
        """A server that vanishes in the middle of a write must not keep a lease for longer than it lasts."""
        if self._database.dialect == "postgresql":
            limit_ms = max(0, round(self.seconds * 500))
            session.execute(text(f"SET LOCAL idle_in_transaction_session_timeout = {limit_ms}"))

    def _mine(self, job_id: str) -> tuple[Any, ...]:
        return (self._table.c.job_id == job_id, self._table.c.owner == self._owner)

    def _is_free(self, owner: str, expired: bool) -> bool:
        # What is this engine's and does not run is left from before.
        return owner == self._owner or expired or self._has_gone(owner)

    def _has_gone(self, owner: str) -> bool:
        machine, pid, start_time, _ = owner.split()
        return machine == self._machine and not is_process(int(pid), float(start_time))


def _machine() -> str:
    """What tells this machine, since its start, and this container from others."""
    try:
        return f"{machine_start()}/{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return f"{platform.node().replace(' ', '-')[:40]}/{uuid.getnode()}"

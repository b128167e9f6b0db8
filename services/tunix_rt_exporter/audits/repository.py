"""Audits in the database."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Row, and_, insert, select
from sqlalchemy.orm import Session

from tunix_rt_exporter.audits.service import StoredAudit, SupervisionAudit
from tunix_rt_exporter.tables import supervision_audits
from tunix_rt_kit.database import Database, transaction_lock


class SqlAuditRepository:
    """Audits on SQLite or PostgreSQL; raises what ``Database`` raises."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, dataset_digest: str, audit_id: str) -> StoredAudit | None:
        with self._database.read() as session:
            return _one(session, dataset_digest, audit_id)

    def store(self, audit: SupervisionAudit) -> StoredAudit:
        with self._database.write() as session:
            transaction_lock(session, f"audit {audit.dataset_digest} {audit.audit_id}")
            if _one(session, audit.dataset_digest, audit.audit_id) is None:
                session.execute(
                    insert(supervision_audits).values(
                        dataset_digest=audit.dataset_digest,
                        audit_id=audit.audit_id,
                        audit=audit.model_dump(mode="json"),
                        create_time=datetime.now(UTC),
                    )
                )
            kept = _one(session, audit.dataset_digest, audit.audit_id)
        assert kept is not None
        return kept

    def all(self, dataset_digest: str) -> list[StoredAudit]:
        """The audits of a dataset, one for each model and length."""
        query = select(supervision_audits).where(supervision_audits.c.dataset_digest == dataset_digest)
        with self._database.read() as session:
            return [_audit(row) for row in session.execute(query)]


def _one(session: Session, dataset_digest: str, audit_id: str) -> StoredAudit | None:
    table = supervision_audits
    where = and_(table.c.dataset_digest == dataset_digest, table.c.audit_id == audit_id)
    row = session.execute(select(table).where(where)).one_or_none()
    return None if row is None else _audit(row)


def _audit(row: Row[Any]) -> StoredAudit:
    return StoredAudit(row.number, row.create_time, SupervisionAudit.model_validate(row.audit))

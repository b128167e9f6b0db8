"""Derived files in the database."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from tunix_rt_exporter.tables import derived_files
from tunix_rt_kit.database import Database, transaction_lock
from tunix_rt_kit.values import StoredFile


class SqlDerivedFiles:
    """Derived files on SQLite or PostgreSQL; raises what ``Database`` raises."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, dataset_digest: str, path: str) -> StoredFile | None:
        with self._database.read() as session:
            return _one(session, dataset_digest, path)

    def bind(self, dataset_digest: str, file: StoredFile) -> StoredFile:
        with self._database.write() as session:
            transaction_lock(session, f"derived {dataset_digest} {file.path}")
            bound = _one(session, dataset_digest, file.path)
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


def _one(session: Session, dataset_digest: str, path: str) -> StoredFile | None:
    found = session.execute(
        select(derived_files.c.file).where(
            derived_files.c.dataset_digest == dataset_digest, derived_files.c.path == path
        )
    ).one_or_none()
    return None if found is None else StoredFile.model_validate(found.file)

"""Comparison reports in the database: the digests of their artifacts, and what lists show of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, insert, select

from tunix_rt_evaluator.comparisons.model import LEFT_OUT_OF_LISTS, ComparisonContent, ComparisonReport
from tunix_rt_evaluator.tables import reports
from tunix_rt_kit.database import Database, transaction_lock
from tunix_rt_kit.values import StoredFile


class SqlReportRepository:
    """Reports on SQLite or PostgreSQL; raises what ``Database`` raises."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def report(self, report_id: str) -> ComparisonReport | None:
        """One comparison report, or None."""
        with self._database.read() as session:
            row = session.execute(select(reports).where(reports.c.id == report_id)).one_or_none()
        return None if row is None else _report(row)

    def reports(self, after: str | None, limit: int) -> Sequence[ComparisonReport]:
        """Up to ``limit`` comparison reports, ordered by id, with ids above ``after``."""
        query = select(reports).order_by(reports.c.id).limit(limit)
        if after is not None:
            query = query.where(reports.c.id > after)
        with self._database.read() as session:
            return [_report(row) for row in session.execute(query)]

    def add_report(self, report: ComparisonReport) -> None:
        """Store a comparison report unless it is there."""
        with self._database.write() as session:
            transaction_lock(session, f"comparison report {report.id}")
            if session.execute(select(reports.c.id).where(reports.c.id == report.id)).first() is not None:
                return
            facts = report.content
            session.execute(
                insert(reports).values(
                    id=report.id,
                    digest=report.digest,
                    documents={name: file.model_dump(mode="json") for name, file in report.documents.items()},
                    create_time=report.create_time,
                    facts=facts and facts.model_dump(mode="json", exclude=LEFT_OUT_OF_LISTS),
                )
            )


def _report(row: Row[Any]) -> ComparisonReport:
    return ComparisonReport(
        id=row.id,
        digest=row.digest,
        create_time=row.create_time,
        content=None if row.facts is None else ComparisonContent.model_validate(row.facts),
        documents={name: StoredFile.model_validate(file) for name, file in row.documents.items()},
    )

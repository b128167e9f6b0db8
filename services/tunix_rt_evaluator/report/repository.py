"""Comparison reports: contents and documents in the artifact store; digests, and what lists show, in the
database."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from pydantic import ValidationError
from sqlalchemy import Row, delete, insert, select, update

from tunix_rt.escapes import visible_json
from tunix_rt_evaluator.comparisons.model import (
    LEFT_OUT_OF_LISTS,
    ComparisonContent,
    ComparisonReport,
    ReportFilter,
    TrainingFacts,
    TrainingStep,
    report_name,
)
from tunix_rt_evaluator.evaluations.model import CheckpointInput
from tunix_rt_evaluator.evaluations.repository import SqlEvaluationRepository, listed_by
from tunix_rt_evaluator.report.html import render_html
from tunix_rt_evaluator.report.markdown import render_markdown
from tunix_rt_evaluator.tables import reports
from tunix_rt_kit.artifacts import ArtifactStore
from tunix_rt_kit.canonical import canonical_json
from tunix_rt_kit.database import Database, Listing, change_labels, row_fields, transaction_lock
from tunix_rt_kit.errors import DataLoss
from tunix_rt_kit.values import Order, Position, Stored, StoredFile

_LISTING: Final = Listing(
    reports,
    reports.c.id,
    {"name": (reports.c.id,)},
    newest_first=False,
)

LEDGER_FILE: Final = "ledger.jsonl"
"""Of a checkpoint: the ids of the rows that each step learned from."""


class SqlReportRepository:
    """Reports on SQLite or PostgreSQL, their contents and documents as artifacts.

    Raises what ``Database`` and ``ArtifactStore`` raise.
    """

    def __init__(self, database: Database, artifacts: ArtifactStore) -> None:
        self._database = database
        self._artifacts = artifacts

    def report(self, report_id: str) -> ComparisonReport | None:
        """One comparison report, or None."""
        with self._database.read() as session:
            row = session.execute(select(reports).where(reports.c.id == report_id)).one_or_none()
        return None if row is None else _report(row)

    def page(
        self, wanted: ReportFilter, order: Order, after: Position | None, limit: int
    ) -> Sequence[tuple[ComparisonReport, Position]]:
        """Up to ``limit`` comparison reports that are wanted, in that order, from behind ``after`` on."""
        return _LISTING.page(self._database, wanted, order, after, limit, _report)

    def set_labels(self, report_id: str, labels: Mapping[str, Any]) -> None:
        """Change what people call a report, if it is there."""
        with self._database.write() as session:
            change_labels(session, reports, labels, reports.c.id == report_id)

    def add(self, report_id: str, content: ComparisonContent) -> None:
        """Render and store a report, unless it is there."""
        stored = self._artifacts.put_bytes(canonical_json(content.model_dump(mode="json")))
        documents = {}
        for name, kind in DOCUMENTS.items():
            text = kind.render(report_name(report_id), stored.digest, content)
            file = self._artifacts.put_bytes(text.encode("utf-8", "replace"))
            document = StoredFile(path=kind.file_name, size_bytes=file.size, digest=file.digest, uri=file.uri)
            documents[name] = document.model_dump(mode="json")
        sides = [content.candidate, content.base, *content.more_bases, *content.more_candidates]
        with self._database.write() as session:
            transaction_lock(session, f"comparison report {report_id}")
            compared = (content.base, content.candidate, *content.more_bases, *content.more_candidates)
            SqlEvaluationRepository.require(session, [evaluation.id for evaluation in compared])
            query = select(reports.c.delete_time).where(reports.c.id == report_id)
            there = session.execute(query).one_or_none()
            if there is not None and there.delete_time is None:
                return
            if there is not None:
                # The same evaluations under the same id: it means what it meant.
                session.execute(delete(reports).where(reports.c.id == report_id))
            session.execute(
                insert(reports).values(
                    id=report_id,
                    digest=stored.digest,
                    documents=documents,
                    create_time=datetime.now(UTC),
                    facts=content.model_dump(mode="json", exclude=LEFT_OUT_OF_LISTS),
                    verdict=content.verdict,
                    **listed_by(sides, named=True),
                )
            )

    def stored(self) -> list[Stored]:
        """All reports as what they take of the disk."""
        found = []
        with self._database.read() as session:
            for row in session.execute(select(reports)):
                documents = [str(file["digest"]) for file in row.documents.values()]
                digests, deleted = frozenset([row.digest, *documents]), row.delete_time is not None
                found.append(Stored("comparison report", report_name(row.id), digests, deleted=deleted))
        return found

    def delete(self, report_id: str) -> bool:
        """Mark a report as deleted; returns whether it was there and was not yet."""
        where = (reports.c.id == report_id, reports.c.delete_time.is_(None))
        with self._database.write() as session:
            changed = session.connection().execute(
                update(reports).where(*where).values(delete_time=datetime.now(UTC))
            )
        return changed.rowcount == 1

    def content(self, digest: str) -> ComparisonContent:
        """The content of a stored report."""
        return ComparisonContent.model_validate_json(self._artifacts.read_bytes(digest))

    def training(self, file: StoredFile) -> tuple[TrainingStep, ...]:
        """The training metrics in a checkpoint's file of JSON lines, none if it is gone; raises
        DataLoss(METRICS_INVALID)."""
        if not self._artifacts.exists(file.digest):
            # The checkpoint was deleted although it was evaluated.
            return ()
        lines = self._artifacts.read_bytes(file.digest).splitlines()
        try:
            return tuple(TrainingStep.model_validate(json.loads(line)) for line in lines if line.strip())
        except (ValueError, ValidationError) as error:
            raise DataLoss(
                f"{file.path} ({file.digest}) does not hold the metrics of training steps: {error}",
                reason="METRICS_INVALID",
                metadata={"digest": file.digest},
            ) from error

    def trained(self, checkpoint: CheckpointInput) -> TrainingFacts | None:
        """How a checkpoint was trained; None if its manifest is gone, or of another version."""
        if not checkpoint.manifest_digest or not self._artifacts.exists(checkpoint.manifest_digest):
            return None
        try:
            manifest = json.loads(self._artifacts.read_bytes(checkpoint.manifest_digest))
            spec = manifest["spec"]
            lora, optimizer = spec["lora"] or {}, spec["optimizer"]
            return TrainingFacts(
                training_job=manifest["training_job"],
                dataset=spec["dataset"],
                dataset_digest=manifest["dataset_digest"],
                learned_row_count=self._learned_rows(checkpoint.file(LEDGER_FILE)),
                base_model=spec["base_model"],
                method=spec["method"],
                learning_rate=optimizer["learning_rate"],
                schedule=optimizer["schedule"],
                lora_rank=lora.get("rank"),
                lora_alpha=lora.get("alpha"),
                steps=int(checkpoint.name.rpartition("/")[2]),
                epochs=spec["epochs"],
                rows_per_batch=spec["rows_per_batch"],
                max_length=spec["max_length"],
                seed=spec["seed"],
                dtype=spec["dtype"],
            )
        except (ValueError, KeyError, TypeError, AttributeError):
            return None

    def _learned_rows(self, ledger: StoredFile | None) -> int | None:
        """How many rows of the dataset the steps of a checkpoint learned from."""
        if ledger is None or not self._artifacts.exists(ledger.digest):
            return None
        learned: set[str] = set()
        for line in self._artifacts.iter_lines(ledger.digest):
            learned.update(*json.loads(line)["example_ids"])
        return len(learned)

    def chunks(self, document: StoredFile, offset: int) -> Iterator[bytes]:
        """A document's bytes from ``offset`` on, at most 1 MiB at a time."""
        return self._artifacts.iter_chunks(document.digest, offset)


def _report(row: Row[Any]) -> ComparisonReport:
    return ComparisonReport.model_validate(row_fields(row, ComparisonReport) | {"content": row.facts})


def render_json(name: str, digest: str, content: ComparisonContent) -> str:
    """The whole content with the report's name and digest, indented, keys in order.

    ``parts`` has what each side wrote to the items that changed, reasoning and answer as texts.
    """
    parts = {
        flip.base.item_id: {
            side: [asdict(entry) for entry in result.parts]
            for side, result in (("base", flip.base), ("candidate", flip.candidate))
        }
        for flip in content.flips
    }
    values = {"name": name, "digest": digest, "parts": parts, **content.model_dump(mode="json")}
    return visible_json(json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False)) + "\n"


class DocumentKind(NamedTuple):
    """One kind of document: its file name, and how it is made from a report's name, digest and content."""

    file_name: str
    render: Callable[[str, str, ComparisonContent], str]


DOCUMENTS: Final[Mapping[str, DocumentKind]] = {
    "markdown": DocumentKind("report.md", render_markdown),
    "json": DocumentKind("report.json", render_json),
    "html": DocumentKind("report.html", render_html),
}
"""Every kind of document by format."""

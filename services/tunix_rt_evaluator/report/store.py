"""Comparison reports in the artifact store."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime

from pydantic import ValidationError

from tunix_rt_evaluator.comparisons.model import ComparisonContent, TrainingStep, report_name
from tunix_rt_evaluator.comparisons.service import StoredReport
from tunix_rt_kit.artifacts import ArtifactStore, canonical_json
from tunix_rt_kit.errors import DataLoss
from tunix_rt_kit.values import StoredFile


class ReportStore:
    """Renders reports and keeps content and documents as artifacts; raises what ``ArtifactStore`` raises."""

    def __init__(self, artifacts: ArtifactStore) -> None:
        self._artifacts = artifacts

    def store(self, report_id: str, content: ComparisonContent) -> StoredReport:
        """Render and store a report."""
        # Drawing loads matplotlib, which would make the server's start slow.
        from tunix_rt_evaluator.report import DOCUMENTS

        stored = self._artifacts.put_bytes(canonical_json(content.model_dump(mode="json")))
        documents = {}
        for name, kind in DOCUMENTS.items():
            text = kind.render(report_name(report_id), stored.digest, content)
            file = self._artifacts.put_bytes(text.encode("utf-8", "replace"))
            documents[name] = StoredFile(
                path=kind.file_name, size_bytes=file.size, digest=file.digest, uri=file.uri
            )
        return StoredReport(report_id, stored.digest, documents, datetime.now(UTC), content)

    def content(self, digest: str) -> ComparisonContent:
        """The content of a stored report."""
        return ComparisonContent.model_validate_json(self._artifacts.read_bytes(digest))

    def training(self, file: StoredFile) -> tuple[TrainingStep, ...]:
        """The training metrics in a checkpoint's file of JSON lines; raises DataLoss(METRICS_INVALID)."""
        lines = self._artifacts.read_bytes(file.digest).splitlines()
        try:
            return tuple(TrainingStep.model_validate(json.loads(line)) for line in lines if line.strip())
        except (ValueError, ValidationError) as error:
            raise DataLoss(
                f"{file.path} ({file.digest}) does not hold the metrics of training steps: {error}",
                reason="METRICS_INVALID",
                metadata={"digest": file.digest},
            ) from error

    def chunks(self, document: StoredFile, offset: int) -> Iterator[bytes]:
        """A document's bytes from ``offset`` on, at most 1 MiB at a time."""
        return self._artifacts.iter_chunks(document.digest, offset)

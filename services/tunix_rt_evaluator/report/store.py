"""Comparison reports in the artifact store."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Final, NamedTuple

from pydantic import ValidationError

from tunix_rt_evaluator.comparisons.model import (
    ComparisonContent,
    ComparisonReport,
    TrainingStep,
    report_name,
)
from tunix_rt_evaluator.report.html import render_html
from tunix_rt_evaluator.report.markdown import render_markdown
from tunix_rt_kit.artifacts import ArtifactStore, canonical_json
from tunix_rt_kit.errors import DataLoss
from tunix_rt_kit.text import visible_json
from tunix_rt_kit.values import StoredFile


class ReportStore:
    """Renders reports and keeps content and documents as artifacts; raises what ``ArtifactStore`` raises."""

    def __init__(self, artifacts: ArtifactStore) -> None:
        self._artifacts = artifacts

    def store(self, report_id: str, content: ComparisonContent) -> ComparisonReport:
        """Render and store a report."""
        stored = self._artifacts.put_bytes(canonical_json(content.model_dump(mode="json")))
        documents = {}
        for name, kind in DOCUMENTS.items():
            text = kind.render(report_name(report_id), stored.digest, content)
            file = self._artifacts.put_bytes(text.encode("utf-8", "replace"))
            documents[name] = StoredFile(
                path=kind.file_name, size_bytes=file.size, digest=file.digest, uri=file.uri
            )
        return ComparisonReport(
            id=report_id,
            digest=stored.digest,
            create_time=datetime.now(UTC),
            content=content,
            documents=documents,
        )

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

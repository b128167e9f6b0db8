"""How an evaluation ends: what is stored of it."""

from __future__ import annotations

from typing import Final

from tunix_rt_evaluator.evaluations.model import EvaluationUpdate, Manifest, Summary
from tunix_rt_kit.artifacts import ArtifactStore, canonical_json
from tunix_rt_kit.errors import DomainError
from tunix_rt_kit.values import JobError, StoredFile

MANIFEST_FILE: Final = "manifest.json"


def success(artifacts: ArtifactStore, manifest: Manifest, summary: Summary) -> EvaluationUpdate:
    """The result of one that went well; its manifest is put into the artifact store."""
    stored = artifacts.put_bytes(canonical_json(manifest.model_dump(mode="json")))
    return EvaluationUpdate(
        summary=summary,
        manifest=manifest,
        manifest_file=StoredFile(
            path=MANIFEST_FILE, size_bytes=stored.size, digest=stored.digest, uri=stored.uri
        ),
    )


def failure(error: Exception) -> EvaluationUpdate:
    """Why one failed; what is no domain error is told in the log alone."""
    if isinstance(error, DomainError):
        return EvaluationUpdate(error=JobError(code=error.code, reason=error.reason, message=str(error)))
    message = "the evaluation failed for a reason that is in the server's log"
    return EvaluationUpdate(error=JobError(code="INTERNAL", reason="INTERNAL", message=message))

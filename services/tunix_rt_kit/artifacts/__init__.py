"""Canonical JSON, digests and the content-addressed artifact store."""

from tunix_rt_kit.artifacts.canonical import (
    CanonicalPart,
    ListDigest,
    canonical_json,
    canonical_line,
    check_digest,
    digest_bytes,
    digest_file,
    digest_json,
)
from tunix_rt_kit.artifacts.store import Artifact, ArtifactStore, ArtifactWriter

__all__ = [
    "Artifact",
    "ArtifactStore",
    "ArtifactWriter",
    "CanonicalPart",
    "ListDigest",
    "canonical_json",
    "canonical_line",
    "check_digest",
    "digest_bytes",
    "digest_file",
    "digest_json",
]

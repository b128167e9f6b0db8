"""A trace's canonical form and its digest."""

from __future__ import annotations

from tunix_rt_kit.artifacts import canonical_json, digest_json
from tunix_rt_trace_store.model import NewTrace, TraceContent


def rendered(content: TraceContent, size_bytes: int) -> NewTrace:
    """The trace ready to be stored; its digest is that of the content's RFC 8785 form."""
    return NewTrace(
        trace_version=content["trace_version"],
        prompt=content["prompt"],
        steps_json=canonical_json(content["steps"]).decode(),
        final_answer=content["final_answer"],
        metadata_json=canonical_json(content["metadata"]).decode(),
        source=content["source"],
        content_digest=digest_json(content),
        size_bytes=size_bytes,
    )

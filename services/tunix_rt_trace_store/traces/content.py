"""A trace's canonical form and its digest."""

from __future__ import annotations

from tunix_rt_kit.artifacts import canonical_json, digest_json
from tunix_rt_trace_store.traces.model import NewTrace, TraceContent


def rendered(content: TraceContent, encoded: bytes) -> NewTrace:
    """The trace ready to be stored; its digest is that of the content's RFC 8785 form."""
    return NewTrace(
        encoded=encoded,
        content_digest=digest_json(content),
        source=content["source"],
        # Folded by Python, so that both databases find the same traces whatever their locale.
        prompt_folded=content["prompt"].casefold(),
        metadata_json=canonical_json(content["metadata"]).decode(),
    )

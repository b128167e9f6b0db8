"""The tables. Values that are read and written as a whole are canonical JSON."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Column, Double, ForeignKey, Index, Integer, MetaData, String, Table, Text

from tunix_rt_kit.database import NAMING, CanonicalJson, UtcDateTime, listing_columns, request_log_table
from tunix_rt_kit.jobs.leases import lease_table

VERSION_TABLE: Final = "evaluator_version"

# Ordered by code points in both databases, whatever the locale.
_ItemId: Final = String(128).with_variant(String(128, collation="C"), "postgresql")
_EvalSetId: Final = String(64).with_variant(String(64, collation="C"), "postgresql")

metadata: Final = MetaData(naming_convention=NAMING)

eval_sets: Final = Table(
    "eval_sets",
    metadata,
    Column("id", _EvalSetId, primary_key=True),
    Column("description", String(1000), nullable=False),
    Column("digest", String(71), nullable=False),
    Column("item_count", Integer, nullable=False),
    Column("create_time", UtcDateTime, nullable=False),
    Column("items", CanonicalJson, nullable=False),
    Column("origin", CanonicalJson),
    Column("delete_time", UtcDateTime),
    *listing_columns(),
    Index(None, "create_time", "id"),
    Index(None, "display_name_folded", "id"),
)

# Of graders that users wrote; eval sets and regrades name them by digest.
grader_sources: Final = Table(
    "grader_sources",
    metadata,
    Column("digest", String(71), primary_key=True),
    Column("source", Text, nullable=False),
)

evaluations: Final = Table(
    "evaluations",
    metadata,
    # Ids are ordered by time, so they order the queue and the listing.
    Column("id", String(36), primary_key=True),
    Column("state", String(16), nullable=False, index=True),
    Column("spec", CanonicalJson, nullable=False),
    Column("inputs", CanonicalJson, nullable=False),
    Column("error", CanonicalJson),
    Column("progress", CanonicalJson),
    Column("stage_timings", CanonicalJson, nullable=False),
    Column("summary", CanonicalJson),
    Column("manifest", CanonicalJson),
    Column("manifest_file", CanonicalJson),
    Column("attempt_count", Integer, nullable=False),
    Column("create_time", UtcDateTime, nullable=False),
    Column("start_time", UtcDateTime),
    Column("end_time", UtcDateTime),
    Column("delete_time", UtcDateTime),
    *listing_columns("eval_set", "base_model", "dataset"),
    # Of ``summary``, for the order of lists; without one less than any.
    Column("accuracy", Double, nullable=False, server_default="-1"),
    Index(None, "create_time", "id"),
    Index(None, "display_name_folded", "id"),
)

results: Final = Table(
    "evaluation_results",
    metadata,
    Column("evaluation_id", String(36), ForeignKey("evaluations.id", ondelete="CASCADE"), primary_key=True),
    Column("item_id", _ItemId, primary_key=True),
    Column("result", CanonicalJson, nullable=False),
)

reports: Final = Table(
    "comparison_reports",
    metadata,
    Column("id", String(64), primary_key=True),
    # Digests in the artifact store: of the content and of its documents.
    Column("digest", String(71), nullable=False),
    Column("documents", CanonicalJson, nullable=False),
    Column("create_time", UtcDateTime, nullable=False),
    # The content without what grows with its items, for lists; a report of an older version has none.
    Column("facts", CanonicalJson),
    Column("delete_time", UtcDateTime),
    # The last three of the candidate.
    *listing_columns("verdict", "eval_set", "base_model", "dataset"),
    Index(None, "create_time", "id"),
    Index(None, "display_name_folded", "id"),
)

requests: Final = request_log_table(metadata, "evaluator_requests")

leases: Final = lease_table(metadata, "evaluation_leases")

"""The tables. Values that are read and written as a whole are canonical JSON."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, Double, ForeignKey, Index, Integer, MetaData, String, Table

from tunix_rt_kit.database import NAMING, CanonicalJson, UtcDateTime, listing_columns, request_log_table
from tunix_rt_kit.jobs.leases import lease_table

VERSION_TABLE: Final = "trainer_version"

NO_LOSS: Final = 1e300
"""The loss of a job that has none: greater than any."""

metadata: Final = MetaData(naming_convention=NAMING)

jobs: Final = Table(
    "training_jobs",
    metadata,
    # Ids are ordered by time, so they order the queue and the listing.
    Column("id", String(36), primary_key=True),
    Column("state", String(16), nullable=False, index=True),
    Column("spec", CanonicalJson, nullable=False),
    Column("inputs", CanonicalJson, nullable=False),
    Column("error", CanonicalJson),
    Column("progress", CanonicalJson),
    Column("latest_metrics", CanonicalJson),
    Column("stage_timings", CanonicalJson, nullable=False),
    Column("checkpoint_step", BigInteger),
    Column("best_checkpoint_step", BigInteger),
    Column("attempt_count", Integer, nullable=False),
    Column("attempts", CanonicalJson),
    Column("create_time", UtcDateTime, nullable=False),
    Column("start_time", UtcDateTime),
    Column("end_time", UtcDateTime),
    Column("delete_time", UtcDateTime),
    *listing_columns("base_model", "dataset"),
    # Of ``latest_metrics``, for the order of lists.
    Column("loss", Double, nullable=False, server_default=str(NO_LOSS)),
    Index(None, "create_time", "id"),
    Index(None, "display_name_folded", "id"),
)

checkpoints: Final = Table(
    "training_checkpoints",
    metadata,
    Column("job_id", String(36), ForeignKey("training_jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("step", BigInteger, primary_key=True, autoincrement=False),
    Column("digest", String(71), nullable=False),
    Column("files", CanonicalJson, nullable=False),
    Column("manifest", CanonicalJson, nullable=False),
    Column("manifest_file", CanonicalJson, nullable=False),
    Column("chat_template", CanonicalJson, nullable=False),
    Column("create_time", UtcDateTime, nullable=False),
    Column("delete_time", UtcDateTime),
)

exports: Final = Table(
    "training_checkpoint_exports",
    metadata,
    Column("job_id", String(36), ForeignKey("training_jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("step", BigInteger, primary_key=True, autoincrement=False),
    Column("format", String(16), primary_key=True),
    Column("files", CanonicalJson, nullable=False),
)

requests: Final = request_log_table(metadata, "trainer_requests")

leases: Final = lease_table(metadata, "training_job_leases")

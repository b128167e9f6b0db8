"""The tables."""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    false,
)

from tunix_rt_kit.database import NAMING, CanonicalJson, UtcDateTime, listing_columns, request_log_table
from tunix_rt_kit.jobs.leases import lease_table

VERSION_TABLE: Final = "exporter_version"

_Number: Final = BigInteger().with_variant(Integer, "sqlite")

metadata: Final = MetaData(naming_convention=NAMING)

datasets: Final = Table(
    "datasets",
    metadata,
    Column("number", _Number, primary_key=True),
    Column("dataset_id", String(64), nullable=False),
    Column("version", String(32), nullable=False),
    # Names one attempt to build; a dataset that failed gets a new one when it is asked for again.
    Column("build_id", String(36), nullable=False, unique=True),
    Column("state", String(16), nullable=False, index=True),
    Column("spec", CanonicalJson, nullable=False),
    Column("progress", CanonicalJson),
    Column("failure", CanonicalJson),
    Column("result", CanonicalJson),
    Column("digest", String(71), index=True),
    Column("create_time", UtcDateTime, nullable=False),
    Column("start_time", UtcDateTime),
    Column("end_time", UtcDateTime),
    # Whether all who asked left the snapshot to the exporter.
    Column("snapshot_open", Boolean, nullable=False, server_default=false()),
    # Whether ``dataset_rows`` has its rows; those of datasets of earlier versions are put there when somebody
    # first asks.
    Column("rows_indexed", Boolean, nullable=False, server_default=false()),
    Column("delete_time", UtcDateTime),
    # Of a dataset that was deleted and is built again: the only digest that it may have.
    Column("bound_digest", String(71)),
    *listing_columns(),
    UniqueConstraint("dataset_id", "version"),
    Index(None, "create_time", "number"),
    Index(None, "display_name_folded", "number"),
)

# Where the content of each trace that a dataset was made of went. The key begins with the dataset, so that a
# build appends, a deletion takes one range, and a question costs one look-up for each dataset.
dataset_rows: Final = Table(
    "dataset_rows",
    metadata,
    Column("dataset_number", _Number, primary_key=True, autoincrement=False),
    Column("digest", LargeBinary(32), primary_key=True),
    # The place of the split in the dataset's list, or what ``rows.LEFT_OUT`` and ``rows.UNSELECTED`` say.
    Column("place", Integer, nullable=False),
    # The line in the split's files, from 1; else 0.
    Column("row_number", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

build_leases: Final = lease_table(metadata, "build_leases")

requests: Final = request_log_table(metadata, "exporter_requests")

derived_files: Final = Table(
    "derived_files",
    metadata,
    Column("dataset_digest", String(71), primary_key=True),
    Column("path", String(80), primary_key=True),
    Column("file", CanonicalJson, nullable=False),
    Column("create_time", UtcDateTime, nullable=False),
)

supervision_audits: Final = Table(
    "supervision_audits",
    metadata,
    Column("number", _Number, primary_key=True),
    Column("dataset_digest", String(71), nullable=False),
    Column("audit_id", String(32), nullable=False),
    Column("audit", CanonicalJson, nullable=False),
    Column("create_time", UtcDateTime, nullable=False),
    UniqueConstraint("dataset_digest", "audit_id"),
)

"""The tables. A trace is stored encoded, as it was written; filters use the other columns."""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    false,
)

from tunix_rt_kit.database import NAMING, CanonicalJson, UtcDateTime, request_log_table

VERSION_TABLE: Final = "trace_store_version"

# SQLite keeps rows in the order of an INTEGER key, and of no other integer type.
_Sequence: Final = BigInteger().with_variant(Integer, "sqlite")

metadata: Final = MetaData(naming_convention=NAMING)

commits: Final = Table(
    "trace_commits",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    # The number of the latest commit. Its one row is locked by every writer until it commits, which makes the
    # numbers gap-free and in commit order.
    Column("last_sequence", BigInteger, nullable=False),
)

traces: Final = Table(
    "traces",
    metadata,
    Column("sequence", _Sequence, primary_key=True, autoincrement=False),
    Column("id", String(36), nullable=False, unique=True),
    Column("content_digest", LargeBinary(32), nullable=False, index=True),
    Column("create_time", UtcDateTime, nullable=False),
    Column("size_bytes", Integer, nullable=False),
    Column("source", String(64), nullable=False),
    Column("prompt_folded", Text, nullable=False),
    Column("metadata", Text, nullable=False),
    Column("encoded", LargeBinary, nullable=False),
    Column("is_conversation", Boolean, nullable=False, server_default=false()),
    Column("assistant_turns", Integer, nullable=False, server_default="1"),
    Column("tool_calls", Integer, nullable=False, server_default="0"),
    Index(None, "source", "sequence"),
    Index(None, "create_time", "sequence"),
)

tombstones: Final = Table(
    "trace_tombstones",
    metadata,
    Column("sequence", _Sequence, primary_key=True, autoincrement=False),
    Column("id", String(36), nullable=False, unique=True),
    Column("content_digest", LargeBinary(32), nullable=False),
    # NULL for those of the first revision.
    Column("source", String(64)),
    # The deletion's own place in the order of commits: a snapshot before it held the trace.
    Column("delete_sequence", BigInteger, nullable=False, index=True),
    Column("delete_time", UtcDateTime, nullable=False),
)

scores: Final = Table(
    "trace_scores",
    metadata,
    Column("id", _Sequence, primary_key=True),
    Column("trace_sequence", _Sequence, ForeignKey("traces.sequence", ondelete="CASCADE"), nullable=False),
    # The place of the call that stored it in the order of commits; 0 for those of the first revision.
    Column("sequence", BigInteger, nullable=False),
    Column("criterion", String(64), nullable=False),
    Column("value", Double, nullable=False),
    Column("details", CanonicalJson, nullable=False),
    Column("create_time", UtcDateTime, nullable=False),
    Index(None, "trace_sequence", "criterion", "id"),
)

span_traces: Final = Table(
    "trace_store_span_traces",
    metadata,
    Column("trace_id", LargeBinary(16), primary_key=True),
    # When its spans become conversations unless others come before; NULL while none wait.
    Column("due_time", UtcDateTime, index=True),
    # How often spans came: who made conversations of them sees whether others came meanwhile.
    Column("arrivals", Integer, nullable=False),
    # Of the spans that wait.
    Column("size_bytes", BigInteger, nullable=False),
    Column("root_ended", Boolean, nullable=False),
    Column("update_time", UtcDateTime, nullable=False, index=True),
    # What was wrong with which of its spans, for people who look: "spans" has the reason by id, "" for all of
    # them, and "silent" how many calls there were without messages. Older rows are reasons by id alone.
    Column("problems", CanonicalJson),
)
# Migration 0007 makes it of the rows with problems alone. To say so here, SQLAlchemy would load all of
# PostgreSQL's dialect, also where the database is SQLite.
Index("ix_trace_store_span_traces_problems", span_traces.c.update_time, span_traces.c.trace_id)

spans: Final = Table(
    "trace_store_spans",
    metadata,
    Column(
        "trace_id",
        LargeBinary(16),
        ForeignKey("trace_store_span_traces.trace_id", ondelete="CASCADE"),
        primary_key=True,
    ),
    Column("span_id", LargeBinary(8), primary_key=True),
    # NULL once it is in a conversation; the ids stay, so that a span which is sent again is known.
    Column("encoded", LargeBinary),
)

span_secret: Final = Table(
    "trace_store_span_secret",
    metadata,
    # One row, made when it is needed first.
    Column("id", Integer, primary_key=True, autoincrement=False),
    # The key of the tags that stand for values in redacted spans.
    Column("secret", LargeBinary(32), nullable=False),
)

requests: Final = request_log_table(metadata, "trace_store_requests")

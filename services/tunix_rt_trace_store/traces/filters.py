"""A trace filter as SQL, with the same meaning on SQLite and on PostgreSQL."""

from __future__ import annotations

from sqlalchemy import ColumnElement, and_, cast, exists, func, literal, select
from sqlalchemy.dialects.postgresql import JSONB

from tunix_rt_kit.artifacts import canonical_json
from tunix_rt_trace_store.tables import scores, traces
from tunix_rt_trace_store.traces.model import MetadataCondition, ScoreCondition, TraceFilter


def conditions(wanted: TraceFilter, dialect: str, as_of: int | None = None) -> list[ColumnElement[bool]]:
    """The conditions that a row of ``traces`` must meet, joined by AND; scores are those of ``as_of``."""
    found: list[ColumnElement[bool]] = []
    if wanted.sources:
        found.append(traces.c.source.in_(wanted.sources))
    if wanted.created_from is not None:
        found.append(traces.c.create_time >= wanted.created_from)
    if wanted.created_before is not None:
        found.append(traces.c.create_time < wanted.created_before)
    if wanted.prompt_contains:
        needle = wanted.prompt_contains.casefold()
        position = func.instr if dialect == "sqlite" else func.strpos
        found.append(position(traces.c.prompt_folded, needle) > 0)
    found += [
        _metadata_sqlite(entry) if dialect == "sqlite" else _metadata_postgresql(entry)
        for entry in wanted.metadata
    ]
    found += [_score(entry, as_of) for entry in wanted.scores]
    return found


def _metadata_postgresql(entry: MetadataCondition) -> ColumnElement[bool]:
    document = cast(traces.c.metadata, JSONB)
    if entry.kind == "exists":
        found: ColumnElement[bool] = document.has_key(entry.key)
        return found if entry.value else ~found
    wanted = canonical_json({entry.key: entry.value}).decode()
    return document.contains(cast(literal(wanted), JSONB))


def _metadata_sqlite(entry: MetadataCondition) -> ColumnElement[bool]:
    # A JSON path cannot name every key; the table of all keys can.
    keys = func.json_each(traces.c.metadata).table_valued("key", "value", "type")
    here = keys.c.key == entry.key
    if entry.kind == "exists":
        found = exists(select(1).select_from(keys).where(here))
        return found if entry.value else ~found
    return exists(
        select(1).select_from(keys).where(here, _sqlite_equals(keys.c.type, keys.c.value, entry.value))
    )


def _sqlite_equals(
    kind: ColumnElement[str], value: ColumnElement[object], wanted: str | float | bool | None
) -> ColumnElement[bool]:
    if wanted is None:
        return kind == "null"
    if isinstance(wanted, bool):
        return kind == ("true" if wanted else "false")
    if isinstance(wanted, str):
        return and_(kind == "text", value == wanted)
    return and_(kind.in_(["integer", "real"]), value == wanted)


def _score(entry: ScoreCondition, as_of: int | None) -> ColumnElement[bool]:
    of_trace = and_(scores.c.trace_sequence == traces.c.sequence, scores.c.criterion == entry.criterion)
    if as_of is not None:
        of_trace = and_(of_trace, scores.c.sequence <= as_of)
    latest = select(scores.c.value).where(of_trace).order_by(scores.c.id.desc()).limit(1).scalar_subquery()
    return latest >= entry.minimum

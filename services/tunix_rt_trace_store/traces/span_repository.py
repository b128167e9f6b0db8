"""Waiting spans in the database, on SQLite or PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from importlib import import_module
from secrets import token_bytes
from typing import Any, Final

from sqlalchemy import bindparam, delete, or_, select, update
from sqlalchemy.orm import Session

from tunix_rt_kit.database import Database, bulk_insert
from tunix_rt_kit.values import Position
from tunix_rt_trace_store.tables import span_secret, span_traces, spans
from tunix_rt_trace_store.traces.live_spans import (
    MAX_WAITING_BYTES,
    DueTrace,
    NewSpan,
    RefusedTrace,
    SettledTrace,
    Windows,
)
from tunix_rt_trace_store.traces.repository import insert_traces

_CHUNK: Final = 5_000


class SqlSpanRepository:
    """Raises what ``Database`` raises."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._secret: bytes | None = None

    def add(self, batch: Sequence[NewSpan], windows: Windows, now: datetime) -> list[NewSpan]:
        """Store spans that are not known, and put off when their traces are due.

        Returns those that do not fit into what may wait of their trace.
        """
        by_trace: dict[bytes, dict[bytes, NewSpan]] = {}
        for span in batch:
            by_trace.setdefault(span.trace_id, {}).setdefault(span.span_id, span)
        rows: list[dict[str, Any]] = []
        changes: list[dict[str, Any]] = []
        refused: list[NewSpan] = []
        with self._database.write() as session:
            known = _locked(session, sorted(by_trace), now)
            for trace_id, span_id in _known_spans(session, by_trace):
                by_trace[trace_id].pop(span_id, None)
            for trace_id, new in by_trace.items():
                size, root_ended = known[trace_id]
                fitting: list[NewSpan] = []
                for span in new.values():
                    size += len(span.encoded)
                    (fitting if size <= MAX_WAITING_BYTES else refused).append(span)
                if not fitting:
                    continue
                root_ended = root_ended or any(span.is_root for span in fitting)
                change = {"size_bytes": size, "root_ended": root_ended, "update_time": now}
                window = windows.after_root if root_ended else windows.idle
                changes.append({"of": trace_id, "due_time": now + window, **change})
                rows += [
                    {"trace_id": trace_id, "span_id": span.span_id, "encoded": span.encoded}
                    for span in fitting
                ]
            bulk_insert(session, spans, rows)
            if changes:
                session.connection().execute(_PUT_OFF, changes)
        return refused

    def due(self, now: datetime, limit: int) -> list[DueTrace]:
        """Up to ``limit`` traces whose spans are to become conversations, those that wait longest first."""
        with self._database.read() as session:
            found = session.execute(
                select(
                    span_traces.c.trace_id,
                    span_traces.c.due_time,
                    span_traces.c.arrivals,
                    span_traces.c.size_bytes,
                )
                .where(span_traces.c.due_time <= now)
                .order_by(span_traces.c.due_time)
                .limit(limit)
            )
            return [DueTrace(bytes(trace_id), *others) for trace_id, *others in found]

    def waiting(self, trace_ids: Sequence[bytes]) -> dict[bytes, list[bytes]]:
        """The spans of each trace that wait, encoded."""
        waiting: dict[bytes, list[bytes]] = {}
        with self._database.read() as session:
            here = spans.c.trace_id.in_(trace_ids)
            found = session.execute(
                select(spans.c.trace_id, spans.c.encoded).where(here, spans.c.encoded.is_not(None))
            )
            for trace_id, encoded in found:
                waiting.setdefault(bytes(trace_id), []).append(bytes(encoded))
        return waiting

    def settle(self, traces: Sequence[SettledTrace], now: datetime) -> list[SettledTrace]:
        """Store what became of the spans that wait, and keep their ids alone, but for those that are refused.

        Returns the traces for which it did; of the others, spans came meanwhile, or somebody else did it.
        """
        with self._database.write() as session:
            due = select(span_traces.c.trace_id, span_traces.c.arrivals, span_traces.c.problems).where(
                span_traces.c.trace_id.in_([trace.due.trace_id for trace in traces]),
                span_traces.c.due_time.is_not(None),
            )
            locked = session.execute(due.order_by(span_traces.c.trace_id).with_for_update())
            known = {bytes(row.trace_id): row for row in locked}
            settled = [
                trace
                for trace in traces
                if trace.due.trace_id in known and known[trace.due.trace_id].arrivals == trace.due.arrivals
            ]
            if not settled:
                return []
            insert_traces(session, [made for trace in settled for made in trace.made], "keep")
            ids = [trace.due.trace_id for trace in settled]
            session.execute(
                update(span_traces)
                .where(span_traces.c.trace_id.in_(ids))
                .values(due_time=None, size_bytes=0, update_time=now, problems=None)
            )
            clean = [trace.due.trace_id for trace in settled if not trace.refused]
            session.execute(update(spans).where(spans.c.trace_id.in_(clean)).values(encoded=None))
            for trace in settled:
                # What was counted alone is not looked at again with the spans that come late.
                silent = trace.silent + _silent(known[trace.due.trace_id].problems)
                if trace.refused or silent:
                    _keep_refused(session, trace, silent)
        return settled

    def secret(self) -> bytes:
        """32 random bytes, the same each time and for all servers on this database."""
        if self._secret is None:
            with self._database.write() as session:
                insert = _insert_of(session.connection().dialect.name)
                made = insert(span_secret).values(id=1, secret=token_bytes(32))
                session.execute(made.on_conflict_do_nothing())
                self._secret = bytes(session.execute(select(span_secret.c.secret)).scalar_one())
        return self._secret

    def refused(self, after: Position | None, limit: int) -> list[tuple[RefusedTrace, Position]]:
        """Up to ``limit`` traces of which spans were refused, the newest first, from behind a place on."""
        time, trace_id = span_traces.c.update_time, span_traces.c.trace_id
        wanted = select(trace_id, time, span_traces.c.problems).where(span_traces.c.problems.is_not(None))
        if after is not None:
            at, behind = datetime.fromisoformat(after[0]), bytes.fromhex(after[1])
            wanted = wanted.where(time <= at, or_(time < at, trace_id < behind))
        with self._database.read() as session:
            rows = session.execute(wanted.order_by(time.desc(), trace_id.desc()).limit(limit)).all()
        return [
            (
                RefusedTrace(
                    bytes(row.trace_id), row.update_time, _refused(row.problems), _silent(row.problems)
                ),
                [row.update_time.isoformat(), bytes(row.trace_id).hex()],
            )
            for row in rows
        ]

    def forget(self, before: datetime) -> None:
        """Delete what is left of traces for which nothing came or happened since."""
        with self._database.write() as session:
            settled = delete(span_traces).where(span_traces.c.due_time.is_(None))
            session.execute(settled.where(span_traces.c.update_time < before))


def _refused(problems: Mapping[str, Any] | None) -> Mapping[str, str]:
    """The reasons by id; rows of before have them alone."""
    found: Mapping[str, str] = (problems or {}).get("spans", problems or {})
    return found


def _silent(problems: Mapping[str, Any] | None) -> int:
    return int((problems or {}).get("silent", 0))


def _keep_refused(session: Session, trace: SettledTrace, silent: int) -> None:
    where = span_traces.c.trace_id == trace.due.trace_id
    problems = {"spans": dict(trace.refused), "silent": silent}
    session.execute(update(span_traces).where(where).values(problems=problems))
    if trace.refused and "" not in trace.refused and len(trace.refused) <= _CHUNK:
        kept = [bytes.fromhex(span_id) for span_id in trace.refused]
        others = update(spans).where(spans.c.trace_id == trace.due.trace_id, spans.c.span_id.not_in(kept))
        session.execute(others.values(encoded=None))


_PUT_OFF: Final = (
    update(span_traces)
    .where(span_traces.c.trace_id == bindparam("of"))
    .values(
        due_time=bindparam("due_time"),
        size_bytes=bindparam("size_bytes"),
        root_ended=bindparam("root_ended"),
        update_time=bindparam("update_time"),
        arrivals=span_traces.c.arrivals + 1,
    )
)


def _locked(session: Session, trace_ids: Sequence[bytes], now: datetime) -> dict[bytes, tuple[int, bool]]:
    """What waits of each trace, and whether its root has ended; nobody else changes it meanwhile.

    The traces are locked in the order of ids, so that no two calls wait for each other.
    """
    insert = _insert_of(session.connection().dialect.name)
    fields = {"arrivals": 0, "size_bytes": 0, "root_ended": False, "update_time": now}
    found: dict[bytes, tuple[int, bool]] = {}
    for ids in _chunks(trace_ids):
        rows = [{"trace_id": trace_id, **fields} for trace_id in ids]
        session.connection().execute(insert(span_traces).on_conflict_do_nothing(), rows)
        here = session.execute(
            select(span_traces.c.trace_id, span_traces.c.size_bytes, span_traces.c.root_ended)
            .where(span_traces.c.trace_id.in_(ids))
            .order_by(span_traces.c.trace_id)
            .with_for_update()
        )
        found.update({bytes(trace_id): (size, ended) for trace_id, size, ended in here})
    return found


def _insert_of(dialect: str) -> Any:
    """The INSERT that may do nothing; each database's takes long to load, and one alone is needed."""
    return import_module(f"sqlalchemy.dialects.{dialect}").insert


def _known_spans(
    session: Session, by_trace: Mapping[bytes, Mapping[bytes, NewSpan]]
) -> list[tuple[bytes, bytes]]:
    """The ids of spans of these traces that are stored, if there are any of the same ids."""
    wanted = [span_id for new in by_trace.values() for span_id in new]
    found: list[tuple[bytes, bytes]] = []
    for trace_ids in _chunks(list(by_trace)):
        for span_ids in _chunks(wanted):
            here = session.execute(
                select(spans.c.trace_id, spans.c.span_id).where(
                    spans.c.trace_id.in_(trace_ids), spans.c.span_id.in_(span_ids)
                )
            )
            found += [(bytes(trace_id), bytes(span_id)) for trace_id, span_id in here]
    return found


def _chunks(ids: Sequence[bytes]) -> Iterable[Sequence[bytes]]:
    """The ids in parts that fit into one statement."""
    return (ids[at : at + _CHUNK] for at in range(0, len(ids), _CHUNK))

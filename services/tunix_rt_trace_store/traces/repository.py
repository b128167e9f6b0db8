"""Traces in the database, and their filters as SQL with the same meaning on SQLite and on PostgreSQL."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Row,
    Select,
    and_,
    cast,
    delete,
    exists,
    false,
    func,
    insert,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.orm import Session

from tunix_rt_kit.canonical import canonical_json
from tunix_rt_kit.database import Database, Ordered, RequestLog, bulk_insert, made_between
from tunix_rt_kit.errors import DomainError, FailedPrecondition, InvalidArgument, NotFound
from tunix_rt_kit.serving.requests import new_id
from tunix_rt_kit.values import Order, Position, RequestKey
from tunix_rt_trace_store.tables import VERSION_TABLE, commits, requests, scores, tombstones, traces
from tunix_rt_trace_store.traces.model import (
    CreateResult,
    DuplicatePolicy,
    MetadataCondition,
    NewTrace,
    Score,
    ScoreCondition,
    StoredTrace,
    TraceFilter,
)
from tunix_rt_trace_store.traces.service import TracePart

# What fits in one message of 4 MiB; each trace has a name, a digest and times of its own beside its content.
_PAGE_BYTES: Final = 7 << 19
_ROW_BYTES: Final = 256

_COLUMNS: Final = (
    traces.c.sequence,
    traces.c.id,
    traces.c.content_digest,
    traces.c.create_time,
    traces.c.encoded,
)
# Sizes first: a thousand traces of 1 MiB must not be in memory at once.
_LIST: Final = Ordered(traces, (traces.c.sequence,), columns=(traces.c.sequence, traces.c.size_bytes))
_SCORES: Final = Ordered(scores, (scores.c.id,))
_ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_ID_SHAPE: Final = "00000000-0000-0000-0000-000000000000"
_DIGITS: Final = re.compile(r"[0-9a-f]{12,64}")
_CREATED, _EXISTING = "+", "="


class SqlTraceRepository:
    """Traces on SQLite or PostgreSQL; raises what ``Database`` raises besides what each method says."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._requests = RequestLog(requests)

    def migrate(self) -> None:
        """Bring the schema to the newest revision."""
        self._database.upgrade("tunix_rt_trace_store:migrations", VERSION_TABLE)

    def create(
        self, batch: Sequence[NewTrace], policy: DuplicatePolicy, request: RequestKey
    ) -> list[CreateResult]:
        """Store a batch, all or nothing, once for each request id.

        Raises AlreadyExists(REQUEST_ID_REUSED).
        """
        with self._database.write() as session:
            outcome, _ = self._requests.once(session, request, lambda: insert_traces(session, batch, policy))
        return [
            CreateResult(entry[1:], trace.content_digest, entry[0] == _CREATED)
            for entry, trace in zip(outcome, batch, strict=True)
        ]

    def get(self, trace_id: str, field: str = "name") -> StoredTrace:
        """One trace, by its id or by digits of its content digest (see ``_own_id``).

        Raises NotFound (TRACE_NOT_FOUND, TRACE_DELETED), InvalidArgument(TRACE_AMBIGUOUS).
        """
        with self._database.read() as session:
            return _get(session, trace_id, field)

    def each(self, trace_ids: Sequence[str], field: str) -> Iterator[StoredTrace | DomainError]:
        """The traces in order, one at a time: each as ``get`` returns it, or the error that it raises.

        ``field`` is formatted with the place of each.
        """
        with self._database.read() as session:
            for index, trace_id in enumerate(trace_ids):
                try:
                    found: StoredTrace | DomainError = _get(session, trace_id, field.format(index))
                except (NotFound, InvalidArgument) as error:
                    found = error
                yield found

    def last_sequence(self) -> int:
        """The number of the latest commit, 0 in an empty store."""
        with self._database.read() as session:
            return _last_sequence(session)

    def page(
        self, wanted: TraceFilter, order: Order, after: Position | None, limit: int, id_prefix: str = ""
    ) -> TracePart:
        """Up to ``limit`` traces that fit in one message and have an id that begins with ``id_prefix``, in an
        order, from behind a place on."""
        where = conditions(wanted, self._database.dialect)
        if id_prefix:
            where.append(_id_begins(id_prefix))
        with self._database.read() as session:
            found = _LIST.rows(session, where, order, after, limit + 1)
            count = _fitting([row.size_bytes for row, _ in found[:limit]])
            kept = [row.sequence for row, _ in found[:count]]
            rows = session.execute(select(*_COLUMNS).where(traces.c.sequence.in_(kept)))
            stored = {row.sequence: _stored(row) for row in rows}
        # One of them may have been deleted in between.
        here = [stored[sequence] for sequence in kept if sequence in stored]
        return TracePart(here, last=count == len(found), end=found[count - 1][1] if count else ())

    def snapshot_part(self, wanted: TraceFilter, after: int, as_of: int, limit: int) -> TracePart:
        """Up to ``limit`` traces that fit in one message, in the order of commits, of the snapshot ``as_of``.

        Raises FailedPrecondition(SNAPSHOT_INCOMPLETE) if some that follow ``after``, and that the filter may
        have matched, have been deleted since.
        """
        with self._database.read() as session:
            gone = session.scalar(
                select(func.count())
                .select_from(tombstones)
                .where(
                    tombstones.c.sequence > after,
                    tombstones.c.sequence <= as_of,
                    tombstones.c.delete_sequence > as_of,
                    *_may_match(wanted),
                )
            )
            if gone:
                raise FailedPrecondition(
                    f"snapshot {as_of} cannot be streamed: {gone} of its traces have been deleted "
                    "since; use a newer one",
                    reason="SNAPSHOT_INCOMPLETE",
                    metadata={"as_of": str(as_of), "deleted_count": str(gone)},
                )
            where = conditions(wanted, self._database.dialect, as_of)
            where += [traces.c.sequence > after, traces.c.sequence <= as_of]
            return _page(session, where, traces.c.sequence.asc(), limit)

    def delete(self, trace_id: str) -> None:
        """Delete one trace and keep its tombstone; raises NotFound as ``get``."""
        with self._database.write() as session:
            if not _bury(session, [trace_id]):
                raise _not_found(session, trace_id, "name")

    def delete_each(self, trace_ids: Sequence[str]) -> list[str]:
        """Delete traces together and keep their tombstones; returns the ids of those that were there."""
        with self._database.write() as session:
            found = _bury(session, trace_ids)
        return [trace_id for trace_id in dict.fromkeys(trace_ids) if trace_id in found]

    def add_scores(self, given: Sequence[Score], request: RequestKey, field: str) -> None:
        """Store scores, all or nothing, once for each request id.

        Raises NotFound as ``get``, with ``field`` formatted with the place of the first score whose trace is
        not there; AlreadyExists(REQUEST_ID_REUSED).
        """
        with self._database.write() as session:
            self._requests.once(session, request, lambda: _insert_scores(session, given, field))

    def scores(
        self, trace_id: str, criterion: str, order: Order, after: Position | None, limit: int
    ) -> list[tuple[Score, Position]]:
        """Up to ``limit`` scores of a trace in an order, from behind a place on; raises as ``get``."""
        with self._database.read() as session:
            trace_id = _own_id(session, trace_id, "trace")
            sequence = session.scalar(select(traces.c.sequence).where(traces.c.id == trace_id))
            if sequence is None:
                raise _not_found(session, trace_id, "trace")
            where = [scores.c.trace_sequence == sequence]
            if criterion:
                where.append(scores.c.criterion == criterion)
            rows = _SCORES.rows(session, where, order, after, limit)
        return [(_score(trace_id, row), place) for row, place in rows]

    def latest_scores(self, trace: StoredTrace) -> list[Score]:
        """The latest score of each criterion, ordered by criterion."""
        latest = (
            select(func.max(scores.c.id))
            .where(scores.c.trace_sequence == trace.sequence)
            .group_by(scores.c.criterion)
        )
        with self._database.read() as session:
            rows = session.execute(
                select(scores).where(scores.c.id.in_(latest)).order_by(scores.c.criterion)
            ).all()
        return [_score(trace.id, row) for row in rows]


def insert_traces(session: Session, batch: Sequence[NewTrace], policy: DuplicatePolicy) -> list[str]:
    """Store checked traces in the session's transaction; a mark and an id for each say what became of it."""
    last = _locked_sequence(session)
    digests = [bytes.fromhex(trace.content_digest.removeprefix("sha256:")) for trace in batch]
    known = _ids_by_digest(session, digests) if policy == "skip" else {}
    now = datetime.now(UTC)
    # Else the columns have what the database gives them, which takes less time.
    has_conversations = any(trace.is_conversation for trace in batch)
    rows: list[dict[str, Any]] = []
    outcome: list[str] = []
    for trace, digest in zip(batch, digests, strict=True):
        if digest in known:
            outcome.append(_EXISTING + known[digest])
            continue
        trace_id = new_id()
        outcome.append(_CREATED + trace_id)
        if policy == "skip":
            known[digest] = trace_id
        rows.append(
            {
                "sequence": last + len(rows) + 1,
                "id": trace_id,
                "content_digest": digest,
                "create_time": now,
                "size_bytes": len(trace.encoded),
                "source": trace.source,
                "prompt_folded": trace.prompt_folded,
                "metadata": trace.metadata_json,
                "encoded": trace.encoded,
                **(_of_turns(trace) if has_conversations else {}),
            }
        )
    if rows:
        bulk_insert(session, traces, rows)
        session.execute(update(commits).values(last_sequence=last + len(rows)))
    return outcome


def _of_turns(trace: NewTrace) -> dict[str, Any]:
    return {
        "is_conversation": trace.is_conversation,
        "assistant_turns": trace.assistant_turns,
        "tool_calls": trace.tool_calls,
    }


def _may_match(wanted: TraceFilter) -> list[ColumnElement[bool]]:
    """What a tombstone tells of whether its trace matched; of the content nothing is left."""
    if not wanted.sources:
        return []
    return [or_(tombstones.c.source.is_(None), tombstones.c.source.in_(wanted.sources))]


def _insert_scores(session: Session, given: Sequence[Score], field: str) -> list[str]:
    # It locks out every other writer, so that no trace that is found here is gone at the insert.
    number = _next_sequence(session, 1)
    ids = {score.trace_id for score in given}
    found = session.execute(select(traces.c.id, traces.c.sequence).where(traces.c.id.in_(ids)))
    sequences: dict[str, int] = dict(found.tuples().all())
    for index, score in enumerate(given):
        if score.trace_id not in sequences:
            raise _not_found(session, score.trace_id, field.format(index))
    rows = [
        {
            "trace_sequence": sequences[score.trace_id],
            "sequence": number,
            "criterion": score.criterion,
            "value": score.value,
            "details": score.details,
            "create_time": score.create_time,
        }
        for score in given
    ]
    session.execute(insert(scores), rows)
    return []


def _score(trace_id: str, row: Row[Any]) -> Score:
    return Score(trace_id, row.criterion, row.value, row.details, row.create_time)


def _ids_by_digest(session: Session, digests: Sequence[bytes]) -> dict[bytes, str]:
    """The id of the oldest trace of each content that is stored."""
    found = session.execute(
        select(traces.c.content_digest, traces.c.id)
        .where(traces.c.content_digest.in_(set(digests)))
        .order_by(traces.c.sequence.desc())
    )
    return {bytes(digest): trace_id for digest, trace_id in found}


def _last_sequence(session: Session) -> int:
    return int(session.execute(select(commits.c.last_sequence)).scalar_one())


def _locked_sequence(session: Session) -> int:
    return int(session.execute(select(commits.c.last_sequence).with_for_update()).scalar_one())


def _bury(session: Session, trace_ids: Sequence[str]) -> set[str]:
    """Put tombstones in place of traces, all with one number; returns the ids of those that were there."""
    _locked_sequence(session)
    of = (traces.c.sequence, traces.c.id, traces.c.content_digest, traces.c.source)
    rows = session.execute(select(*of).where(traces.c.id.in_(trace_ids))).all()
    if rows:
        fate = {"delete_sequence": _next_sequence(session, 1), "delete_time": datetime.now(UTC)}
        session.execute(insert(tombstones), [row._asdict() | fate for row in rows])
        session.execute(delete(traces).where(traces.c.sequence.in_([row.sequence for row in rows])))
    return {row.id for row in rows}


def _next_sequence(session: Session, count: int) -> int:
    number = _locked_sequence(session) + count
    session.execute(update(commits).values(last_sequence=number))
    return number


def _page(
    session: Session, where: list[ColumnElement[bool]], order: ColumnElement[Any], limit: int
) -> TracePart:
    # Sizes first: a thousand traces of 1 MiB must not be in memory at once.
    found = session.execute(
        select(traces.c.sequence, traces.c.size_bytes).where(*where).order_by(order).limit(limit + 1)
    ).all()
    count = _fitting([size for _, size in found[:limit]])
    if not count:
        return TracePart([], last=True)
    ends = (found[0][0], found[count - 1][0])
    rows = session.execute(_rows(where, min(ends), max(ends)).order_by(order)).all()
    return TracePart([_stored(row) for row in rows], last=count == len(found))


def _fitting(sizes: Sequence[int]) -> int:
    """How many of the first traces fit in one message, at least one."""
    used = 0
    for count, size in enumerate(sizes):
        used += size + _ROW_BYTES
        if count and used > _PAGE_BYTES:
            return count
    return len(sizes)


def _rows(where: list[ColumnElement[bool]], low: int, high: int) -> Select[Any]:
    return select(*_COLUMNS).where(*where, traces.c.sequence.between(low, high))


def _own_id(session: Session, trace_id: str, field: str) -> str:
    """The id of the oldest trace whose content digest begins with ``trace_id``, if that is 12 to 64 digits.

    They are hex digits, which no id is. So the rows of datasets, whose ids are content digests, lead to
    traces. What begins no digest is given back as it is. Raises InvalidArgument(TRACE_AMBIGUOUS).
    """
    if not _DIGITS.fullmatch(trace_id):
        return trace_id
    here = _begins(traces.c.content_digest, trace_id)
    digests = session.scalars(select(traces.c.content_digest).where(here).distinct().limit(2)).all()
    if len(digests) > 1:
        named = " or ".join(sorted(digest.hex() for digest in digests))
        description = f"is traces/{trace_id}, which may be {named}; more digits would be right"
        raise InvalidArgument.of_field(field, description, reason="TRACE_AMBIGUOUS")
    return session.scalar(select(traces.c.id).where(here).order_by(traces.c.sequence).limit(1)) or trace_id


def _id_begins(prefix: str) -> ColumnElement[bool]:
    rest = _ID_SHAPE[len(prefix) :]
    lowest, highest = prefix + rest, prefix + rest.replace("0", "f")
    if not _ID.fullmatch(lowest):
        return false()
    # Bounds of the shape of ids lie where they should in the index, whatever the database's locale.
    return traces.c.id.between(lowest, highest)


def _begins(digest: ColumnElement[bytes], digits: str) -> ColumnElement[bool]:
    return digest.between(bytes.fromhex(digits.ljust(64, "0")), bytes.fromhex(digits.ljust(64, "f")))


def _get(session: Session, trace_id: str, field: str) -> StoredTrace:
    trace_id = _own_id(session, trace_id, field)
    row = session.execute(select(*_COLUMNS).where(traces.c.id == trace_id)).one_or_none()
    if row is None:
        raise _not_found(session, trace_id, field)
    return _stored(row)


def _stored(row: Sequence[Any]) -> StoredTrace:
    sequence, trace_id, digest, created, encoded = row
    return StoredTrace(trace_id, sequence, created, f"sha256:{digest.hex()}", encoded)


def _not_found(session: Session, trace_id: str, field: str) -> DomainError:
    name = f"traces/{trace_id}"
    here = tombstones.c.id == trace_id
    if _DIGITS.fullmatch(trace_id):
        here = _begins(tombstones.c.content_digest, trace_id)
    row = session.execute(select(tombstones).where(here).limit(1)).one_or_none()
    if row is None:
        return NotFound(f"{field}: {name} does not exist", reason="TRACE_NOT_FOUND", metadata={"name": name})
    when = row.delete_time.isoformat()
    return NotFound(
        f"{field}: {name} was deleted at {when}",
        reason="TRACE_DELETED",
        metadata={
            "name": name,
            "content_digest": f"sha256:{row.content_digest.hex()}",
            "delete_time": when,
        },
    )


def conditions(wanted: TraceFilter, dialect: str, as_of: int | None = None) -> list[ColumnElement[bool]]:
    """The conditions that a row of ``traces`` must meet, joined by AND; scores are those of ``as_of``."""
    found: list[ColumnElement[bool]] = []
    if wanted.sources:
        found.append(traces.c.source.in_(wanted.sources))
    found += made_between(traces.c.create_time, wanted)
    if wanted.prompt_contains:
        needle = wanted.prompt_contains.casefold()
        position = func.instr if dialect == "sqlite" else func.strpos
        found.append(position(traces.c.prompt_folded, needle) > 0)
    found += [
        _metadata_sqlite(entry) if dialect == "sqlite" else _metadata_postgresql(entry)
        for entry in wanted.metadata
    ]
    found += [_scored(entry, as_of) for entry in wanted.scores]
    return found + _turns(wanted)


def _turns(wanted: TraceFilter) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if wanted.is_conversation is not None:
        found.append(traces.c.is_conversation == wanted.is_conversation)
    if wanted.has_tool_calls is not None:
        found.append(traces.c.tool_calls > 0 if wanted.has_tool_calls else traces.c.tool_calls == 0)
    if wanted.min_assistant_turns:
        found.append(traces.c.assistant_turns >= wanted.min_assistant_turns)
    if wanted.max_assistant_turns:
        found.append(traces.c.assistant_turns <= wanted.max_assistant_turns)
    return found


def _metadata_postgresql(entry: MetadataCondition) -> ColumnElement[bool]:
    # Loads every type and every driver of PostgreSQL.
    from sqlalchemy.dialects.postgresql import JSONB

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


def _scored(entry: ScoreCondition, as_of: int | None) -> ColumnElement[bool]:
    of_trace = and_(scores.c.trace_sequence == traces.c.sequence, scores.c.criterion == entry.criterion)
    if as_of is not None:
        of_trace = and_(of_trace, scores.c.sequence <= as_of)
    latest = select(scores.c.value).where(of_trace).order_by(scores.c.id.desc()).limit(1).scalar_subquery()
    return latest >= entry.minimum

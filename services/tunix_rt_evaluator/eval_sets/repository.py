"""Eval sets in the database."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from pydantic import TypeAdapter
from sqlalchemy import insert, select, update
from sqlalchemy.orm import Session

from tunix_rt_evaluator.eval_sets.model import EvalItem, EvalSet, EvalSetFilter, eval_set_name
from tunix_rt_evaluator.tables import eval_sets, evaluations, grader_sources, requests
from tunix_rt_kit.database import (
    Database,
    Listing,
    RequestLog,
    change_labels,
    row_fields,
    transaction_lock,
)
from tunix_rt_kit.errors import AlreadyExists, check_living, not_found
from tunix_rt_kit.values import NO_LABELS, JobState, Order, Position, RequestKey

_ITEMS: Final = TypeAdapter(tuple[EvalItem, ...])
_LISTING: Final = Listing(
    eval_sets,
    eval_sets.c.id,
    {"name": (eval_sets.c.id,)},
    tuple(column for column in eval_sets.c if column.name != "items"),
    default=[("create_time", True)],
)


class SqlEvalSetRepository:
    """Eval sets on SQLite or PostgreSQL; raises what ``Database`` raises besides what each method says."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._requests = RequestLog(requests)

    def create(self, eval_set: EvalSet, request: RequestKey, labels: Mapping[str, Any] = NO_LABELS) -> str:
        """Store an eval set unless it is there, once for each request id, and return its id. ``labels`` take
        the place of those that a stored one has.

        Raises AlreadyExists: EVAL_SET_EXISTS, the id is bound to other items; REQUEST_ID_REUSED.
        """

        def create() -> str:
            transaction_lock(session, f"eval set {eval_set.id}")
            _bind(session, eval_set)
            if labels:
                change_labels(session, eval_sets, labels, eval_sets.c.id == eval_set.id)
            return eval_set.id

        with self._database.write() as session:
            return self._requests.once(session, request, create)[0]

    def get(self, eval_set_id: str) -> EvalSet:
        """One eval set with its items; raises NotFound(EVAL_SET_NOT_FOUND), also if it was deleted."""
        found = self.find(eval_set_id)
        check_living(eval_set_name(eval_set_id), "EVAL_SET", found.delete_time)
        return found

    def find(self, eval_set_id: str) -> EvalSet:
        """As ``get``, but one that was deleted comes too, without items."""
        with self._database.read() as session:
            row = session.execute(select(eval_sets).where(eval_sets.c.id == eval_set_id)).one_or_none()
        if row is None:
            raise not_found(eval_set_name(eval_set_id), "EVAL_SET")
        return _eval_set(row, _ITEMS.validate_json(json.dumps(row.items)))

    def delete(self, eval_set_id: str, check: Callable[[Mapping[str, bool]], None]) -> None:
        """Mark an eval set as deleted and forget its items, unless ``check`` raises.

        ``check`` is given the evaluations on it, with whether each still runs; none comes before the mark is
        there. Raises NotFound(EVAL_SET_NOT_FOUND), also if it is deleted already.
        """
        with self._database.write() as session:
            living_eval_set(session, eval_set_id)
            table = evaluations.c
            on_it = (table.eval_set == eval_set_name(eval_set_id), table.delete_time.is_(None))
            rows = session.execute(select(table.id, table.state).where(*on_it))
            check({f"evaluations/{row.id}": not JobState(row.state).ended for row in rows})
            gone = {"delete_time": datetime.now(UTC), "items": []}
            session.execute(update(eval_sets).where(eval_sets.c.id == eval_set_id).values(gone))

    def page(
        self, wanted: EvalSetFilter, order: Order, after: Position | None, limit: int
    ) -> Sequence[tuple[EvalSet, Position]]:
        """Up to ``limit`` eval sets that are wanted, without items, in that order, from behind ``after``."""
        return _LISTING.page(self._database, wanted, order, after, limit, lambda row: _eval_set(row, None))

    def put_source(self, digest: str, source: str) -> None:
        """Keep the source code of a grader, whose digest is ``digest``, unless it is there."""
        with self._database.write() as session:
            transaction_lock(session, f"grader source {digest}")
            known = session.execute(select(grader_sources.c.digest).where(grader_sources.c.digest == digest))
            if known.one_or_none() is None:
                session.execute(insert(grader_sources).values(digest=digest, source=source))

    def source(self, digest: str) -> str | None:
        """The source code of a grader with that digest; None if there is none."""
        query = select(grader_sources.c.source).where(grader_sources.c.digest == digest)
        with self._database.read() as session:
            return session.execute(query).scalar_one_or_none()

    def set_labels(self, eval_set_id: str, labels: Mapping[str, Any]) -> None:
        """Change what people call an eval set, if it is there."""
        with self._database.write() as session:
            change_labels(session, eval_sets, labels, eval_sets.c.id == eval_set_id)


def living_eval_set(session: Session, eval_set_id: str) -> None:
    """Keep an eval set from being deleted until the session's end.

    Raises NotFound(EVAL_SET_NOT_FOUND) if there is none, or if it was deleted.
    """
    transaction_lock(session, f"eval set {eval_set_id}")
    name = eval_set_name(eval_set_id)
    query = select(eval_sets.c.delete_time).where(eval_sets.c.id == eval_set_id)
    row = session.execute(query).one_or_none()
    if row is None:
        raise not_found(name, "EVAL_SET")
    check_living(name, "EVAL_SET", row.delete_time)


def _bind(session: Session, eval_set: EvalSet) -> None:
    stored = session.execute(
        select(eval_sets.c.digest, eval_sets.c.delete_time).where(eval_sets.c.id == eval_set.id)
    ).one_or_none()
    if stored is not None and stored.digest != eval_set.digest:
        bound = stored.digest
        name = eval_set_name(eval_set.id)
        still = "is" if stored.delete_time is None else "was deleted, and its id stays"
        raise AlreadyExists(
            f"eval_set.eval_set_id: {name} {still} bound to other items ({bound}); use another id for these",
            reason="EVAL_SET_EXISTS",
            metadata={"name": name, "digest": bound},
        )
    values = eval_set.model_dump(mode="json", exclude={"create_time", "python_sources"})
    if stored is None:
        session.execute(insert(eval_sets).values(**values, create_time=eval_set.create_time))
    elif stored.delete_time is not None:
        # The same items under the same id: it means what it meant.
        again = {**values, "create_time": eval_set.create_time, "delete_time": None}
        session.execute(update(eval_sets).where(eval_sets.c.id == eval_set.id).values(again))


def _eval_set(row: Any, items: tuple[EvalItem, ...] | None) -> EvalSet:
    return EvalSet.model_validate({**row_fields(row, EvalSet), "items": items})

"""Eval sets in the database."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from pydantic import TypeAdapter
from sqlalchemy import and_, insert, or_, select
from sqlalchemy.orm import Session

from tunix_rt_evaluator.eval_sets.model import EvalItem, EvalSet, eval_set_name
from tunix_rt_evaluator.tables import eval_sets, requests
from tunix_rt_kit.database import Database, RequestLog, transaction_lock
from tunix_rt_kit.errors import AlreadyExists, NotFound
from tunix_rt_kit.values import RequestKey

_ITEMS: Final = TypeAdapter(tuple[EvalItem, ...])


class SqlEvalSetRepository:
    """Eval sets on SQLite or PostgreSQL; raises what ``Database`` raises besides what each method says."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._requests = RequestLog(requests)

    def create(self, eval_set: EvalSet, request: RequestKey) -> str:
        """Store an eval set unless it is there, once for each request id, and return its id.

        Raises AlreadyExists: EVAL_SET_EXISTS, the id is bound to other items; REQUEST_ID_REUSED.
        """

        def create() -> str:
            transaction_lock(session, f"eval set {eval_set.id}")
            _bind(session, eval_set)
            return eval_set.id

        with self._database.write() as session:
            return self._requests.once(session, request, create)[0]

    def get(self, eval_set_id: str) -> EvalSet:
        """One eval set with its items; raises NotFound(EVAL_SET_NOT_FOUND)."""
        with self._database.read() as session:
            row = session.execute(select(eval_sets).where(eval_sets.c.id == eval_set_id)).one_or_none()
        if row is None:
            name = eval_set_name(eval_set_id)
            raise NotFound(
                f"name: {name} does not exist", reason="EVAL_SET_NOT_FOUND", metadata={"name": name}
            )
        return _eval_set(row, _ITEMS.validate_json(json.dumps(row.items)))

    def newest(self, before: tuple[str, str] | None, limit: int) -> Sequence[EvalSet]:
        """Up to ``limit`` eval sets without items, newest first, after (create time, id) in that order."""
        columns = [column for column in eval_sets.c if column.name != "items"]
        query = select(*columns).order_by(eval_sets.c.create_time.desc(), eval_sets.c.id.desc()).limit(limit)
        if before is not None:
            time, eval_set_id = datetime.fromisoformat(before[0]), before[1]
            query = query.where(
                or_(
                    eval_sets.c.create_time < time,
                    and_(eval_sets.c.create_time == time, eval_sets.c.id < eval_set_id),
                )
            )
        with self._database.read() as session:
            return [_eval_set(row, None) for row in session.execute(query)]


def _bind(session: Session, eval_set: EvalSet) -> None:
    bound = session.execute(
        select(eval_sets.c.digest).where(eval_sets.c.id == eval_set.id)
    ).scalar_one_or_none()
    if bound is not None and bound != eval_set.digest:
        name = eval_set_name(eval_set.id)
        raise AlreadyExists(
            f"eval_set.eval_set_id: {name} is bound to other items ({bound}); use another id for these",
            reason="EVAL_SET_EXISTS",
            metadata={"name": name, "digest": bound},
        )
    if bound is None:
        values = eval_set.model_dump(mode="json", exclude={"create_time"})
        session.execute(insert(eval_sets).values(**values, create_time=eval_set.create_time))


def _eval_set(row: Any, items: tuple[EvalItem, ...] | None) -> EvalSet:
    return EvalSet.model_validate({**row._mapping, "items": items})

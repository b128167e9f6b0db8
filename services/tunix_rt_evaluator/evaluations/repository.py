"""Eval sets, evaluations, their results and comparison reports in the database."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from pydantic import BaseModel, TypeAdapter
from sqlalchemy import and_, delete, insert, or_, select, update
from sqlalchemy.orm import Session

from tunix_rt_evaluator.evaluations.model import (
    EvalItem,
    EvalSet,
    Evaluation,
    EvaluationInput,
    EvaluationSpec,
    EvaluationUpdate,
    ItemFilter,
    ItemResult,
    Manifest,
    Summary,
)
from tunix_rt_evaluator.evaluations.names import eval_set_name, evaluation_name
from tunix_rt_evaluator.tables import VERSION_TABLE, eval_sets, evaluations, requests, results
from tunix_rt_kit.callers import check
from tunix_rt_kit.database import Database, RequestLog, transaction_lock
from tunix_rt_kit.errors import AlreadyExists, NotFound
from tunix_rt_kit.values import JobError, JobState, Progress, RequestKey, StageTiming, StoredFile

_UNFINISHED: Final = [state.value for state in JobState if not state.ended]
# What fits in one message of 4 MiB.
_PAGE_BYTES: Final = 7 << 19
_ROWS: Final = 200
_ALL_ITEMS: Final = ItemFilter()
_ITEMS: Final = TypeAdapter(tuple[EvalItem, ...])
_STAGES: Final = TypeAdapter(tuple[StageTiming, ...])
_NO_CHANGES: Final = EvaluationUpdate()


class SqlEvaluationRepository:
    """Evaluations on SQLite or PostgreSQL; raises what ``Database`` raises besides what each method says.

    A change of state names the states that it may follow, so of two at the same time one comes first.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._requests = RequestLog(requests)

    def migrate(self) -> None:
        """Bring the schema to the newest revision."""
        self._database.upgrade("tunix_rt_evaluator:migrations", VERSION_TABLE)

    def create_eval_set(self, eval_set: EvalSet, request: RequestKey) -> str:
        """Store an eval set unless it is there, once for each request id, and return its id.

        Raises AlreadyExists: EVAL_SET_EXISTS, the id is bound to other items; REQUEST_ID_REUSED.
        """

        def create() -> str:
            transaction_lock(session, f"eval set {eval_set.id}")
            _bind(session, eval_set)
            return eval_set.id

        with self._database.write() as session:
            return self._requests.once(session, request, create)[0]

    def eval_set(self, eval_set_id: str) -> EvalSet:
        """One eval set with its items; raises NotFound(EVAL_SET_NOT_FOUND)."""
        with self._database.read() as session:
            row = session.execute(select(eval_sets).where(eval_sets.c.id == eval_set_id)).one_or_none()
        if row is None:
            raise _not_found("EVAL_SET_NOT_FOUND", eval_set_name(eval_set_id))
        return _eval_set(row, _ITEMS.validate_json(json.dumps(row.items)))

    def newest_eval_sets(self, before: tuple[str, str] | None, limit: int) -> Sequence[EvalSet]:
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

    def requested(self, request: RequestKey) -> str | None:
        """Id of what a request made before; raises AlreadyExists(REQUEST_ID_REUSED)."""
        with self._database.read() as session:
            return self._requests.made(session, request)

    def create(self, evaluation: Evaluation, request: RequestKey) -> str:
        """Store an evaluation, once for each request id, and return its id.

        Raises AlreadyExists(REQUEST_ID_REUSED).
        """

        def create() -> str:
            session.execute(insert(evaluations).values(**_values(evaluation)))
            return evaluation.id

        with self._database.write() as session:
            return self._requests.once(session, request, create)[0]

    def get(self, evaluation_id: str) -> Evaluation:
        """One evaluation; raises NotFound(EVALUATION_NOT_FOUND)."""
        with self._database.read() as session:
            row = session.execute(select(evaluations).where(evaluations.c.id == evaluation_id)).one_or_none()
        if row is None:
            raise _not_found("EVALUATION_NOT_FOUND", evaluation_name(evaluation_id))
        return _evaluation(row)

    def newest(self, before: str | None, limit: int) -> Sequence[Evaluation]:
        """Up to ``limit`` evaluations, newest first, with ids below ``before``."""
        query = select(evaluations).order_by(evaluations.c.id.desc()).limit(limit)
        if before is not None:
            query = query.where(evaluations.c.id < before)
        with self._database.read() as session:
            return [_evaluation(row) for row in session.execute(query)]

    def unfinished(self, *, regrades: bool = False) -> Sequence[str]:
        """Ids of the evaluations that have not ended, oldest first: of those that generate, or only grade."""
        query = select(evaluations.c.id, evaluations.c.inputs).where(evaluations.c.state.in_(_UNFINISHED))
        with self._database.read() as session:
            rows = session.execute(query.order_by(evaluations.c.id))
            return [row.id for row in rows if bool(row.inputs.get("regrade")) is regrades]

    def change_state(
        self,
        evaluation_id: str,
        expected: Sequence[JobState],
        state: JobState,
        changes: EvaluationUpdate = _NO_CHANGES,
    ) -> bool:
        """Set an evaluation's state, and ``changes``, if it is one of ``expected``; returns whether it was.

        An ended one gets its end time; one that is queued again loses its progress and keeps its answers.
        """
        values: dict[str, Any] = {"state": state.value, **_changed(changes)}
        if state.ended:
            values["end_time"] = datetime.now(UTC)
        if state is JobState.QUEUED:
            values |= {"progress": None, "stage_timings": []}
        known = [entry.value for entry in expected]
        with self._database.write() as session:
            changed = session.connection().execute(
                update(evaluations)
                .where(evaluations.c.id == evaluation_id, evaluations.c.state.in_(known))
                .values(**values)
            )
        return changed.rowcount == 1

    def save(self, evaluation_id: str, changes: EvaluationUpdate) -> None:
        """Store what changed."""
        with self._database.write() as session:
            session.execute(
                update(evaluations).where(evaluations.c.id == evaluation_id).values(**_changed(changes))
            )

    def answered(self, evaluation_id: str) -> set[str]:
        """Ids of the items that have a result."""
        query = select(results.c.item_id).where(results.c.evaluation_id == evaluation_id)
        with self._database.read() as session:
            return set(session.execute(query).scalars())

    def add_results(self, evaluation_id: str, results_: Sequence[ItemResult]) -> None:
        """Store results of items that have none yet."""
        rows = [
            {"evaluation_id": evaluation_id, "item_id": entry.item_id, "result": _dump(entry)}
            for entry in results_
        ]
        with self._database.write() as session:
            session.execute(insert(results), rows)

    def drop_results(self, evaluation_id: str) -> None:
        """Forget all results of an evaluation."""
        with self._database.write() as session:
            session.execute(delete(results).where(results.c.evaluation_id == evaluation_id))

    def results_page(
        self, evaluation_id: str, after: str | None, limit: int, wanted: ItemFilter = _ALL_ITEMS
    ) -> tuple[Sequence[ItemResult], bool]:
        """Up to ``limit`` wanted results that fit in one message, by item id and after ``after``; whether
        they are the last."""
        query = select(results.c.result).where(results.c.evaluation_id == evaluation_id)
        if after is not None:
            query = query.where(results.c.item_id > after)
        found: list[ItemResult] = []
        size = 0
        with self._database.read() as session:
            ordered = query.order_by(results.c.item_id)
            if wanted == _ALL_ITEMS:
                ordered = ordered.limit(limit + 1)
            for (value,) in session.execute(ordered.execution_options(yield_per=_ROWS)):
                check()
                result = ItemResult.model_validate(value)
                if not wanted.takes(result):
                    continue
                size += result.size_bytes
                if found and (len(found) == limit or size > _PAGE_BYTES):
                    return found, False
                found.append(result)
        return found, True

    def all_results(self, evaluation_id: str) -> Iterator[ItemResult]:
        """All results, ordered by item id; a few at a time are in memory."""
        query = select(results.c.result).where(results.c.evaluation_id == evaluation_id)
        with self._database.read() as session:
            ordered = query.order_by(results.c.item_id).execution_options(yield_per=_ROWS)
            for value in session.execute(ordered).scalars():
                check()
                yield ItemResult.model_validate(value)


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
    return EvalSet(
        id=row.id,
        description=row.description,
        digest=row.digest,
        item_count=row.item_count,
        create_time=row.create_time,
        items=items,
    )


def _values(evaluation: Evaluation) -> dict[str, Any]:
    return {
        "id": evaluation.id,
        "state": evaluation.state.value,
        "spec": _dump(evaluation.spec),
        "inputs": _dump(evaluation.inputs),
        "stage_timings": [],
        "attempt_count": evaluation.attempt_count,
        "create_time": evaluation.create_time,
    }


def _changed(changes: EvaluationUpdate) -> dict[str, Any]:
    """The columns that ``changes`` sets."""
    values: dict[str, Any] = {}
    for name in type(changes).model_fields:
        value = getattr(changes, name)
        if value is not None:
            values[name] = _dump(value) if isinstance(value, BaseModel) else value
    if changes.stage_timings is not None:
        values["stage_timings"] = [_dump(timing) for timing in changes.stage_timings]
    return values


def _evaluation(row: Any) -> Evaluation:
    def optional(kind: Any, value: Any) -> Any:
        return None if value is None else kind.model_validate(value)

    return Evaluation(
        id=row.id,
        spec=EvaluationSpec.model_validate(row.spec),
        inputs=EvaluationInput.model_validate(row.inputs),
        state=JobState(row.state),
        create_time=row.create_time,
        attempt_count=row.attempt_count,
        start_time=row.start_time,
        end_time=row.end_time,
        progress=optional(Progress, row.progress),
        stage_timings=_STAGES.validate_python(row.stage_timings),
        error=optional(JobError, row.error),
        summary=optional(Summary, row.summary),
        manifest=optional(Manifest, row.manifest),
        manifest_file=optional(StoredFile, row.manifest_file),
    )


def _dump(value: BaseModel) -> Any:
    return value.model_dump(mode="json")


def _not_found(reason: str, name: str) -> NotFound:
    return NotFound(f"name: {name} does not exist", reason=reason, metadata={"name": name})

"""Evaluations and their results in the database."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel
from sqlalchemy import delete, insert, or_, select, update
from sqlalchemy.orm import Session

from tunix_rt_evaluator.eval_sets.repository import living_eval_set
from tunix_rt_evaluator.evaluations.model import (
    Evaluation,
    EvaluationFilter,
    EvaluationUpdate,
    ItemFilter,
    ItemResult,
    evaluation_name,
)
from tunix_rt_evaluator.tables import VERSION_TABLE, evaluations, reports, requests, results
from tunix_rt_kit.callers import check
from tunix_rt_kit.database import (
    Database,
    Listing,
    RequestLog,
    change_labels,
    holds,
    label_values,
    row_fields,
    transaction_lock,
)
from tunix_rt_kit.errors import check_living, not_found
from tunix_rt_kit.serving.requests import in_order
from tunix_rt_kit.values import JobState, Labels, Order, Position, RequestKey, Stored, subjects

_UNFINISHED: Final = [state.value for state in JobState if not state.ended]
# What fits in one message of 4 MiB.
_PAGE_BYTES: Final = 7 << 19
_ROWS: Final = 200
_LISTING: Final = Listing(evaluations, evaluations.c.id)
_ALL_ITEMS: Final = ItemFilter()
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

    def requested(self, request: RequestKey) -> str | None:
        """Id of what a request made before; raises AlreadyExists(REQUEST_ID_REUSED)."""
        # A write, after which the call is carried to its end: who asks by request id may come back for it.
        with self._database.write() as session:
            return self._requests.made(session, request)

    def create(self, evaluation: Evaluation, request: RequestKey) -> str:
        """Store an evaluation, once for each request id, and return its id.

        Raises AlreadyExists(REQUEST_ID_REUSED).
        """

        def create() -> str:
            living_eval_set(session, evaluation.spec.eval_set)
            if evaluation.inputs.regrade is not None:
                self.require(session, [evaluation.inputs.regrade.source])
            labels = {name: getattr(evaluation, name) for name in Labels.model_fields}
            session.execute(
                insert(evaluations).values(
                    **_columns(evaluation) | {"create_time": evaluation.create_time},
                    **listed_by([evaluation]),
                    **label_values(labels),
                )
            )
            return evaluation.id

        with self._database.write() as session:
            return self._requests.once(session, request, create)[0]

    def get(self, evaluation_id: str) -> Evaluation:
        """One evaluation; raises NotFound(EVALUATION_NOT_FOUND)."""
        with self._database.read() as session:
            row = session.execute(select(evaluations).where(evaluations.c.id == evaluation_id)).one_or_none()
        if row is None:
            raise not_found(evaluation_name(evaluation_id), "EVALUATION")
        return _evaluation(row)

    def living(self, evaluation_id: str) -> Evaluation:
        """As ``get``; raises NotFound(EVALUATION_NOT_FOUND) for one that was deleted, too."""
        found = self.get(evaluation_id)
        check_living(evaluation_name(evaluation_id), "EVALUATION", found.delete_time)
        return found

    @staticmethod
    def require(session: Session, evaluation_ids: Iterable[str]) -> None:
        """Keep evaluations from being deleted until the session's end.

        Raises NotFound(EVALUATION_NOT_FOUND) if one was deleted.
        """
        for evaluation_id in sorted(set(evaluation_ids)):
            transaction_lock(session, f"evaluation {evaluation_id}")
            query = select(evaluations.c.delete_time).where(evaluations.c.id == evaluation_id)
            row = session.execute(query).one_or_none()
            if row is not None:
                check_living(evaluation_name(evaluation_id), "EVALUATION", row.delete_time)

    def delete(self, evaluation_id: str, check: Callable[[Evaluation, Mapping[str, bool]], None]) -> None:
        """Mark an evaluation as deleted and forget its answers, unless ``check`` raises.

        ``check`` is given the evaluation, and the reports and regrades that were made from it, with whether
        each is still made; none comes before the mark is there.
        """
        table = evaluations.c
        with self._database.write() as session:
            transaction_lock(session, f"evaluation {evaluation_id}")
            row = session.execute(select(evaluations).where(table.id == evaluation_id)).one_or_none()
            if row is None:
                return
            check(_evaluation(row), {**_regrades(session, evaluation_id), **_reports(session, evaluation_id)})
            session.execute(
                update(evaluations).where(table.id == evaluation_id).values(delete_time=datetime.now(UTC))
            )
            session.execute(delete(results).where(results.c.evaluation_id == evaluation_id))

    def stored(self, root: Path) -> list[Stored]:
        """All evaluations as what they take of the disk; ``root`` has their folders."""
        table = evaluations.c
        query = select(table.id, table.state, table.inputs, table.manifest_file, table.delete_time)
        found = []
        with self._database.read() as session:
            for row in session.execute(query):
                checkpoint = row.inputs.get("checkpoint") or {}
                needs = frozenset(str(file["digest"]) for file in checkpoint.get("files", ()))
                unfinished = row.state in _UNFINISHED
                own = [row.manifest_file["digest"]] if row.manifest_file else []
                found.append(
                    Stored(
                        "evaluation",
                        evaluation_name(row.id),
                        frozenset(own),
                        needs=needs if unfinished else frozenset(),
                        folder=str(root / row.id),
                        deleted=row.delete_time is not None,
                        unfinished=unfinished,
                    )
                )
        return found

    def page(
        self, wanted: EvaluationFilter, order: Order, after: Position | None, limit: int
    ) -> Sequence[tuple[Evaluation, Position]]:
        """Up to ``limit`` evaluations that are wanted, in that order, from behind ``after`` on."""
        return _LISTING.page(self._database, wanted, order, after, limit, _evaluation)

    def set_labels(self, evaluation_id: str, labels: Mapping[str, Any]) -> None:
        """Change what people call an evaluation, if it is there."""
        with self._database.write() as session:
            change_labels(session, evaluations, labels, evaluations.c.id == evaluation_id)

    def labels(self, ids: Collection[str]) -> Mapping[str, Mapping[str, Any]]:
        """What people call evaluations, by the ids of those that are there."""
        columns = [evaluations.c[name] for name in Labels.model_fields]
        with self._database.read() as session:
            rows = session.execute(select(evaluations.c.id, *columns).where(evaluations.c.id.in_(set(ids))))
            return {row.id: row_fields(row, Labels) | {"tags": tuple(row.tags)} for row in rows}

    def unfinished(self, *, regrades: bool) -> Sequence[tuple[str, JobState]]:
        """Ids and states of the evaluations that have not ended, oldest first: of those that generate, or of
        those that only grade."""
        table = evaluations.c
        query = select(table.id, table.state, table.inputs).where(table.state.in_(_UNFINISHED))
        with self._database.read() as session:
            rows = session.execute(query.order_by(table.id))
            return [
                (row.id, JobState(row.state)) for row in rows if bool(row.inputs.get("regrade")) is regrades
            ]

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

    def results_in_order(
        self, evaluation_id: str, order: Order, after: Position | None, limit: int, wanted: ItemFilter
    ) -> tuple[Sequence[tuple[ItemResult, Position]], bool]:
        """Up to ``limit`` wanted results that fit in one message, in an order and from behind a place on,
        each with its place; whether they are the last."""
        # Places first: all results must not be in memory at once.
        places = (_place(result) for result in self.all_results(evaluation_id) if wanted.takes(result))
        by = [*order, ("item_id", order[-1][1])]
        asked = in_order(places, lambda place: place, by, after, limit + 1)
        found: list[tuple[ItemResult, Position]] = []
        size = 0
        with self._database.read() as session:
            for place, at in asked[:limit]:
                here = (results.c.evaluation_id == evaluation_id, results.c.item_id == place["item_id"])
                value = session.execute(select(results.c.result).where(*here)).scalar_one_or_none()
                if value is None:
                    # The evaluation was deleted in between.
                    continue
                result = ItemResult.model_validate(value)
                size += result.size_bytes
                if found and size > _PAGE_BYTES:
                    return found, False
                found.append((result, at))
        return found, len(asked) <= limit or not found

    def all_results(self, evaluation_id: str) -> Iterator[ItemResult]:
        """All results, ordered by item id; a few at a time are in memory."""
        query = select(results.c.result).where(results.c.evaluation_id == evaluation_id)
        with self._database.read() as session:
            ordered = query.order_by(results.c.item_id).execution_options(yield_per=_ROWS)
            for value in session.execute(ordered).scalars():
                check()
                yield ItemResult.model_validate(value)


def listed_by(evaluations: Sequence[Evaluation], *, named: bool = False) -> dict[str, Any]:
    """What lists are filtered and ordered by, of an entry about ``evaluations``: the first one's eval set,
    base model and dataset, and ``subjects`` of all of them: with their names where they are ``named``, else
    with those of the evaluations that they regrade."""
    checkpoints = [entry.inputs.checkpoint for entry in evaluations]
    eval_sets = [f"evalSets/{entry.spec.eval_set}" for entry in evaluations]
    models = [entry.inputs.base_model for entry in evaluations]
    datasets = [checkpoint.dataset if checkpoint else "" for checkpoint in checkpoints]
    regrades = [] if named else [entry.inputs.regrade for entry in evaluations]
    return {
        "eval_set": eval_sets[0],
        "base_model": models[0],
        "dataset": datasets[0],
        "subjects": subjects(
            models=[*models, *(checkpoint.name for checkpoint in checkpoints if checkpoint)],
            datasets=datasets,
            eval_sets=eval_sets,
            evaluations=[evaluation_name(entry.id) for entry in evaluations] if named else (),
            regraded=[evaluation_name(regrade.source) for regrade in regrades if regrade],
        ),
    }


def _regrades(session: Session, evaluation_id: str) -> dict[str, bool]:
    table, about = evaluations.c, f"regraded {evaluation_name(evaluation_id)}"
    of_it = holds(table.subjects, about, session.get_bind().dialect.name)
    query = select(table.id, table.state).where(table.delete_time.is_(None), of_it)
    return {evaluation_name(row.id): not JobState(row.state).ended for row in session.execute(query)}


def _reports(session: Session, evaluation_id: str) -> dict[str, bool]:
    about = f"evaluations {evaluation_name(evaluation_id)}"
    # A report of an older version does not say here what it compares: it may be this one.
    may_be_it = or_(
        reports.c.facts.is_(None), holds(reports.c.subjects, about, session.get_bind().dialect.name)
    )
    query = select(reports.c.id).where(reports.c.delete_time.is_(None), may_be_it)
    return {f"comparisonReports/{report_id}": False for report_id in session.execute(query).scalars()}


def _changed(changes: EvaluationUpdate) -> dict[str, Any]:
    """The columns that ``changes`` sets."""
    values = _columns(changes)
    if changes.start_time is not None:
        values["start_time"] = changes.start_time
    if changes.summary is not None:
        values["accuracy"] = changes.summary.overall.accuracy
    return values


def _columns(value: BaseModel) -> dict[str, Any]:
    """What stands in columns as JSON, without what is None."""
    return {name: dumped for name, dumped in _dump(value).items() if dumped is not None}


def _evaluation(row: Any) -> Evaluation:
    return Evaluation.model_validate(row_fields(row, Evaluation))


def _place(result: ItemResult) -> dict[str, Any]:
    """What a result has in the fields by which lists of results are ordered."""
    return {
        "item_id": result.item_id,
        "category": result.category,
        "score": result.verdict.value,
        "output_tokens": sum(answer.output_tokens for answer in result.generation.answers),
    }


def _dump(value: BaseModel) -> Any:
    return value.model_dump(mode="json")

"""What the evaluator does with eval sets: each is checked, and named by its content."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from pydantic import ValidationError

from tunix_rt_evaluator.eval_sets.model import (
    EVAL_SET_NAME,
    MAX_ACCEPTED_ANSWERS,
    MAX_DESCRIPTION,
    MAX_EVAL_SET_BYTES,
    MAX_ITEMS,
    EvalItem,
    EvalSet,
    EvalSetDraft,
    EvalSetFilter,
)
from tunix_rt_evaluator.grading.model import kinds
from tunix_rt_evaluator.grading.service import Grading
from tunix_rt_kit.callers import check
from tunix_rt_kit.canonical import digest_json
from tunix_rt_kit.errors import InvalidArgument
from tunix_rt_kit.serving.requests import (
    Violations,
    check_id,
    checked_labels,
    field_path,
    field_problems,
    listed,
    parse_name,
)
from tunix_rt_kit.values import NO_LABELS, ListAsked, Order, Page, Position, RequestKey

EVAL_SET_INVALID: Final = "EVAL_SET_INVALID"


def checked_items(draft: EvalSetDraft, grading: Grading) -> tuple[EvalItem, ...]:
    """The items of an eval set, ordered by id, every limit checked.

    An item without a grader gets the numeric one if every accepted answer is a number, math if every one is a
    number or mathematics, else the text one.

    Raises:
        InvalidArgument: RESOURCE_ID_INVALID, or EVAL_SET_INVALID that names every wrong field.
    """
    check_id(draft.id, "eval_set.eval_set_id")
    wrong = Violations()
    wrong.check(
        len(draft.description) <= MAX_DESCRIPTION and "\0" not in draft.description,
        "eval_set.description",
        f"has {len(draft.description):,} characters; at most {MAX_DESCRIPTION:,} without NUL would be right",
    )
    wrong.check(
        1 <= len(draft.items) <= MAX_ITEMS,
        "eval_set.items",
        f"holds {len(draft.items):,} items; 1 to {MAX_ITEMS:,} would be right",
    )
    wrong.check(
        draft.size_bytes <= MAX_EVAL_SET_BYTES,
        "eval_set.items",
        f"are {draft.size_bytes:,} bytes encoded; at most {MAX_EVAL_SET_BYTES:,} would be right",
    )
    wrong.raise_if_any(EVAL_SET_INVALID)
    for index, item in enumerate(draft.items):
        # Not in EvalItem: sets that were stored before there was this limit must stay readable.
        accepted = len(item["accepted_answers"])
        wrong.check(
            accepted <= MAX_ACCEPTED_ANSWERS,
            f"eval_set.items[{index}].accepted_answers",
            f"holds {accepted:,} answers; at most {MAX_ACCEPTED_ANSWERS} would be right",
        )
        grader = item.get("grader")
        known = grader is None or grader["kind"] in kinds()
        wrong.check(known, f"eval_set.items[{index}].grader", grading.unknown_kind)
    wrong.raise_if_any(EVAL_SET_INVALID)
    items: list[EvalItem] = []
    for index, fields in enumerate(draft.items):
        check()
        try:
            items.append(EvalItem.model_validate(_with_grader(fields)))
        except ValidationError as error:
            for location, description in field_problems(error):
                wrong.add(field_path(("eval_set", "items", index, *location)), description)
        if wrong.enough:
            break
    wrong.raise_if_any(EVAL_SET_INVALID)
    _check_duplicates(items, wrong)
    _check_contents(items, grading, wrong)
    wrong.raise_if_any(EVAL_SET_INVALID)
    return tuple(sorted(items, key=lambda item: item.id))


def items_digest(items: Sequence[EvalItem]) -> str:
    """Digest of an eval set: of its items, whatever their order."""
    ordered = sorted(items, key=lambda item: item.id)
    return digest_json({"items": [item.model_dump(mode="json") for item in ordered]})


def item_digest(item: EvalItem) -> str:
    """Digest of an item's content, by which evaluations are paired."""
    return digest_json(item.model_dump(mode="json"))


def _with_grader(item: Mapping[str, Any]) -> Mapping[str, Any]:
    if item.get("grader") is not None:
        return item
    # The readers' many patterns take half a second to compile: not at the server's start.
    from tunix_rt_evaluator.grading.graders.math import is_mathematics
    from tunix_rt_evaluator.grading.reading.statements import read_number

    answers = item["accepted_answers"]
    numbers = [read_number(answer) is not None for answer in answers]
    formulas = [number or is_mathematics(answer) for number, answer in zip(numbers, answers, strict=True)]
    kind = "numeric" if all(numbers) else "math" if all(formulas) else "text"
    return {**item, "grader": {"kind": kind if answers else "text"}}


def _check_duplicates(items: Sequence[EvalItem], wrong: Violations) -> None:
    for field in ("id", "prompt"):
        first: dict[str, int] = {}
        for index, item in enumerate(items):
            earlier = first.setdefault(getattr(item, field), index)
            wrong.check(
                earlier == index,
                f"eval_set.items[{index}].{field}",
                f"is the same as that of items[{earlier}] ({items[earlier].id!r}); each must be different",
            )


def _check_contents(items: Sequence[EvalItem], grading: Grading, wrong: Violations) -> None:
    for index, item in enumerate(items):
        check()
        if wrong.enough:
            return
        try:
            # Not of a dump: pydantic writes infinity as null.
            digest_json(dict(item.metadata))
        except InvalidArgument as error:
            wrong.add(f"eval_set.items[{index}].metadata", error.message)
        for path, description in grading.problems(item):
            wrong.add(field_path(("eval_set", "items", index, *path)), description)


class EvalSetRepository(Protocol):
    """Where eval sets are kept."""

    def create(
        self, eval_set: EvalSet, request: RequestKey, labels: Mapping[str, Any] = NO_LABELS
    ) -> str: ...
    def get(self, eval_set_id: str) -> EvalSet: ...
    def page(
        self, wanted: EvalSetFilter, order: Order, after: Position | None, limit: int
    ) -> Sequence[tuple[EvalSet, Position]]: ...
    def set_labels(self, eval_set_id: str, labels: Mapping[str, Any]) -> None: ...


class EvalSetService:
    """The use cases. Every method raises InvalidArgument that names each wrong field, NotFound, and what
    the repository raises."""

    def __init__(self, repository: EvalSetRepository, grading: Grading) -> None:
        self._repository = repository
        self._grading = grading

    def create_eval_set(self, draft: EvalSetDraft, request_id: str) -> EvalSet:
        """Store an eval set; the same id and items give the stored one, other items are AlreadyExists."""
        labels = checked_labels(draft.labels, "eval_set")
        items = checked_items(draft, self._grading)
        digest = items_digest(items)
        eval_set = EvalSet(
            id=draft.id,
            description=draft.description,
            digest=digest,
            item_count=len(items),
            create_time=datetime.now(UTC),
            items=items,
        )
        body = digest_json({"id": draft.id, "description": draft.description, "items": digest, **labels})
        request = RequestKey("CreateEvalSet", request_id, body)
        return self._repository.get(self._repository.create(eval_set, request, labels))

    def get_eval_set(self, name: str) -> EvalSet:
        """One eval set with its items."""
        return self._repository.get(parse_name(EVAL_SET_NAME, name))

    def list_eval_sets(self, asked: ListAsked) -> Page[EvalSet]:
        """One page of those that are wanted, without items, the newest first unless another order is asked
        for."""
        return listed("ListEvalSets", EvalSetFilter, asked, self._repository.page)

    def update_eval_set(self, name: str, labels: Mapping[str, Any]) -> EvalSet:
        """Change what people call an eval set: those of its labels that are given."""
        eval_set_id = parse_name(EVAL_SET_NAME, name, "eval_set.name")
        self._repository.set_labels(eval_set_id, checked_labels(labels, "eval_set"))
        return self._repository.get(eval_set_id)

"""What the evaluator does with eval sets: each is checked, and named by its content."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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
    EvalSetOrigin,
)
from tunix_rt_evaluator.grading.model import Verdict, kinds
from tunix_rt_evaluator.grading.service import Grading
from tunix_rt_kit.callers import check
from tunix_rt_kit.canonical import digest_bytes, digest_json
from tunix_rt_kit.errors import FieldViolation, InvalidArgument, check_unused
from tunix_rt_kit.serving.requests import (
    Violations,
    check_id,
    checked_labels,
    field_path,
    listed,
    parse_name,
    validated,
)
from tunix_rt_kit.values import NO_LABELS, ListAsked, Order, Page, Position, RequestKey

EVAL_SET_INVALID: Final = "EVAL_SET_INVALID"
MAX_OUTPUT: Final = 1 << 20


def checked_items(draft: EvalSetDraft, grading: Grading, *, keep: bool = True) -> tuple[EvalItem, ...]:
    """The items of an eval set, ordered by id, every limit checked.

    An item without a grader gets the numeric one if every accepted answer is a number, math if every one is a
    number or mathematics, else the text one.

    Raises:
        InvalidArgument: RESOURCE_ID_INVALID, or EVAL_SET_INVALID that names every wrong field.
        FailedPrecondition: graders that users wrote are not run here.
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
    _check_forms(draft, grading, wrong)
    sources = {digest_bytes(source.encode()): source for source in draft.python_sources}
    items: list[EvalItem] = []
    for index, fields in enumerate(draft.items):
        check()
        try:
            items.append(EvalItem.model_validate(_with_grader(_with_source(fields, sources))))
        except ValidationError as error:
            wrong.add_problems(error, "eval_set", "items", index)
        if wrong.enough:
            break
    wrong.raise_if_any(EVAL_SET_INVALID)
    _check_duplicates(items, wrong)
    _check_contents(items, grading, wrong)
    wrong.raise_if_any(EVAL_SET_INVALID)
    items = _admitted(items, grading, wrong, keep=keep)
    wrong.raise_if_any(EVAL_SET_INVALID)
    _check_size(draft, items, grading, wrong)
    return tuple(sorted(items, key=lambda item: item.id))


def _check_forms(draft: EvalSetDraft, grading: Grading, wrong: Violations) -> None:
    """Raise InvalidArgument for items with too many answers, or graders of no kind that is known."""
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


def checked_origin(fields: Mapping[str, Any] | None) -> EvalSetOrigin | None:
    """Where a caller says that items come from; raises InvalidArgument(EVAL_SET_INVALID)."""
    if fields is None:
        return None
    wrong = Violations()
    origin = validated(EvalSetOrigin, fields, "eval_set.origin", wrong)
    wrong.raise_if_any(EVAL_SET_INVALID)
    return origin


def items_digest(items: Sequence[EvalItem]) -> str:
    """Digest of an eval set: of its items, whatever their order."""
    ordered = sorted(items, key=lambda item: item.id)
    return digest_json({"items": [item.model_dump(mode="json") for item in ordered]})


def item_digest(item: EvalItem) -> str:
    """Digest of an item's content, by which evaluations are paired."""
    return digest_json(item.model_dump(mode="json"))


def _with_source(item: Mapping[str, Any], sources: Mapping[str, str]) -> Mapping[str, Any]:
    """The item with the source code that its grader names, where the set brings it."""
    grader = item.get("grader")
    if grader is None or grader.get("source") or grader.get("source_digest", "") not in sources:
        return item
    return {**item, "grader": {**grader, "source": sources[grader["source_digest"]]}}


def _admitted(
    items: Sequence[EvalItem], grading: Grading, wrong: Violations, *, keep: bool
) -> list[EvalItem]:
    """The items, with graders whose source codes were looked at."""
    found: list[EvalItem] = []
    graders = grading.admitted((item.grader for item in items), keep=keep)
    for index, (item, (grader, problem)) in enumerate(zip(items, graders, strict=True)):
        check()
        wrong.check(not problem, f"eval_set.items[{index}].grader.python.source", problem)
        found.append(item if grader is item.grader else item.model_copy(update={"grader": grader}))
    return found


def _check_size(draft: EvalSetDraft, items: Sequence[EvalItem], grading: Grading, wrong: Violations) -> None:
    """An answer holds every source code, those too that were stored before and named by digest."""
    sent = set(draft.python_sources)
    added = sum(len(source.encode()) for source in grading.sources(items) if source not in sent)
    total = draft.size_bytes + added
    wrong.check(
        total <= MAX_EVAL_SET_BYTES,
        "eval_set.items",
        f"are {total:,} bytes encoded with their graders' sources; at most {MAX_EVAL_SET_BYTES:,} would be "
        "right",
    )
    wrong.raise_if_any(EVAL_SET_INVALID)


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
    firsts: tuple[dict[str, int], dict[str, int]] = ({}, {})
    for index, item in enumerate(items):
        asked = "prompt" if item.prompt else "messages"
        for first, field, value in zip(firsts, ("id", asked), (item.id, item.question), strict=True):
            earlier = first.setdefault(value, index)
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


@dataclass(frozen=True, slots=True)
class GradedAnswer:
    """The grade of one answer, the grader's version, and what the grader could not be kept from."""

    verdict: Verdict
    grader: str
    warnings: Sequence[str]


def _of_item(error: InvalidArgument) -> InvalidArgument:
    """An error of an eval set of one item, as one of that item."""
    prefix = "eval_set.items[0]"
    return InvalidArgument(
        error.message.replace(prefix, "item"),
        reason="ANSWER_INVALID",
        violations=[
            FieldViolation(wrong.field.replace(prefix, "item"), wrong.description)
            for wrong in error.violations
        ],
    )


class EvalSetRepository(Protocol):
    """Where eval sets are kept."""

    def create(
        self, eval_set: EvalSet, request: RequestKey, labels: Mapping[str, Any] = NO_LABELS
    ) -> str: ...
    def get(self, eval_set_id: str) -> EvalSet: ...
    def find(self, eval_set_id: str) -> EvalSet: ...
    def delete(self, eval_set_id: str, check: Callable[[Mapping[str, bool]], None]) -> None: ...
    def page(
        self, wanted: EvalSetFilter, order: Order, after: Position | None, limit: int
    ) -> Sequence[tuple[EvalSet, Position]]: ...
    def set_labels(self, eval_set_id: str, labels: Mapping[str, Any]) -> None: ...


class DecontaminatedDatasets(Protocol):
    """The exporter's datasets."""

    def made_without(self, eval_set: str) -> Mapping[str, bool]:
        """Those from which the items of an eval set were kept out, with whether each is still built; raises
        Unavailable."""


class EvalSetService:
    """The use cases. Every method raises InvalidArgument that names each wrong field, NotFound, and what
    the repository raises."""

    def __init__(
        self, repository: EvalSetRepository, grading: Grading, datasets: DecontaminatedDatasets
    ) -> None:
        self._repository = repository
        self._grading = grading
        self._datasets = datasets

    def create_eval_set(self, draft: EvalSetDraft, request_id: str) -> EvalSet:
        """Store an eval set; the same id and items give the stored one, other items are AlreadyExists."""
        labels = checked_labels(draft.labels, "eval_set")
        items = checked_items(draft, self._grading)
        origin = checked_origin(draft.origin)
        digest = items_digest(items)
        eval_set = EvalSet(
            id=draft.id,
            description=draft.description,
            digest=digest,
            item_count=len(items),
            create_time=datetime.now(UTC),
            items=items,
            origin=origin,
        )
        body = digest_json({"id": draft.id, "description": draft.description, "items": digest, **labels})
        request = RequestKey("CreateEvalSet", request_id, body)
        # What this very request made before may be deleted by now.
        return self._with_sources(self._repository.find(self._repository.create(eval_set, request, labels)))

    def get_eval_set(self, name: str) -> EvalSet:
        """One eval set with its items; one that was deleted has none."""
        return self._with_sources(self._repository.find(parse_name(EVAL_SET_NAME, name)))

    def _with_sources(self, eval_set: EvalSet) -> EvalSet:
        return eval_set.model_copy(update={"python_sources": self._grading.sources(eval_set.items or ())})

    def grade_answer(self, fields: Mapping[str, Any], output: str, *, truncated: bool) -> GradedAnswer:
        """The grade of one answer to one question; nothing is stored.

        Raises InvalidArgument(ANSWER_INVALID), and FailedPrecondition where its grader does not run here.
        """
        if len(output) > MAX_OUTPUT:
            description = f"has {len(output):,} characters; at most {MAX_OUTPUT:,} would be right"
            raise InvalidArgument.of_field("output", description, reason="ANSWER_INVALID")
        prompt = fields["prompt"] or ("" if fields["messages"] else "(no question)")
        given = {**fields, "id": fields["id"] or "item", "prompt": prompt}
        try:
            item = checked_items(EvalSetDraft("item", "", [given], 0), self._grading, keep=False)[0]
        except InvalidArgument as error:
            raise _of_item(error) from None
        verdict = self._grading.grade(item, output, cut=truncated)
        version = self._grading.version(item.grader)
        warnings = self._grading.python.warnings if item.grader.kind == "python" else ()
        return GradedAnswer(verdict, version, warnings)

    def delete_eval_set(self, name: str, *, force: bool) -> EvalSet:
        """Delete an eval set; what it was stays on record.

        Raises NotFound(EVAL_SET_NOT_FOUND), also if it is deleted already; Unavailable, the exporter cannot
        tell what datasets were made with it; FailedPrecondition(EVAL_SET_IN_USE), evaluations or datasets
        were, and not ``force``, or are made now.
        """
        eval_set_id = parse_name(EVAL_SET_NAME, name)
        self._repository.get(eval_set_id)
        datasets = self._datasets.made_without(name)

        def check(evaluations: Mapping[str, bool]) -> None:
            check_unused(name, "EVAL_SET", {**evaluations, **datasets}, force=force)

        self._repository.delete(eval_set_id, check)
        return self._repository.find(eval_set_id)

    def list_eval_sets(self, asked: ListAsked) -> Page[EvalSet]:
        """One page of those that are wanted, without items, the newest first unless another order is asked
        for."""
        return listed("ListEvalSets", EvalSetFilter, asked, self._repository.page)

    def update_eval_set(self, name: str, labels: Mapping[str, Any]) -> EvalSet:
        """Change what people call an eval set: those of its labels that are given."""
        eval_set_id = parse_name(EVAL_SET_NAME, name, "eval_set.name")
        self._repository.set_labels(eval_set_id, checked_labels(labels, "eval_set"))
        return self._with_sources(self._repository.get(eval_set_id))

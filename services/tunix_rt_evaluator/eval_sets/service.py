"""What the evaluator does with eval sets."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Protocol

from tunix_rt_evaluator.eval_sets.admission import checked_items, items_digest
from tunix_rt_evaluator.eval_sets.model import EVAL_SET_NAME, EvalSet, EvalSetDraft
from tunix_rt_evaluator.grading.service import Grading
from tunix_rt_kit.artifacts import digest_json
from tunix_rt_kit.serving.resources import Paging, parse_name
from tunix_rt_kit.values import Page, RequestKey


class EvalSetRepository(Protocol):
    """Where eval sets are kept."""

    def create(self, eval_set: EvalSet, request: RequestKey) -> str: ...
    def get(self, eval_set_id: str) -> EvalSet: ...
    def newest(self, before: tuple[str, str] | None, limit: int) -> Sequence[EvalSet]: ...


class EvalSetService:
    """The use cases. Every method raises InvalidArgument that names each wrong field, NotFound, and what
    the repository raises."""

    def __init__(self, repository: EvalSetRepository, grading: Grading) -> None:
        self._repository = repository
        self._grading = grading

    def create_eval_set(self, draft: EvalSetDraft, request_id: str) -> EvalSet:
        """Store an eval set; the same id and items give the stored one, other items are AlreadyExists."""
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
        body = digest_json({"id": draft.id, "description": draft.description, "items": digest})
        request = RequestKey("CreateEvalSet", request_id, body)
        return self._repository.get(self._repository.create(eval_set, request))

    def get_eval_set(self, name: str) -> EvalSet:
        """One eval set with its items."""
        return self._repository.get(parse_name(EVAL_SET_NAME, name))

    def list_eval_sets(self, size: int, page_token: str) -> Page[EvalSet]:
        """One page without items, newest first."""
        paging = Paging(size, page_token, method="ListEvalSets")
        time, last_id = paging.after("time"), paging.after("id")
        before = None if time is None else (time, last_id)
        found = self._repository.newest(before, paging.limit + 1)
        return paging.page(found, lambda entry: {"time": entry.create_time.isoformat(), "id": entry.id})

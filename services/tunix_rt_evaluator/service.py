"""What the evaluator does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal, Protocol, TypeVar

from tunix_rt_evaluator.admission import check_weights, checked_spec, with_template
from tunix_rt_evaluator.comparison import check_sound, compared, report_id
from tunix_rt_evaluator.eval_sets import checked_items, items_digest
from tunix_rt_evaluator.model import (
    BaseModelFacts,
    ChatTemplateFields,
    CheckpointInput,
    ComparisonContent,
    ComparisonReport,
    EvalSet,
    EvalSetDraft,
    Evaluation,
    EvaluationInput,
    EvaluationSpecDraft,
    EvaluationState,
    EvaluationUpdate,
    ItemResult,
    StoredFile,
    TrainingStep,
)
from tunix_rt_evaluator.names import EVAL_SET_NAME, EVALUATION_NAME, REPORT_NAME, report_name
from tunix_rt_kit.artifacts import digest_json
from tunix_rt_kit.errors import FailedPrecondition, FieldViolation, InvalidArgument, NotFound
from tunix_rt_kit.serving.paging import decode_page_token, encode_page_token, page_size
from tunix_rt_kit.serving.resources import new_id, parse_name

DocumentFormat = Literal["markdown", "json", "html"]
T = TypeVar("T")

METRICS_FILE: Final = "metrics.jsonl"
# Of a page: the evaluations of each report are in it.
MAX_REPORTS: Final = 100


@dataclass(frozen=True, slots=True)
class RequestKey:
    """What makes a create the same one: its method, its request id, and a digest of its body."""

    method: str
    request_id: str
    digest: str


class EvaluationRepository(Protocol):
    """Where eval sets, evaluations and reports are kept."""

    def create_eval_set(self, eval_set: EvalSet, request: RequestKey) -> str: ...
    def eval_set(self, eval_set_id: str) -> EvalSet: ...
    def newest_eval_sets(self, before: tuple[str, str] | None, limit: int) -> Sequence[EvalSet]: ...
    def requested(self, request: RequestKey) -> str | None: ...
    def create(self, evaluation: Evaluation, request: RequestKey) -> str: ...
    def get(self, evaluation_id: str) -> Evaluation: ...
    def newest(self, before: str | None, limit: int) -> Sequence[Evaluation]: ...
    def unfinished(self) -> Sequence[str]: ...
    def change_state(
        self,
        evaluation_id: str,
        expected: Sequence[EvaluationState],
        state: EvaluationState,
        changes: EvaluationUpdate = ...,
    ) -> bool: ...
    def save(self, evaluation_id: str, changes: EvaluationUpdate) -> None: ...
    def answered(self, evaluation_id: str) -> set[str]: ...
    def add_results(self, evaluation_id: str, results: Sequence[ItemResult]) -> None: ...
    def results_page(
        self, evaluation_id: str, after: str | None, limit: int
    ) -> tuple[Sequence[ItemResult], bool]: ...
    def all_results(self, evaluation_id: str) -> Sequence[ItemResult]: ...
    def report(self, report_id: str) -> StoredReport | None: ...
    def reports(self, after: str | None, limit: int) -> Sequence[StoredReport]: ...
    def add_report(self, report: StoredReport) -> None: ...


@dataclass(frozen=True, slots=True)
class StoredReport:
    """Where a comparison report is kept: ``digest`` names its content, ``documents`` its renderings by
    format."""

    id: str
    digest: str
    documents: Mapping[str, StoredFile]
    create_time: datetime


class Checkpoints(Protocol):
    """The trainer's checkpoints."""

    def get(self, name: str) -> CheckpointInput:
        """One checkpoint; raises NotFound, and Unavailable if the trainer cannot be reached."""


class BaseModels(Protocol):
    """The base models on this host, and those that can be fetched."""

    def resolve(self, base_model: str) -> BaseModelFacts:
        """What a name means; raises NotFound(BASE_MODEL_UNKNOWN), FailedPrecondition."""

    def check_template(self, model: BaseModelFacts, template: ChatTemplateFields) -> None:
        """Raises FailedPrecondition(CHAT_TEMPLATE_MISMATCH) for a control text that is no token."""


class JobQueue(Protocol):
    """Runs evaluations."""

    def submit(self, evaluation_id: str) -> None:
        """Put one that was stored at the end of the queue."""

    def stop_job(self, evaluation_id: str, *, at_once: bool) -> None:
        """Ask a running one to stop at its next opportunity, or end it at once."""


class Reports(Protocol):
    """Keeps reports as documents."""

    def store(self, report_id: str, content: ComparisonContent) -> StoredReport:
        """Render and store a report."""

    def content(self, digest: str) -> ComparisonContent:
        """The content of a stored report."""

    def training(self, file: StoredFile) -> tuple[TrainingStep, ...]:
        """The training metrics in a checkpoint's file."""

    def chunks(self, document: StoredFile, offset: int) -> Iterator[bytes]:
        """A document's bytes from ``offset`` on."""


class EvaluatorService:
    """The use cases. Every method raises InvalidArgument that names each wrong field, NotFound, and what
    the ports raise."""

    def __init__(
        self,
        repository: EvaluationRepository,
        checkpoints: Checkpoints,
        models: BaseModels,
        queue: JobQueue,
        reports: Reports,
    ) -> None:
        self._repository = repository
        self._checkpoints = checkpoints
        self._models = models
        self._queue = queue
        self._reports = reports

    def create_eval_set(self, draft: EvalSetDraft, request_id: str) -> EvalSet:
        """Store an eval set; the same id and items give the stored one, other items are AlreadyExists."""
        items = checked_items(draft)
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
        return self._repository.eval_set(self._repository.create_eval_set(eval_set, request))

    def get_eval_set(self, name: str) -> EvalSet:
        """One eval set with its items."""
        return self._repository.eval_set(parse_name(EVAL_SET_NAME, name))

    def list_eval_sets(self, size: int, page_token: str) -> tuple[Sequence[EvalSet], str]:
        """One page without items, newest first, and the token of the next page (empty on the last)."""
        limit = page_size(size)
        listing = digest_json({"method": "ListEvalSets"})
        position = decode_page_token(page_token, listing)
        before = (position["time"], position["id"]) if position else None
        found = self._repository.newest_eval_sets(before, limit + 1)
        return _page(
            found, limit, listing, lambda entry: {"time": entry.create_time.isoformat(), "id": entry.id}
        )

    def create_evaluation(self, draft: EvaluationSpecDraft, request_id: str) -> Evaluation:
        """Put an evaluation into the queue, once for each request id."""
        spec = checked_spec(draft)
        request = RequestKey("CreateEvaluation", request_id, digest_json(spec.model_dump(mode="json")))
        known = self._repository.requested(request) if request_id else None
        if known is not None:
            return self._repository.get(known)
        eval_set = self._repository.eval_set(spec.eval_set)
        checkpoint = self._checkpoints.get(spec.checkpoint) if spec.checkpoint else None
        base_model = checkpoint.base_model if checkpoint else spec.base_model or ""
        model = self._models.resolve(base_model)
        check_weights(model, checkpoint)
        spec = with_template(spec, model, checkpoint)
        if spec.chat_template is not None:
            self._models.check_template(model, spec.chat_template)
        evaluation = Evaluation(
            id=new_id(),
            spec=spec,
            inputs=EvaluationInput(
                eval_set_digest=eval_set.digest, base_model=base_model, checkpoint=checkpoint
            ),
            state=EvaluationState.QUEUED,
            create_time=datetime.now(UTC),
        )
        stored = self._repository.create(evaluation, request)
        self._queue.submit(stored)
        return self._repository.get(stored)

    def get_evaluation(self, name: str) -> Evaluation:
        """One evaluation."""
        return self._repository.get(parse_name(EVALUATION_NAME, name))

    def list_evaluations(self, size: int, page_token: str) -> tuple[Sequence[Evaluation], str]:
        """One page, newest first, and the token of the next page (empty on the last)."""
        limit = page_size(size)
        listing = digest_json({"method": "ListEvaluations"})
        position = decode_page_token(page_token, listing)
        found = self._repository.newest(position["id"] if position else None, limit + 1)
        return _page(found, limit, listing, lambda evaluation: {"id": evaluation.id})

    def cancel_evaluation(self, name: str) -> Evaluation:
        """Ask an evaluation to stop; asked again, it is ended at once. An ended one stays as it is."""
        evaluation_id = parse_name(EVALUATION_NAME, name)
        evaluation = self._repository.get(evaluation_id)
        if evaluation.state.ended:
            return evaluation
        change = self._repository.change_state
        if not change(evaluation_id, [EvaluationState.QUEUED], EvaluationState.CANCELLED):
            again = not change(evaluation_id, [EvaluationState.RUNNING], EvaluationState.CANCELLING)
            self._queue.stop_job(evaluation_id, at_once=again)
        return self._repository.get(evaluation_id)

    def list_items(self, parent: str, size: int, page_token: str) -> tuple[Sequence[ItemResult], str]:
        """One page of results, by item id, and the token of the next page (empty on the last)."""
        evaluation_id = parse_name(EVALUATION_NAME, parent, "parent")
        limit = page_size(size)
        listing = digest_json({"method": "ListEvaluationItems", "parent": parent})
        position = decode_page_token(page_token, listing)
        self._repository.get(evaluation_id)
        found, last = self._repository.results_page(
            evaluation_id, position["id"] if position else None, limit
        )
        return found, "" if last else encode_page_token({"id": found[-1].item_id}, listing)

    def compare(self, base: str, candidate: str) -> ComparisonReport:
        """Compare two finished evaluations; comparing again gives the same report.

        Raises FailedPrecondition: EVALUATION_NOT_SUCCEEDED; COMPARISON_UNSOUND, naming all that differs.
        """
        first, second = self._succeeded(base, "base"), self._succeeded(candidate, "candidate")
        identity = report_id(first, second)
        stored = self._repository.report(identity)
        if stored is None:
            before, after = self._repository.all_results(first.id), self._repository.all_results(second.id)
            check_sound(first, before, second, after)
            content = compared(first, before, second, after, self._training(second))
            self._repository.add_report(self._reports.store(identity, content))
        return self._report(identity)

    def get_report(self, name: str) -> ComparisonReport:
        """One comparison report."""
        return self._report(parse_name(REPORT_NAME, name))

    def list_reports(self, size: int, page_token: str) -> tuple[Sequence[ComparisonReport], str]:
        """One page, ordered by id, and the token of the next page (empty on the last)."""
        limit = min(page_size(size), MAX_REPORTS)
        listing = digest_json({"method": "ListComparisonReports"})
        position = decode_page_token(page_token, listing)
        found = self._repository.reports(position["id"] if position else None, limit + 1)
        kept, token = _page(found, limit, listing, lambda report: {"id": report.id})
        return [self._read(stored) for stored in kept], token

    def read_report(
        self, name: str, format_: DocumentFormat, offset: int
    ) -> tuple[StoredFile, Iterator[bytes]]:
        """A report as a document, and its bytes from ``offset`` on."""
        stored = self._stored_report(parse_name(REPORT_NAME, name))
        document = stored.documents[format_]
        if not 0 <= offset <= document.size_bytes:
            description = f"{offset} is outside the document, which has {document.size_bytes} bytes"
            raise InvalidArgument(
                f"offset: {description}",
                reason="OFFSET_INVALID",
                violations=[FieldViolation("offset", description)],
            )
        return document, self._reports.chunks(document, offset)

    def _succeeded(self, name: str, field: str) -> Evaluation:
        evaluation = self._repository.get(parse_name(EVALUATION_NAME, name, field))
        if evaluation.state is not EvaluationState.SUCCEEDED:
            raise FailedPrecondition(
                f"{field}: {name} is {evaluation.state}; only one that SUCCEEDED can be compared",
                reason="EVALUATION_NOT_SUCCEEDED",
                metadata={"evaluation": name, "state": evaluation.state},
            )
        return evaluation

    def _training(self, evaluation: Evaluation) -> tuple[TrainingStep, ...]:
        checkpoint = evaluation.inputs.checkpoint
        files = checkpoint.files if checkpoint else ()
        file = next((file for file in files if file.path == METRICS_FILE), None)
        return self._reports.training(file) if file else ()

    def _stored_report(self, identity: str) -> StoredReport:
        stored = self._repository.report(identity)
        if stored is None:
            raise NotFound(
                f"name: {report_name(identity)} does not exist",
                reason="COMPARISON_REPORT_NOT_FOUND",
                metadata={"name": report_name(identity)},
            )
        return stored

    def _report(self, identity: str) -> ComparisonReport:
        return self._read(self._stored_report(identity))

    def _read(self, stored: StoredReport) -> ComparisonReport:
        return ComparisonReport(
            id=stored.id,
            digest=stored.digest,
            create_time=stored.create_time,
            content=self._reports.content(stored.digest),
        )


def _page(
    found: Sequence[T], limit: int, listing: str, position: Callable[[T], Mapping[str, Any]]
) -> tuple[Sequence[T], str]:
    if len(found) <= limit:
        return found, ""
    kept = found[:limit]
    return kept, encode_page_token(position(kept[-1]), listing)

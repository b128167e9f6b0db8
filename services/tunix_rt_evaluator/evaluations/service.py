"""What the evaluator does with evaluations."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

from tunix_rt_evaluator.eval_sets.service import EvalSetRepository
from tunix_rt_evaluator.evaluations.admission import (
    check_endpoint,
    check_judge,
    check_python,
    check_weights,
    checked_regrade,
    checked_spec,
    with_template,
)
from tunix_rt_evaluator.evaluations.job_folders import EvaluationSpeed
from tunix_rt_evaluator.evaluations.model import (
    EVALUATION_NAME,
    BaseModelFacts,
    CheckpointInput,
    Evaluation,
    EvaluationFilter,
    EvaluationInput,
    EvaluationSpec,
    EvaluationUpdate,
    ItemFilter,
    ItemResult,
    RegradeDraft,
)
from tunix_rt_evaluator.grading.graders.python import PythonGrader
from tunix_rt_evaluator.grading.service import Grading
from tunix_rt_kit.canonical import digest_json
from tunix_rt_kit.errors import (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    Unavailable,
    check_ended,
    check_living,
    check_unused,
)
from tunix_rt_kit.jobs.engine import JobEngine
from tunix_rt_kit.serving.requests import (
    Paging,
    checked_labels,
    checked_order,
    listed,
    new_id,
    parse_name,
)
from tunix_rt_kit.values import (
    NO_LABELS,
    ChatTemplateFields,
    JobError,
    JobState,
    ListAsked,
    Order,
    Page,
    Position,
    RequestKey,
)


class EvaluationRepository(Protocol):
    """Where evaluations and their results are kept."""

    def requested(self, request: RequestKey) -> str | None: ...
    def create(self, evaluation: Evaluation, request: RequestKey) -> str: ...
    def get(self, evaluation_id: str) -> Evaluation: ...
    def living(self, evaluation_id: str) -> Evaluation: ...
    def delete(self, evaluation_id: str, check: Callable[[Evaluation, Mapping[str, bool]], None]) -> None: ...
    def page(
        self, wanted: EvaluationFilter, order: Order, after: Position | None, limit: int
    ) -> Sequence[tuple[Evaluation, Position]]: ...
    def set_labels(self, evaluation_id: str, labels: Mapping[str, Any]) -> None: ...
    def labels(self, ids: Collection[str]) -> Mapping[str, Mapping[str, Any]]: ...
    def unfinished(self, *, regrades: bool) -> Sequence[tuple[str, JobState]]: ...
    def change_state(
        self,
        evaluation_id: str,
        expected: Sequence[JobState],
        state: JobState,
        changes: EvaluationUpdate = ...,
    ) -> bool: ...
    def save(self, evaluation_id: str, changes: EvaluationUpdate) -> None: ...
    def answered(self, evaluation_id: str) -> set[str]: ...
    def add_results(self, evaluation_id: str, results: Sequence[ItemResult]) -> None: ...
    def drop_results(self, evaluation_id: str) -> None: ...
    def results_in_order(
        self, evaluation_id: str, order: Order, after: Position | None, limit: int, wanted: ItemFilter
    ) -> tuple[Sequence[tuple[ItemResult, Position]], bool]: ...
    def results_page(
        self, evaluation_id: str, after: str | None, limit: int, wanted: ItemFilter = ...
    ) -> tuple[Sequence[ItemResult], bool]: ...
    def all_results(self, evaluation_id: str) -> Iterator[ItemResult]: ...


class EvaluationJobs:
    """The evaluations that generate, or the regrades, as the queue of the job engine."""

    def __init__(self, repository: EvaluationRepository, *, regrades: bool = False) -> None:
        self._repository = repository
        self._regrades = regrades

    def unfinished(self) -> Sequence[tuple[str, JobState]]:
        return self._repository.unfinished(regrades=self._regrades)

    def state(self, job_id: str) -> JobState:
        return self._repository.get(job_id).state

    def change_state(
        self, job_id: str, expected: Sequence[JobState], state: JobState, *, error: JobError | None = None
    ) -> bool:
        return self._repository.change_state(job_id, expected, state, EvaluationUpdate(error=error))

    def save(self, job_id: str, update: EvaluationUpdate) -> None:
        self._repository.save(job_id, update)


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


class EvaluationService:
    """The use cases. Every method raises InvalidArgument that names each wrong field, NotFound, and what
    the ports raise."""

    def __init__(
        self,
        repository: EvaluationRepository,
        eval_sets: EvalSetRepository,
        checkpoints: Checkpoints,
        models: BaseModels,
        engine: JobEngine,
        grading: Grading,
        discard: Callable[[str], None],
        *,
        has_endpoint: bool = False,
        measured: Callable[[EvaluationSpec], EvaluationSpeed],
    ) -> None:
        self._repository = repository
        self._eval_sets = eval_sets
        self._checkpoints = checkpoints
        self._models = models
        self._engine = engine
        self._grading = grading
        self._discard = discard
        self._has_endpoint = has_endpoint
        self._measured = measured

    def create_evaluation(
        self, asked: Mapping[str, Any], request_id: str, labels: Mapping[str, Any] = NO_LABELS
    ) -> Evaluation:
        """Put an evaluation into the queue, once for each request id."""
        spec, labels = checked_spec(asked), checked_labels(labels)
        body = spec.model_dump(mode="json")
        # A type that was left out was bfloat16 before hosts chose it.
        earlier = body | {"dtype": "bfloat16"} if spec.dtype == "auto" else body
        request = RequestKey(
            "CreateEvaluation",
            request_id,
            digest_json({"spec": body, **labels}),
            "" if labels else digest_json(earlier),
        )
        return self._once(request, lambda: self._new(spec).model_copy(update=labels))

    def _once(self, request: RequestKey, new: Callable[[], Evaluation]) -> Evaluation:
        """What a request made before, or else ``new``, which goes into the queue."""
        known = self._repository.requested(request) if request.request_id else None
        if known is None:
            evaluation = new()
            known = self._repository.create(evaluation, request)
            if known == evaluation.id and evaluation.inputs.checkpoint and not evaluation.inputs.regrade:
                self._check_still_there(evaluation.inputs.checkpoint.name, known)
            self._engine.wake()
        return self._repository.get(known)

    def _check_still_there(self, checkpoint: str, evaluation_id: str) -> None:
        """Withdraw an evaluation whose checkpoint was deleted while it was looked at: from now on, whoever
        deletes it finds the evaluation."""
        try:
            self._checkpoints.get(checkpoint)
        except NotFound:
            self._engine.ask_to_cancel(evaluation_id, EvaluationJobs(self._repository))
            raise
        except Unavailable:
            # It was there a moment ago; the evaluation has the names of its files.
            return

    def _new(self, spec: EvaluationSpec) -> Evaluation:
        eval_set = self._eval_sets.get(spec.eval_set)
        check_judge(eval_set.items or (), self._grading)
        check_python(eval_set.items or (), self._grading)
        check_endpoint(spec, configured=self._has_endpoint)
        checkpoint = self._checkpoints.get(spec.checkpoint) if spec.checkpoint else None
        base_model = checkpoint.base_model if checkpoint else spec.base_model or spec.endpoint_model or ""
        if spec.endpoint_model is None:
            spec = self._with_template(spec, base_model, checkpoint)
        return Evaluation(
            id=new_id(),
            spec=spec,
            inputs=EvaluationInput(
                eval_set_digest=eval_set.digest, base_model=base_model, checkpoint=checkpoint
            ),
            state=JobState.QUEUED,
            create_time=datetime.now(UTC),
        )

    def measure(self, asked: Mapping[str, Any]) -> EvaluationSpeed:
        """How fast this host answers by a base model; the spec's eval set is not looked at.

        Raises InvalidArgument for a checkpoint and for an endpoint's model, FailedPrecondition:
        BASE_MODEL_NOT_PULLED; and what the measuring process fails for.
        """
        spec = checked_spec(asked)
        if not spec.base_model:
            problem = "is missing; what is measured is a base model on this host"
            raise InvalidArgument.of_field("spec.base_model", problem, reason="BASE_MODEL_REQUIRED")
        if not self._models.resolve(spec.base_model).available:
            raise FailedPrecondition(
                f"spec.base_model: {spec.base_model} is not on the evaluator's host yet, so nothing can be "
                f"measured; fetch it first: tunix-rt models pull {spec.base_model}",
                reason="BASE_MODEL_NOT_PULLED",
                metadata={"base_model": spec.base_model},
            )
        speed = self._measured(self._with_template(spec, spec.base_model, None))
        running = any(state is JobState.RUNNING for _, state in self._repository.unfinished(regrades=False))
        return speed.model_copy(update={"busy": running})

    def _with_template(
        self, spec: EvaluationSpec, base_model: str, checkpoint: CheckpointInput | None
    ) -> EvaluationSpec:
        """The spec with its chat template, for a model that is or comes onto this host."""
        model = self._models.resolve(base_model)
        check_weights(model, checkpoint)
        spec = with_template(spec, model, checkpoint)
        if spec.chat_template is not None:
            self._models.check_template(model, spec.chat_template)
        return spec

    def get_evaluation(self, name: str) -> Evaluation:
        """One evaluation; of a regrade with the source code of its grader."""
        found = self._repository.get(parse_name(EVALUATION_NAME, name))
        regrade = found.inputs.regrade
        if regrade is None or not isinstance(regrade.grader, PythonGrader):
            return found
        source = self._grading.python.source_of(regrade.grader) or ""
        grader = regrade.grader.model_copy(update={"source": source})
        told = found.inputs.model_copy(update={"regrade": regrade.model_copy(update={"grader": grader})})
        return found.model_copy(update={"inputs": told})

    def delete_evaluation(self, name: str, *, force: bool) -> Evaluation:
        """Delete an evaluation that has ended, with its answers; what it was stays on record.

        Raises NotFound(EVALUATION_NOT_FOUND), also if it is deleted already; FailedPrecondition:
        EVALUATION_RUNNING; EVALUATION_IN_USE, reports or regrades were made from it, and not ``force``, or
        are made now.
        """
        evaluation_id = parse_name(EVALUATION_NAME, name)
        self._repository.living(evaluation_id)

        def check(evaluation: Evaluation, users: Mapping[str, bool]) -> None:
            check_living(name, "EVALUATION", evaluation.delete_time)
            check_ended(name, "EVALUATION", evaluation.state, f"tunix-rt evaluation cancel {evaluation_id}")
            check_unused(name, "EVALUATION", users, force=force)

        self._repository.delete(evaluation_id, check)
        self._discard(evaluation_id)
        return self._repository.get(evaluation_id)

    def list_evaluations(self, asked: ListAsked) -> Page[Evaluation]:
        """One page of those that are wanted, the newest first unless another order is asked for."""
        return listed("ListEvaluations", EvaluationFilter, asked, self._repository.page)

    def update_evaluation(self, name: str, labels: Mapping[str, Any]) -> Evaluation:
        """Change what people call an evaluation: those of its labels that are given."""
        evaluation_id = parse_name(EVALUATION_NAME, name, "evaluation.name")
        self._repository.set_labels(evaluation_id, checked_labels(labels, "evaluation"))
        return self._repository.get(evaluation_id)

    def cancel_evaluation(self, name: str) -> Evaluation:
        """Ask an evaluation to stop; asked again, it is ended at once. An ended one stays as it is."""
        evaluation_id = parse_name(EVALUATION_NAME, name)
        self._engine.ask_to_cancel(evaluation_id, EvaluationJobs(self._repository))
        return self._repository.get(evaluation_id)

    def regrade_evaluation(
        self, draft: RegradeDraft, request_id: str, labels: Mapping[str, Any] = NO_LABELS
    ) -> Evaluation:
        """Put the answers of a finished evaluation into the queue to be graded again, once for each request
        id.

        Raises:
            FailedPrecondition: EVALUATION_NOT_SUCCEEDED, EVAL_SET_MISMATCH, JUDGE_NOT_CONFIGURED.
            InvalidArgument: GRADER_INVALID, also for a grader that does not fit the items.
        """
        labels = checked_labels(labels)
        wanted = checked_regrade(draft, self._repository.living, self._eval_sets, self._grading)
        request = RequestKey("RegradeEvaluation", request_id, digest_json({**wanted.identity, **labels}))
        return self._once(request, lambda: wanted.evaluation(self._grading).model_copy(update=labels))

    def list_items(self, parent: str, asked: ListAsked, wanted: ItemFilter) -> Page[ItemResult]:
        """One page of the wanted results, by item id unless another order is asked for."""
        evaluation_id = parse_name(EVALUATION_NAME, parent, "parent")
        order = checked_order(asked.order_by, ItemFilter.order_fields)
        paging = Paging(
            asked.page_size,
            asked.page_token,
            method="ListEvaluationItems",
            parent=parent,
            filter=wanted.model_dump(),
            order=[list(by) for by in order],
        )
        self._repository.living(evaluation_id)
        after, limit = paging.after("at"), paging.limit
        if order:
            placed, last = self._repository.results_in_order(evaluation_id, order, after, limit, wanted)
        else:
            found, last = self._repository.results_page(evaluation_id, after and after[0], limit, wanted)
            placed = [(result, [result.item_id]) for result in found]
        return Page(
            [result for result, _ in placed], "" if last else paging.token({"at": list(placed[-1][1])})
        )

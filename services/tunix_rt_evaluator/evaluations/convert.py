"""Evaluations between the protobuf contract and the domain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from tunix_rt import v1
from tunix_rt_evaluator.eval_sets.model import eval_set_name
from tunix_rt_evaluator.evaluations.model import (
    Accuracy,
    Evaluation,
    EvaluationSpec,
    EvaluationSpecDraft,
    Interval,
    Manifest,
    Regrade,
    RegradeDraft,
    Summary,
    evaluation_name,
)
from tunix_rt_evaluator.evaluations.results import ItemFilter, ItemResult
from tunix_rt_evaluator.grading.convert import grader_fields, grader_message
from tunix_rt_evaluator.grading.reasoning.model import FinishReason, Parts, ReasoningMarks, ReasoningState
from tunix_rt_kit.chat import ChatTemplate
from tunix_rt_kit.errors import InvalidArgument
from tunix_rt_kit.values import AskedDtype, ChatTemplateFields
from tunix_rt_kit.values.messages import (
    duration,
    failure_status,
    file_message,
    template_fields,
    template_message,
    timestamp,
    to_message,
)

_DTYPE_NUMBERS: Final[Mapping[AskedDtype, v1.Dtype.ValueType]] = {
    "auto": v1.DTYPE_AUTO,
    "bfloat16": v1.DTYPE_BFLOAT16,
    "float32": v1.DTYPE_FLOAT32,
}
_DTYPES: Final[Mapping[int, AskedDtype]] = {number: name for name, number in _DTYPE_NUMBERS.items()}


def evaluation_spec_draft(spec: v1.EvaluationSpec) -> EvaluationSpecDraft:
    """What a client asks for, unchecked."""
    return EvaluationSpecDraft(
        eval_set=spec.eval_set,
        base_model=spec.base_model if spec.HasField("base_model") else None,
        checkpoint=spec.checkpoint if spec.HasField("checkpoint") else None,
        chat_template=template_fields(spec.chat_template) if spec.HasField("chat_template") else None,
        decoding={field.name: value for field, value in spec.decoding.ListFields()},
        dtype=_DTYPES.get(spec.dtype, str(spec.dtype)) if spec.dtype else None,
        endpoint_model=spec.endpoint_model if spec.HasField("endpoint_model") else None,
        fresh=spec.fresh,
        reasoning_marks=_marks_fields(spec),
    )


def regrade_draft(request: v1.RegradeEvaluationRequest) -> RegradeDraft:
    """What a client wants graded again, unchecked."""
    grader = grader_fields(request.grader) if request.HasField("grader") else None
    return RegradeDraft(
        evaluation=request.name,
        eval_set=request.eval_set,
        grader=grader,
        reasoning_marks=_marks_fields(request),
    )


def _marks_fields(
    message: v1.EvaluationSpec | v1.RegradeEvaluationRequest,
) -> Mapping[str, Any] | None:
    """Of the marks of reasoning those fields that were set, unchecked; None where there are none at all."""
    if not message.HasField("reasoning_marks"):
        return None
    return {field.name: value for field, value in message.reasoning_marks.ListFields()}


def evaluation_message(evaluation: Evaluation) -> v1.Evaluation:
    """A stored evaluation."""
    message = v1.Evaluation(
        name=evaluation_name(evaluation.id),
        spec=_spec(evaluation.spec),
        state=v1.Evaluation.State.Value(f"STATE_{evaluation.state.value}"),
        summary=_summary(evaluation.summary),
        manifest=_manifest(evaluation.manifest),
        attempt_count=evaluation.attempt_count,
        create_time=timestamp(evaluation.create_time),
        stage_timings=[to_message(timing, v1.StageTiming) for timing in evaluation.stage_timings],
    )
    if evaluation.progress is not None:
        message.progress.CopyFrom(to_message(evaluation.progress, v1.Progress))
    if evaluation.manifest_file is not None:
        message.manifest_file.CopyFrom(file_message(evaluation.manifest_file))
    if evaluation.inputs.regrade is not None:
        message.regrade.CopyFrom(_regrade(evaluation.inputs.regrade))
    if evaluation.start_time is not None:
        message.start_time.CopyFrom(timestamp(evaluation.start_time))
    if evaluation.end_time is not None:
        message.end_time.CopyFrom(timestamp(evaluation.end_time))
    if evaluation.error is not None:
        message.error.CopyFrom(failure_status(evaluation.error))
    return message


def _spec(spec: EvaluationSpec) -> v1.EvaluationSpec:
    message = v1.EvaluationSpec(
        eval_set=eval_set_name(spec.eval_set),
        decoding=v1.Decoding(**dict(spec.decoding)),
        dtype=_DTYPE_NUMBERS[spec.dtype] if spec.dtype else v1.DTYPE_UNSPECIFIED,
        fresh=spec.fresh,
        reasoning_marks=_marks(spec.reasoning_marks),
    )
    if spec.checkpoint is not None:
        message.checkpoint = spec.checkpoint
    elif spec.endpoint_model is not None:
        message.endpoint_model = spec.endpoint_model
    else:
        message.base_model = spec.base_model or ""
    if spec.chat_template is not None:
        message.chat_template.CopyFrom(_template(spec.chat_template))
    return message


def _marks(marks: ReasoningMarks | None) -> v1.ReasoningMarks | None:
    """Marks of reasoning; what is empty was not asked for."""
    if marks is None:
        return None
    return v1.ReasoningMarks(
        name=marks.name or None,
        start=marks.start or None,
        end=marks.end or None,
        opened=marks.opened,
        revision=marks.revision,
    )


def _template(fields: ChatTemplateFields) -> v1.ChatTemplate:
    return template_message(fields, ChatTemplate.of(fields).digest)


def _summary(summary: Summary | None) -> v1.EvaluationSummary | None:
    if summary is None:
        return None
    return v1.EvaluationSummary(
        overall=accuracy_message(summary.overall),
        categories=[
            v1.CategoryAccuracy(category=entry.category, accuracy=accuracy_message(entry.accuracy))
            for entry in summary.categories
        ],
        truncated_count=summary.truncated_count,
        generated_tokens=summary.generated_tokens,
        tokens_per_second=summary.tokens_per_second,
        failed_count=summary.failed_count,
        ungraded_count=summary.ungraded_count,
        mean_score=summary.overall.accuracy if summary.mean_score is None else summary.mean_score,
        cached_count=summary.cached_count,
        any_correct_count=_or(summary.any_correct_count, summary.overall.correct_count),
        worst_correct_count=_or(summary.worst_correct_count, summary.overall.correct_count),
        best_correct_count=_or(summary.best_correct_count, summary.overall.correct_count),
        reasoning_count=summary.reasoning_count,
        unclosed_reasoning_count=summary.unclosed_reasoning_count,
        reasoning_tokens=summary.reasoning_tokens,
        unmarked_count=summary.unmarked_count,
        unmarked_correct_count=summary.unmarked_correct_count,
    )


def _or(value: int | None, default: int) -> int:
    return default if value is None else value


def _manifest(manifest: Manifest | None) -> v1.EvaluationManifest | None:
    if manifest is None:
        return None
    plain = manifest.model_dump(exclude={"spec", "regrade"})
    regrade = _regrade(manifest.regrade) if manifest.regrade else None
    return v1.EvaluationManifest(spec=_spec(manifest.spec), regrade=regrade, **plain)


def _regrade(regrade: Regrade) -> v1.Regrade:
    return v1.Regrade(
        source=evaluation_name(regrade.source),
        grader=grader_message(regrade.grader) if regrade.grader else None,
        source_results_digest=regrade.source_results_digest,
    )


def accuracy_message(accuracy: Accuracy) -> v1.Accuracy:
    """An accuracy with its interval."""
    return v1.Accuracy(
        item_count=accuracy.item_count,
        correct_count=accuracy.correct_count,
        accuracy=accuracy.accuracy,
        interval=interval_message(accuracy.interval),
    )


def interval_message(interval: Interval) -> v1.Interval:
    """An interval of confidence."""
    return v1.Interval(lower=interval.lower, upper=interval.upper, confidence=interval.confidence)


def evaluation_page(evaluations: Sequence[Evaluation], next_page_token: str) -> v1.ListEvaluationsResponse:
    """One page."""
    return v1.ListEvaluationsResponse(
        evaluations=[evaluation_message(entry) for entry in evaluations], next_page_token=next_page_token
    )


_REASONS: Final[Mapping[FinishReason, v1.FinishReason.ValueType]] = {
    "stop": v1.FINISH_REASON_STOP,
    "length": v1.FINISH_REASON_LENGTH,
    "failed": v1.FINISH_REASON_FAILED,
}
_STATES: Final[Mapping[ReasoningState, v1.ReasoningState.ValueType]] = {
    "none": v1.REASONING_STATE_NONE,
    "closed": v1.REASONING_STATE_CLOSED,
    "unclosed": v1.REASONING_STATE_UNCLOSED,
}
_FINISHED: Final[Mapping[int, FinishReason]] = {number: reason for reason, number in _REASONS.items()}


def item_filter(message: v1.EvaluationItemFilter) -> ItemFilter:
    """Which results a client wants; raises InvalidArgument(FILTER_INVALID) for an unknown finish reason."""
    reason = message.finish_reason
    if reason and reason not in _FINISHED:
        description = f"is {reason}; one of {', '.join(v1.FinishReason.keys())} would be right"
        raise InvalidArgument.of_field("filter.finish_reason", description, reason="FILTER_INVALID")
    return ItemFilter(
        correct=message.correct if message.HasField("correct") else None,
        category=message.category if message.HasField("category") else None,
        finish_reason=_FINISHED.get(reason),
        grader=message.grader or None,
        ungraded=message.ungraded if message.HasField("ungraded") else None,
        unclosed_reasoning=message.unclosed_reasoning if message.HasField("unclosed_reasoning") else None,
    )


def result_message(result: ItemResult) -> v1.EvaluationResult:
    """What was answered to one item."""
    generation, parts = result.generation, result.parts
    first_told, samples_told = result.told_parts
    return v1.EvaluationResult(
        item_id=result.item_id,
        item_digest=result.item_digest,
        category=result.category,
        prompt=result.prompt,
        prompt_token_digest=generation.prompt_token_digest,
        prompt_tokens=generation.prompt_tokens,
        output=generation.output,
        output_tokens=generation.output_tokens,
        finish_reason=_REASONS[generation.finish_reason],
        extracted_answer=result.verdict.extracted_answer,
        accepted_answers=result.accepted_answers,
        correct=result.verdict.correct,
        grader=result.grader,
        latency=duration(generation.seconds),
        error=generation.error,
        score=result.verdict.value,
        grade_error=result.verdict.error,
        explanation=result.verdict.explanation,
        samples=[
            v1.Sample(
                output=answer.output,
                output_tokens=answer.output_tokens,
                finish_reason=_REASONS[answer.finish_reason],
                extracted_answer=verdict.extracted_answer,
                correct=verdict.correct,
                score=verdict.value,
                grade_error=verdict.error,
                explanation=verdict.explanation,
                log_probabilities=answer.log_probabilities,
                unmarked=verdict.unmarked,
                **_parts(of_answer, told=samples_told and of_answer.state != "none"),
            )
            for answer, verdict, of_answer in zip(generation.answers, result.verdicts, parts, strict=False)
        ],
        log_probabilities=generation.log_probabilities,
        cached=generation.cached,
        unmarked=result.verdict.unmarked,
        **(_parts(parts[0], told=first_told) if parts else {}),
    )


def _parts(parts: Parts, *, told: bool) -> dict[str, Any]:
    """The fields that say what of an output is reasoning; the texts themselves where they are ``told``."""
    texts = {"reasoning": parts.reasoning, "answer": parts.answer} if told else {}
    return {"reasoning_state": _STATES[parts.state], "reasoning_tokens": parts.tokens, **texts}


def result_page(results: Sequence[ItemResult], next_page_token: str) -> v1.ListEvaluationItemsResponse:
    """One page."""
    return v1.ListEvaluationItemsResponse(
        results=[result_message(entry) for entry in results], next_page_token=next_page_token
    )

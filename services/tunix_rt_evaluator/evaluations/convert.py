"""Evaluations between the protobuf contract and the domain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from tunix_rt import v1
from tunix_rt_evaluator.eval_sets.convert import grader_fields, grader_message
from tunix_rt_evaluator.eval_sets.model import eval_set_name
from tunix_rt_evaluator.evaluations.model import (
    Evaluation,
    EvaluationSpec,
    ItemFilter,
    ItemResult,
    Manifest,
    Regrade,
    RegradeDraft,
    Summary,
    evaluation_name,
)
from tunix_rt_evaluator.grading.model import Answer, FinishReason, Parts, ReasoningMarks, Verdict
from tunix_rt_kit.chat import ChatTemplate
from tunix_rt_kit.convert import (
    duration,
    from_message,
    template_message,
    to_message,
)
from tunix_rt_kit.errors import InvalidArgument


def asked_evaluation(spec: v1.EvaluationSpec) -> Mapping[str, Any]:
    """What a client asks for: the fields that were set, unchecked."""
    return from_message(spec, EvaluationSpec)


def regrade_draft(request: v1.RegradeEvaluationRequest) -> RegradeDraft:
    """What a client wants graded again, unchecked."""
    marks = request.reasoning_marks if request.HasField("reasoning_marks") else None
    return RegradeDraft(
        evaluation=request.name,
        eval_set=request.eval_set,
        grader=grader_fields(request.grader) if request.HasField("grader") else None,
        reasoning_marks=None if marks is None else from_message(marks, ReasoningMarks),
    )


def evaluation_message(evaluation: Evaluation) -> v1.Evaluation:
    """A stored evaluation."""
    return to_message(
        evaluation,
        v1.Evaluation,
        name=evaluation_name(evaluation.id),
        spec=_spec(evaluation.spec),
        summary=_summary(evaluation.summary) if evaluation.summary else None,
        manifest=_manifest(evaluation.manifest) if evaluation.manifest else None,
        regrade=_regrade(evaluation.inputs.regrade) if evaluation.inputs.regrade else None,
    )


def _spec(spec: EvaluationSpec) -> v1.EvaluationSpec:
    template, marks = spec.chat_template, spec.reasoning_marks
    return to_message(
        spec,
        v1.EvaluationSpec,
        eval_set=eval_set_name(spec.eval_set),
        chat_template=template_message(template, ChatTemplate.of(template).digest) if template else None,
        reasoning_marks=_marks(marks) if marks else None,
    )


def _marks(marks: ReasoningMarks) -> v1.ReasoningMarks:
    """Marks of reasoning; what is empty was not asked for."""
    name, start, end = marks.name or None, marks.start or None, marks.end or None
    return to_message(marks, v1.ReasoningMarks, name=name, start=start, end=end)


def _summary(summary: Summary) -> v1.EvaluationSummary:
    """A summary; one that is older than a number has what that comes to without samples and scores."""
    right = summary.overall.correct_count
    known = {
        "mean_score": summary.overall.accuracy,
        "any_correct_count": right,
        "worst_correct_count": right,
        "best_correct_count": right,
    }
    missing = {name: value for name, value in known.items() if getattr(summary, name) is None}
    return to_message(summary.model_copy(update=missing), v1.EvaluationSummary)


def _manifest(manifest: Manifest) -> v1.EvaluationManifest:
    regrade = _regrade(manifest.regrade) if manifest.regrade else None
    return to_message(manifest, v1.EvaluationManifest, spec=_spec(manifest.spec), regrade=regrade)


def _regrade(regrade: Regrade) -> v1.Regrade:
    grader = grader_message(regrade.grader) if regrade.grader else None
    return to_message(regrade, v1.Regrade, source=evaluation_name(regrade.source), grader=grader)


def item_filter(message: v1.EvaluationItemFilter) -> ItemFilter:
    """Which results a client wants; raises InvalidArgument(FILTER_INVALID) for an unknown finish reason."""
    fields = from_message(message, ItemFilter)
    if fields.get("finish_reason", "stop") not in get_args(FinishReason):
        known = ", ".join(v1.FinishReason.keys())
        description = f"is {message.finish_reason}; one of {known} would be right"
        raise InvalidArgument.of_field("filter.finish_reason", description, reason="FILTER_INVALID")
    return ItemFilter.model_validate(fields)


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
        accepted_answers=result.accepted_answers,
        grader=result.grader,
        latency=duration(generation.seconds),
        error=generation.error,
        cached=generation.cached,
        samples=[
            v1.Sample(
                **_answer(answer, verdict),
                **_parts(of_answer, told=samples_told and of_answer.state != "none"),
            )
            for answer, verdict, of_answer in zip(generation.answers, result.verdicts, parts, strict=False)
        ],
        **_answer(generation, result.verdict),
        **(_parts(parts[0], told=first_told) if parts else {}),
    )


def _answer(answer: Answer, verdict: Verdict) -> dict[str, Any]:
    """The fields of an answer and its grade."""
    return {
        "output": answer.output,
        "output_tokens": answer.output_tokens,
        "finish_reason": v1.FinishReason.Value(f"FINISH_REASON_{answer.finish_reason.upper()}"),
        "log_probabilities": answer.log_probabilities,
        "extracted_answer": verdict.extracted_answer,
        "correct": verdict.correct,
        "score": verdict.value,
        "grade_error": verdict.error,
        "explanation": verdict.explanation,
        "unmarked": verdict.unmarked,
    }


def _parts(parts: Parts, *, told: bool) -> dict[str, Any]:
    """The fields that say what of an output is reasoning; the texts themselves where they are ``told``."""
    texts = {"reasoning": parts.reasoning, "answer": parts.answer} if told else {}
    state = v1.ReasoningState.Value(f"REASONING_STATE_{parts.state.upper()}")
    return {"reasoning_state": state, "reasoning_tokens": parts.tokens, **texts}

"""Between the protobuf contract and the domain, for what was answered to items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from tunix_rt import v1
from tunix_rt_evaluator.evaluations.results import ItemFilter, ItemResult
from tunix_rt_evaluator.grading.reasoning.model import FinishReason, Parts, ReasoningState
from tunix_rt_kit.errors import InvalidArgument
from tunix_rt_kit.values.messages import duration

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

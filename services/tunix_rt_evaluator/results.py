"""From what a model wrote to the result of an evaluation. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, Final

from tunix_rt_evaluator.eval_sets import item_digest
from tunix_rt_evaluator.grading import Grading
from tunix_rt_evaluator.model import (
    MAX_RESULT_BYTES,
    EvalItem,
    Evaluation,
    EvaluationInput,
    Generation,
    ItemResult,
    Manifest,
    ModelFacts,
    Summary,
    Verdict,
)
from tunix_rt_evaluator.statistics import accuracy, by_category
from tunix_rt_kit.artifacts import digest_json

_OF_THIS_RUN: Final = {"seconds", "cached", "kept_tokens"}
_NOTHING: Final = Verdict(extracted_answer="", correct=False)


def graded(answers: Sequence[tuple[EvalItem, Generation]], grading: Grading) -> list[ItemResult]:
    """The results of items, in order. Where nothing was generated an item is wrong, and so it is where its
    answers are together too long for a message."""
    written = [(item, answer.output) for item, entry in answers for answer in entry.answers]
    verdicts = iter(grading.grade_all(written))
    return [
        _result(item, entry, list(islice(verdicts, len(entry.answers))), grading) for item, entry in answers
    ]


def _result(item: EvalItem, entry: Generation, verdicts: Sequence[Verdict], grading: Grading) -> ItemResult:
    result = ItemResult(
        item_id=item.id,
        item_digest=item_digest(item),
        category=item.category,
        prompt=item.prompt,
        accepted_answers=item.accepted_answers,
        grader=grading.version(item.grader),
        generation=entry,
        verdict=_summed_up(verdicts),
        verdicts=tuple(verdicts) if len(verdicts) > 1 else (),
    )
    if result.size_bytes <= MAX_RESULT_BYTES:
        return result
    return _result(item, _too_long(entry, result.size_bytes), (), grading)


def _too_long(entry: Generation, size: int) -> Generation:
    return Generation(
        item_id=entry.item_id,
        prompt_tokens=entry.prompt_tokens,
        prompt_token_digest=entry.prompt_token_digest,
        output="",
        output_tokens=0,
        finish_reason="failed",
        error=f"its {len(entry.answers)} answers need {size:,} bytes and {MAX_RESULT_BYTES:,} fit in a "
        "message; fewer samples or fewer new tokens would be right",
        seconds=entry.seconds,
    )


def _summed_up(verdicts: Sequence[Verdict]) -> Verdict:
    """The verdict on an item: of several answers more than half must be right, and scores are averaged."""
    if not verdicts:
        return _NOTHING
    first, *more = verdicts
    if not more:
        return first
    return first.model_copy(
        update={
            "correct": 2 * sum(verdict.correct for verdict in verdicts) > len(verdicts),
            "score": sum(verdict.value for verdict in verdicts) / len(verdicts),
            "error": next((verdict.error for verdict in verdicts if verdict.error), ""),
        }
    )


def summarise(results: Sequence[ItemResult]) -> Summary:
    """Accuracy over all items and by category. Items that failed or were cut count as what their answer
    is."""
    generations = [result.generation for result in results]
    answers = [answer for generation in generations for answer in generation.answers]
    made = [generation for generation in generations if not generation.cached]
    seconds = sum(generation.seconds for generation in made)
    tokens = sum(_tokens(generation) - generation.kept_tokens for generation in made)
    return Summary(
        overall=accuracy(sum(result.verdict.correct for result in results), len(results)),
        categories=by_category((result.category, result.verdict.correct) for result in results),
        truncated_count=sum(answer.finish_reason == "length" for answer in answers),
        failed_count=sum(generation.finish_reason == "failed" for generation in generations),
        generated_tokens=sum(_tokens(generation) for generation in generations),
        tokens_per_second=tokens / seconds if seconds else 0.0,
        ungraded_count=sum(bool(verdict.error) for result in results for verdict in result.each),
        mean_score=sum(result.verdict.value for result in results) / len(results) if results else 0.0,
        cached_count=sum(generation.cached for generation in generations),
        any_correct_count=sum(any(verdict.correct for verdict in result.each) for result in results),
        worst_correct_count=sum(result.verdict.correct and result.settled for result in results),
        best_correct_count=sum(result.verdict.correct or not result.settled for result in results),
    )


def _tokens(generation: Generation) -> int:
    return sum(answer.output_tokens for answer in generation.answers)


def results_digest(results: Sequence[ItemResult]) -> str:
    """Digest of all results in the order of their items' ids, without times and what was kept of them."""
    ordered = sorted(results, key=lambda result: result.item_id)
    return digest_json([_timeless(result) for result in ordered])


def manifest(
    evaluation: Evaluation,
    name: str,
    inputs: EvaluationInput,
    facts: ModelFacts,
    results: Sequence[ItemResult],
) -> Manifest:
    """Everything that could change the result of a finished evaluation called ``name``."""
    checkpoint = inputs.checkpoint
    return Manifest(
        evaluation=name,
        spec=evaluation.spec.model_copy(update={"chat_template": facts.chat_template}),
        eval_set_digest=inputs.eval_set_digest,
        base_weights_digest=facts.base_weights_digest,
        base_config_digest=facts.base_config_digest,
        tokenizer_digest=facts.tokenizer_digest,
        checkpoint_digest=checkpoint.digest if checkpoint else "",
        training_manifest_digest=checkpoint.manifest_digest if checkpoint else "",
        dataset_digest=checkpoint.dataset_digest if checkpoint else "",
        chat_template_digest=facts.chat_template_digest,
        graders=tuple(sorted({result.grader for result in results})),
        engine=facts.engine,
        results_digest=results_digest(results),
        package_versions=facts.package_versions,
        runtime_settings=facts.runtime_settings,
        device=facts.device,
        code_revision=facts.code_revision,
    )


def regraded_manifest(
    source: Manifest, evaluation: Evaluation, name: str, results: Sequence[ItemResult]
) -> Manifest:
    """What the manifest of ``source`` becomes where its answers were graded again as ``evaluation``."""
    return source.model_copy(
        update={
            "evaluation": name,
            "spec": source.spec.model_copy(update={"eval_set": evaluation.spec.eval_set}),
            "eval_set_digest": evaluation.inputs.eval_set_digest,
            "graders": tuple(sorted({result.grader for result in results})),
            "results_digest": results_digest(results),
            "regrade": evaluation.inputs.regrade,
        }
    )


def _timeless(result: ItemResult) -> Mapping[str, Any]:
    return result.model_dump(mode="json", exclude={"generation": _OF_THIS_RUN})

"""From what a model wrote to the result of an evaluation. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from tunix_rt_evaluator.eval_sets import item_digest
from tunix_rt_evaluator.grading import Grading
from tunix_rt_evaluator.model import (
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

_NOTHING: Final = Verdict(extracted_answer="", correct=False)


def graded(answers: Sequence[tuple[EvalItem, Generation]], grading: Grading) -> list[ItemResult]:
    """The results of items, in order. Where nothing was generated an item is wrong."""
    written = [(item, entry.output) for item, entry in answers if entry.finish_reason != "failed"]
    verdicts = iter(grading.grade_all(written))
    return [
        ItemResult(
            item_id=item.id,
            item_digest=item_digest(item),
            category=item.category,
            prompt=item.prompt,
            accepted_answers=item.accepted_answers,
            grader=grading.version(item.grader),
            generation=entry,
            verdict=_NOTHING if entry.finish_reason == "failed" else next(verdicts),
        )
        for item, entry in answers
    ]


def summarise(results: Sequence[ItemResult]) -> Summary:
    """Accuracy over all items and by category. Items that failed or were cut count as what their answer
    is."""
    generations = [result.generation for result in results]
    tokens = sum(generation.output_tokens for generation in generations)
    seconds = sum(generation.seconds for generation in generations)
    return Summary(
        overall=accuracy(sum(result.verdict.correct for result in results), len(results)),
        categories=by_category((result.category, result.verdict.correct) for result in results),
        truncated_count=sum(generation.finish_reason == "length" for generation in generations),
        failed_count=sum(generation.finish_reason == "failed" for generation in generations),
        generated_tokens=tokens,
        tokens_per_second=tokens / seconds if seconds else 0.0,
        ungraded_count=sum(bool(result.verdict.error) for result in results),
        mean_score=sum(result.verdict.value for result in results) / len(results) if results else 0.0,
    )


def results_digest(results: Sequence[ItemResult]) -> str:
    """Digest of all results in the order of their items' ids, without times."""
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
    return result.model_dump(mode="json", exclude={"generation": {"seconds"}})

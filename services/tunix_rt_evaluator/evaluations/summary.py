"""What the results of an evaluation come to: accuracies with intervals, its summary and its manifest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Self, TypeVar

from tunix_rt_evaluator.evaluations.model import (
    CONFIDENCE,
    Accuracy,
    CategoryAccuracy,
    Evaluation,
    EvaluationUpdate,
    Interval,
    Manifest,
    ModelFacts,
    Summary,
    evaluation_name,
)
from tunix_rt_evaluator.evaluations.results import ItemResult
from tunix_rt_evaluator.grading.reasoning.model import Parts, ReasoningMarks
from tunix_rt_kit.artifacts import ArtifactStore, ListDigest, canonical_json
from tunix_rt_kit.errors import FailedPrecondition
from tunix_rt_kit.values import StoredFile

T = TypeVar("T")

MANIFEST_FILE: Final = "manifest.json"

# Nothing in them says what was answered; the tokens of a text are counted where its model is at hand.
_OF_THIS_RUN: Final[Mapping[str, Any]] = {
    "generation": {"seconds", "cached", "kept_tokens"},
    "splits": {"__all__": {"tokens"}},
}


def accuracy(correct: int, total: int) -> Accuracy:
    """``correct`` of ``total`` with Wilson's score interval (Wilson 1927); nothing is known of 0 items."""
    lower, upper = wilson(correct, total)
    return Accuracy(
        item_count=total,
        correct_count=correct,
        accuracy=correct / total if total else 0.0,
        interval=Interval(lower=lower, upper=upper),
    )


def wilson(correct: float, total: float, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Wilson's score interval of a proportion, without continuity correction; (0, 1) for no items."""
    from statsmodels.stats.proportion import proportion_confint

    if not total:
        return 0.0, 1.0
    lower, upper = proportion_confint(correct, total, alpha=1.0 - confidence, method="wilson")
    # What is left of rounding is no part of the interval.
    return (float(lower) if correct else 0.0), (float(upper) if correct < total else 1.0)


def by_category(verdicts: Iterable[tuple[str, bool]]) -> tuple[CategoryAccuracy, ...]:
    """Accuracy of each category, ordered by category, from (category, right or wrong) of each item."""
    return tuple(
        CategoryAccuracy(category=category, accuracy=accuracy(sum(group), len(group)))
        for category, group in grouped(verdicts).items()
    )


def grouped(pairs: Iterable[tuple[str, T]]) -> dict[str, list[T]]:
    """The values of each key, ordered by key."""
    groups: dict[str, list[T]] = {}
    for key, value in pairs:
        groups.setdefault(key, []).append(value)
    return dict(sorted(groups.items()))


class Totals:
    """What the results of an evaluation come to, taken one by one in the order of their items' ids.

    Items that failed or were cut count as what their answer is. No time is in the digest, nor what was kept.
    """

    def __init__(self) -> None:
        self._last = ""
        self._digest = ListDigest()
        self._graders: set[str] = set()
        self._verdicts: list[tuple[str, bool]] = []
        self._scores: list[float] = []
        self._seconds: list[float] = []
        self._counts: Counter[str] = Counter()
        self._unanswered = self._ungraded = ""
        self._reasoning_tokens: int | None = 0

    @classmethod
    def of(cls, results: Iterable[ItemResult]) -> Self:
        """The totals of all results."""
        totals = cls()
        for result in results:
            totals.take(result)
        return totals

    def take(self, result: ItemResult) -> None:
        """Count one; raises ValueError if its item comes before the last one's."""
        if result.item_id < self._last:
            raise ValueError(f"the result of {result.item_id!r} came after that of {self._last!r}")
        self._last = result.item_id
        self._digest.add(result.model_dump(mode="json", exclude=dict(_OF_THIS_RUN)))
        self._graders.add(result.grader)
        self._verdicts.append((result.category, result.verdict.correct))
        self._take_failure(result)
        self._scores.append(result.verdict.value)
        generation, settled = result.generation, result.settled
        tokens = sum(answer.output_tokens for answer in generation.answers)
        if not generation.cached:
            self._seconds.append(generation.seconds)
            self._counts["made_tokens"] += tokens - generation.kept_tokens
        self._take_reasoning(result.parts)
        self._counts.update(
            truncated=sum(answer.finish_reason == "length" for answer in generation.answers),
            failed=generation.finish_reason == "failed",
            tokens=tokens,
            ungraded=sum(bool(verdict.error) for verdict in result.each),
            cached=generation.cached,
            any_correct=any(verdict.correct for verdict in result.each),
            worst_correct=result.verdict.correct and settled,
            best_correct=result.verdict.correct or not settled,
            unmarked=sum(verdict.unmarked for verdict in result.each),
            unmarked_correct=sum(verdict.unmarked and verdict.correct for verdict in result.each),
        )

    def _take_reasoning(self, answers: Sequence[Parts]) -> None:
        for parts in answers:
            self._counts["reasoning"] += parts.state != "none"
            self._counts["unclosed_reasoning"] += parts.state == "unclosed"
            if self._reasoning_tokens is not None:
                self._reasoning_tokens = (
                    None if parts.tokens is None else self._reasoning_tokens + parts.tokens
                )

    def _take_failure(self, result: ItemResult) -> None:
        failed = result.generation.finish_reason == "failed"
        without = failed or all(verdict.error for verdict in result.each)
        self._counts["without_grade"] += without
        if failed:
            self._unanswered = self._unanswered or f"{result.item_id!r}: {result.generation.error}"
        elif without:
            self._ungraded = self._ungraded or f"{result.item_id!r}: {result.verdict.error}"

    def require_answer(self) -> None:
        """Raises FailedPrecondition(NOTHING_ANSWERED) if every item failed: that is no model's accuracy."""
        if self._counts["failed"] == len(self._verdicts) > 0:
            raise FailedPrecondition(
                f"no item was answered; the first, {self._unanswered}", reason="NOTHING_ANSWERED"
            )

    def require_grade(self) -> None:
        """Raises FailedPrecondition(NOTHING_GRADED) if no answer to any item could be graded."""
        if self._counts["without_grade"] == len(self._verdicts) > 0:
            raise FailedPrecondition(
                f"no answer could be graded; the first, {self._ungraded or self._unanswered}",
                reason="NOTHING_GRADED",
            )

    @property
    def digest(self) -> str:
        """Digest of all results."""
        return self._digest.value

    @property
    def graders(self) -> tuple[str, ...]:
        """The versions of all graders, in order."""
        return tuple(sorted(self._graders))

    @property
    def summary(self) -> Summary:
        """Accuracy over all items and by category."""
        counts, items, seconds = self._counts, len(self._verdicts), sum(self._seconds)
        return Summary(
            overall=accuracy(sum(correct for _, correct in self._verdicts), items),
            categories=by_category(self._verdicts),
            truncated_count=counts["truncated"],
            failed_count=counts["failed"],
            generated_tokens=counts["tokens"],
            tokens_per_second=counts["made_tokens"] / seconds if seconds else 0.0,
            ungraded_count=counts["ungraded"],
            mean_score=sum(self._scores) / items if items else 0.0,
            cached_count=counts["cached"],
            any_correct_count=counts["any_correct"],
            worst_correct_count=counts["worst_correct"],
            best_correct_count=counts["best_correct"],
            reasoning_count=counts["reasoning"],
            unclosed_reasoning_count=counts["unclosed_reasoning"],
            reasoning_tokens=self._reasoning_tokens,
            unmarked_count=counts["unmarked"],
            unmarked_correct_count=counts["unmarked_correct"],
        )


def manifest(evaluation: Evaluation, facts: ModelFacts, marks: ReasoningMarks, totals: Totals) -> Manifest:
    """Everything that could change the result of a finished evaluation, whose outputs were split by
    ``marks``."""
    inputs, checkpoint = evaluation.inputs, evaluation.inputs.checkpoint
    return Manifest(
        evaluation=evaluation_name(evaluation.id),
        spec=facts.completed(evaluation.spec).model_copy(update={"reasoning_marks": marks}),
        eval_set_digest=inputs.eval_set_digest,
        base_weights_digest=facts.base_weights_digest,
        base_config_digest=facts.base_config_digest,
        tokenizer_digest=facts.tokenizer_digest,
        checkpoint_digest=checkpoint.digest if checkpoint else "",
        training_manifest_digest=checkpoint.manifest_digest if checkpoint else "",
        dataset_digest=checkpoint.dataset_digest if checkpoint else "",
        chat_template_digest=facts.chat_template_digest,
        graders=totals.graders,
        engine=facts.engine,
        results_digest=totals.digest,
        package_versions=facts.package_versions,
        runtime_settings=facts.runtime_settings,
        device=facts.device,
        code_revision=facts.code_revision,
    )


def success(
    artifacts: ArtifactStore, manifest: Manifest, totals: Totals, update: EvaluationUpdate
) -> EvaluationUpdate:
    """What is stored of an evaluation that went well, besides ``update``; its manifest is put into the
    artifact store."""
    stored = artifacts.put_bytes(canonical_json(manifest.model_dump(mode="json")))
    file = StoredFile(path=MANIFEST_FILE, size_bytes=stored.size, digest=stored.digest, uri=stored.uri)
    return update.model_copy(update={"summary": totals.summary, "manifest": manifest, "manifest_file": file})


def regraded_manifest(source: Manifest, evaluation: Evaluation, totals: Totals) -> Manifest:
    """What the manifest of ``source`` becomes where its answers were graded again as ``evaluation``."""
    return source.model_copy(
        update={
            "evaluation": evaluation_name(evaluation.id),
            "spec": source.spec.model_copy(
                update={
                    "eval_set": evaluation.spec.eval_set,
                    "reasoning_marks": evaluation.spec.reasoning_marks,
                }
            ),
            "eval_set_digest": evaluation.inputs.eval_set_digest,
            "graders": totals.graders,
            "results_digest": totals.digest,
            "regrade": evaluation.inputs.regrade,
        }
    )

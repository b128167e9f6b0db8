"""From what a model wrote to the result of an evaluation. Pure functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Final, Self

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
from tunix_rt_kit.artifacts import ListDigest
from tunix_rt_kit.errors import FailedPrecondition

_OF_THIS_RUN: Final = {"seconds", "cached", "kept_tokens"}
_NOTHING: Final = Verdict(extracted_answer="", correct=False)


def graded(answers: Sequence[tuple[EvalItem, Generation]], grading: Grading) -> list[ItemResult]:
    """The results of items, in order. Where nothing was generated an item is wrong, and so it is where its
    answers are together too long for a message."""
    written = [
        (item, answer.output, answer.finish_reason == "length")
        for item, entry in answers
        for answer in entry.answers
    ]
    verdicts = iter(grading.grade_all(written))
    return [
        _result(item, entry, list(islice(verdicts, len(entry.answers))), grading) for item, entry in answers
    ]


def _result(item: EvalItem, entry: Generation, verdicts: Sequence[Verdict], grading: Grading) -> ItemResult:
    result = _whole(item, entry, verdicts, grading)
    if result.size_bytes <= MAX_RESULT_BYTES:
        return result
    return _whole(item, _too_long(entry, result.size_bytes), (), grading)


def _whole(item: EvalItem, entry: Generation, verdicts: Sequence[Verdict], grading: Grading) -> ItemResult:
    return ItemResult(
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
        self._digest.add(result.model_dump(mode="json", exclude={"generation": _OF_THIS_RUN}))
        self._graders.add(result.grader)
        self._verdicts.append((result.category, result.verdict.correct))
        self._take_failure(result)
        self._scores.append(result.verdict.value)
        generation, settled = result.generation, result.settled
        tokens = sum(answer.output_tokens for answer in generation.answers)
        if not generation.cached:
            self._seconds.append(generation.seconds)
            self._counts["made_tokens"] += tokens - generation.kept_tokens
        self._counts.update(
            truncated=sum(answer.finish_reason == "length" for answer in generation.answers),
            failed=generation.finish_reason == "failed",
            tokens=tokens,
            ungraded=sum(bool(verdict.error) for verdict in result.each),
            cached=generation.cached,
            any_correct=any(verdict.correct for verdict in result.each),
            worst_correct=result.verdict.correct and settled,
            best_correct=result.verdict.correct or not settled,
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
        )


def manifest(
    evaluation: Evaluation,
    name: str,
    inputs: EvaluationInput,
    facts: ModelFacts,
    totals: Totals,
) -> Manifest:
    """Everything that could change the result of a finished evaluation called ``name``."""
    checkpoint = inputs.checkpoint
    return Manifest(
        evaluation=name,
        spec=facts.completed(evaluation.spec),
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


def regraded_manifest(source: Manifest, evaluation: Evaluation, name: str, totals: Totals) -> Manifest:
    """What the manifest of ``source`` becomes where its answers were graded again as ``evaluation``."""
    return source.model_copy(
        update={
            "evaluation": name,
            "spec": source.spec.model_copy(update={"eval_set": evaluation.spec.eval_set}),
            "eval_set_digest": evaluation.inputs.eval_set_digest,
            "graders": totals.graders,
            "results_digest": totals.digest,
            "regrade": evaluation.inputs.regrade,
        }
    )

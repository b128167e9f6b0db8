"""From what a model wrote to the result of an evaluation. Pure functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, Self

from tunix_rt_evaluator.comparisons.accuracy import accuracy, by_category
from tunix_rt_evaluator.eval_sets.admission import item_digest
from tunix_rt_evaluator.evaluations.model import (
    MAX_RESULT_BYTES,
    Answer,
    EvalItem,
    Evaluation,
    EvaluationInput,
    Generation,
    ItemResult,
    Manifest,
    ModelFacts,
    Summary,
)
from tunix_rt_evaluator.grading.model import Verdict
from tunix_rt_evaluator.grading.reasoning.model import Parts, ReasoningMarks, Split
from tunix_rt_evaluator.grading.reasoning.split import Splitter
from tunix_rt_evaluator.grading.service import Grading
from tunix_rt_kit.artifacts import ListDigest
from tunix_rt_kit.errors import FailedPrecondition

# Nothing in them says what was answered; the tokens of a text are counted where its model is at hand.
_OF_THIS_RUN: Final[Mapping[str, Any]] = {
    "generation": {"seconds", "cached", "kept_tokens"},
    "splits": {"__all__": {"tokens"}},
}
UNCLOSED: Final = "its reasoning was never closed, so that there is no answer"
"""What the verdict on such an answer explains."""
_NOTHING: Final = Verdict(extracted_answer="", correct=False)


class _Written(NamedTuple):
    """One answer to an item, and where its reasoning stands."""

    item: EvalItem
    answer: Answer
    split: Split | None

    @property
    def text(self) -> str:
        """What is graded."""
        return self.answer.parts(self.split).answer

    @property
    def refused(self) -> Verdict | None:
        """The verdict where there is no answer behind reasoning, which nothing needs to be asked for."""
        if self.split is None or (self.split.closed and self.text.strip()):
            return None
        why = "nothing stands behind its reasoning" if self.split.closed else UNCLOSED
        return _NOTHING.model_copy(update={"explanation": why})


def graded(
    answers: Sequence[tuple[EvalItem, Generation]], grading: Grading, splitter: Splitter
) -> list[ItemResult]:
    """The results of items, in order; what is graded is what ``splitter`` leaves of each answer.

    Where nothing was generated an item is wrong, and so it is where its answers are together too long for a
    message.
    """
    written = [
        [_Written(item, answer, splitter.split(answer)) for answer in entry.answers]
        for item, entry in answers
    ]
    to_grade = [one for of_item in written for one in of_item if one.refused is None]
    grades = iter(
        grading.grade_all([(one.item, one.text, one.answer.finish_reason == "length") for one in to_grade])
    )
    verdicts = [[one.refused or next(grades) for one in of_item] for of_item in written]
    return [
        _result(item, entry, of_item, [one.split for one in of_written], grading)
        for (item, entry), of_item, of_written in zip(answers, verdicts, written, strict=True)
    ]


def _result(
    item: EvalItem,
    entry: Generation,
    verdicts: Sequence[Verdict],
    splits: Sequence[Split | None],
    grading: Grading,
) -> ItemResult:
    result = _whole(item, entry, verdicts, splits, grading)
    if result.size_bytes <= MAX_RESULT_BYTES:
        return result
    return _whole(item, _too_long(entry, result.size_bytes), (), (), grading)


def _whole(
    item: EvalItem,
    entry: Generation,
    verdicts: Sequence[Verdict],
    splits: Sequence[Split | None],
    grading: Grading,
) -> ItemResult:
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
        splits=tuple(splits) if any(splits) else (),
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


def manifest(
    evaluation: Evaluation,
    name: str,
    inputs: EvaluationInput,
    facts: ModelFacts,
    marks: ReasoningMarks,
    totals: Totals,
) -> Manifest:
    """Everything that could change the result of a finished evaluation called ``name``, whose outputs were
    split by ``marks``."""
    checkpoint = inputs.checkpoint
    return Manifest(
        evaluation=name,
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


def regraded_manifest(source: Manifest, evaluation: Evaluation, name: str, totals: Totals) -> Manifest:
    """What the manifest of ``source`` becomes where its answers were graded again as ``evaluation``."""
    return source.model_copy(
        update={
            "evaluation": name,
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

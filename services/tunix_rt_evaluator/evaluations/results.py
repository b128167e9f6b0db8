"""From answers to results: grades what a model wrote to items, and sums up what all results come to.

Reasoning is split off, and the rest goes to the graders. Results come to accuracies with intervals, a summary
and a manifest.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final, NamedTuple, Self, TypeVar

from tunix_rt_evaluator.eval_sets.model import EvalItem, EvalSetOrigin
from tunix_rt_evaluator.eval_sets.service import item_digest
from tunix_rt_evaluator.evaluations.model import (
    CONFIDENCE,
    MAX_RESULT_BYTES,
    Accuracy,
    CategoryAccuracy,
    Evaluation,
    EvaluationUpdate,
    Generation,
    Interval,
    ItemResult,
    Manifest,
    ModelFacts,
    RunFacts,
    Summary,
    evaluation_name,
)
from tunix_rt_evaluator.grading.model import Answer, CallForm, Parts, ReasoningMarks, Split, Verdict
from tunix_rt_evaluator.grading.reasoning import Splitter, resolved_marks
from tunix_rt_evaluator.grading.service import GivenAnswer, Grading
from tunix_rt_kit.artifacts import ArtifactStore
from tunix_rt_kit.canonical import ListDigest, canonical_json
from tunix_rt_kit.errors import FailedPrecondition, ResourceExhausted
from tunix_rt_kit.values import ChatTemplateFields, StoredFile

T = TypeVar("T")

MANIFEST_FILE: Final = "manifest.json"

_COUNTED: Final = (
    *("truncated", "failed", "ungraded", "cached", "any_correct", "worst_correct", "best_correct"),
    *("reasoning", "unclosed_reasoning", "unmarked", "unmarked_correct"),
)
"""What a summary holds the number of."""
# Nothing in them says what was answered; the tokens of a text are counted where its model is at hand.
_OF_THIS_RUN: Final[Mapping[str, Any]] = {
    "generation": {"seconds", "cached", "kept_tokens"},
    "splits": {"__all__": {"tokens"}},
}

UNCLOSED: Final = "its reasoning was never closed, so that there is no answer"
"""What the verdict on such an answer explains."""
CUT_CALL: Final = "a mark of reasoning stands inside of a call, so that the two cannot be told apart"
_NOTHING: Final = Verdict(extracted_answer="", correct=False)


class Splitters:
    """Makes the splitter of an evaluation.

    Args:
        counters: of a base model, what counts the tokens of a text.
    """

    def __init__(self, counters: Callable[[str], Callable[[str], int | None]]) -> None:
        self._counters = counters

    def of(self, evaluation: Evaluation, template: ChatTemplateFields | None) -> Splitter:
        """The one for the outputs of an evaluation, whose prompts were rendered with ``template``."""

        def call_form() -> CallForm:
            # The readers' many patterns take half a second to compile: not at the server's start.
            from tunix_rt_evaluator.grading.reading import calls

            return calls.call_form(template)

        marks = resolved_marks(evaluation.spec.reasoning_marks, template)
        if evaluation.spec.endpoint_model is not None:
            # The worker writes calls that come apart from the text so.
            return Splitter(marks, lambda _: None, lambda: "hermes")
        count = self._counters(evaluation.inputs.base_model)
        return Splitter(marks, count, call_form)


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
        """The verdict where no grader is asked: nothing stands behind reasoning, or a call is cut by it."""
        if self.split is None:
            return None
        if self.item.grader.kind == "tool_call" and self._cuts_call(self.split):
            return _NOTHING.model_copy(update={"error": CUT_CALL})
        if self.split.closed and self.text.strip():
            return None
        why = "nothing stands behind its reasoning" if self.split.closed else UNCLOSED
        return _NOTHING.model_copy(update={"explanation": why})

    def _cuts_call(self, split: Split) -> bool:
        # The readers' many patterns take half a second to compile: not at the server's start.
        from tunix_rt_evaluator.grading.reading.calls import is_cut

        return is_cut(self.answer.output, split.answer)


class GradingBudgetExceeded(ResourceExhausted):
    """Grading an evaluation took longer than the evaluator's settings allow."""


class GradingBudget:
    """What grading one evaluation took on this server, of the ``allowed_s`` seconds that it may take."""

    def __init__(self, allowed_s: float) -> None:
        self._allowed_s = allowed_s
        self._spent_s = 0.0
        self._items = 0
        self._slowest: tuple[float, str, str] = (0.0, "", "")

    def check(self) -> None:
        """Raise GradingBudgetExceeded(GRADING_BUDGET_EXCEEDED) if nothing is left."""
        if self._spent_s < self._allowed_s:
            return
        seconds, item_id, grader = self._slowest
        raise GradingBudgetExceeded(
            f"grading {self._items} items took {self._spent_s:.1f} s, and an evaluation has "
            f"{self._allowed_s:g} s for all of its items; the slowest was {item_id!r}, {seconds:.1f} s by "
            f"{grader}; give the items a faster grader, or start the evaluator with a larger "
            "--grading-budget-s or TUNIX_RT_EVALUATOR_GRADING_BUDGET_S",
            reason="GRADING_BUDGET_EXCEEDED",
            metadata={"item": item_id, "grader": grader, "setting": "grading_budget_s"},
        )

    def take(self, results: Sequence[ItemResult], seconds: float) -> None:
        """Count ``seconds`` that grading ``results`` took."""
        self._spent_s += seconds
        self._items += len(results)
        self._slowest = max(self._slowest, (seconds, results[0].item_id, results[0].grader))


def graded_in_turn(
    answers: Iterable[tuple[EvalItem, Generation]],
    grading: Grading,
    splitter: Splitter,
    budget: GradingBudget,
) -> Iterator[list[ItemResult]]:
    """As ``graded``, as the results are taken: one item at a time, or as many as a judge is asked at once.

    Raises GradingBudgetExceeded.
    """
    source = iter(answers)
    while some := list(islice(source, grading.concurrency)):
        for_judge = any(item.grader.kind == "judge" for item, _ in some)
        for part in [some] if for_judge else [[one] for one in some]:
            budget.check()
            began = time.monotonic()
            results = graded(part, grading, splitter)
            budget.take(results, time.monotonic() - began)
            yield results


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
    calls = any(one.item.grader.kind == "tool_call" for one in to_grade)
    form = splitter.call_form() if calls else None
    grades = iter(
        grading.grade_all(
            [GivenAnswer(one.item, one.text, one.answer.finish_reason == "length", form) for one in to_grade]
        )
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
    result = ItemResult(
        item_id=item.id,
        item_digest=item_digest(item),
        category=item.category,
        prompt=item.transcript,
        accepted_answers=grading.accepted(item),
        grader=grading.version(item.grader),
        generation=entry,
        verdict=_summed_up(verdicts),
        verdicts=tuple(verdicts) if len(verdicts) > 1 else (),
        splits=tuple(splits) if any(splits) else (),
    )
    if result.size_bytes <= MAX_RESULT_BYTES:
        return result
    nothing = {"verdict": _NOTHING, "verdicts": (), "splits": ()}
    return result.model_copy(update=nothing | {"generation": _too_long(entry, result.size_bytes)})


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
    if len(verdicts) < 2:
        return next(iter(verdicts), _NOTHING)
    return verdicts[0].model_copy(
        update={
            "correct": 2 * sum(verdict.correct for verdict in verdicts) > len(verdicts),
            "score": sum(verdict.value for verdict in verdicts) / len(verdicts),
            "error": next((verdict.error for verdict in verdicts if verdict.error), ""),
        }
    )


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
            generated_tokens=counts["tokens"],
            tokens_per_second=counts["made_tokens"] / seconds if seconds else 0.0,
            mean_score=sum(self._scores) / items if items else 0.0,
            reasoning_tokens=self._reasoning_tokens,
            **{f"{name}_count": counts[name] for name in _COUNTED},
        )


def manifest(
    evaluation: Evaluation,
    facts: ModelFacts,
    marks: ReasoningMarks,
    totals: Totals,
    origin: EvalSetOrigin | None = None,
) -> Manifest:
    """Everything that could change the result of a finished evaluation, whose outputs were split by
    ``marks``; ``origin`` is that of its eval set."""
    inputs, checkpoint = evaluation.inputs, evaluation.inputs.checkpoint
    return Manifest(
        **facts.model_dump(include=set(RunFacts.model_fields)),
        evaluation=evaluation_name(evaluation.id),
        spec=facts.completed(evaluation.spec).model_copy(update={"reasoning_marks": marks}),
        eval_set_digest=inputs.eval_set_digest,
        checkpoint_digest=checkpoint.digest if checkpoint else "",
        training_manifest_digest=checkpoint.manifest_digest if checkpoint else "",
        dataset_digest=checkpoint.dataset_digest if checkpoint else "",
        graders=totals.graders,
        results_digest=totals.digest,
        eval_set_origin=_written(origin),
    )


def _written(origin: EvalSetOrigin | None) -> Mapping[str, Any] | None:
    return None if origin is None else origin.model_dump(mode="json")


def success(
    artifacts: ArtifactStore, manifest: Manifest, totals: Totals, update: EvaluationUpdate
) -> EvaluationUpdate:
    """What is stored of an evaluation that went well, besides ``update``; its manifest is put into the
    artifact store."""
    stored = artifacts.put_bytes(canonical_json(manifest.model_dump(mode="json")))
    file = StoredFile(path=MANIFEST_FILE, size_bytes=stored.size, digest=stored.digest, uri=stored.uri)
    return update.model_copy(update={"summary": totals.summary, "manifest": manifest, "manifest_file": file})


def regraded_manifest(
    source: Manifest, evaluation: Evaluation, totals: Totals, origin: EvalSetOrigin | None = None
) -> Manifest:
    """What the manifest of ``source`` becomes where its answers were graded again as ``evaluation``, by an
    eval set of that ``origin``."""
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
            "eval_set_origin": _written(origin),
        }
    )

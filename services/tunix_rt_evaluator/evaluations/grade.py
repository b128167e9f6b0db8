"""Grades what a model wrote to items: reasoning is split off, the rest goes to the graders."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Final, NamedTuple

from tunix_rt_evaluator.eval_sets.admission import item_digest
from tunix_rt_evaluator.eval_sets.model import EvalItem
from tunix_rt_evaluator.evaluations.model import Evaluation
from tunix_rt_evaluator.evaluations.results import MAX_RESULT_BYTES, Generation, ItemResult
from tunix_rt_evaluator.grading.model import Verdict
from tunix_rt_evaluator.grading.reasoning.marks import resolved_marks
from tunix_rt_evaluator.grading.reasoning.model import Answer, Split
from tunix_rt_evaluator.grading.reasoning.split import Splitter
from tunix_rt_evaluator.grading.service import Grading
from tunix_rt_kit.errors import ResourceExhausted
from tunix_rt_kit.values import ChatTemplateFields

UNCLOSED: Final = "its reasoning was never closed, so that there is no answer"
"""What the verdict on such an answer explains."""
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
        marks = resolved_marks(evaluation.spec.reasoning_marks, template)
        if evaluation.spec.endpoint_model is not None:
            return Splitter(marks, lambda _: None)
        return Splitter(marks, self._counters(evaluation.inputs.base_model))


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

"""Checks what a caller wants graded again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from pydantic import TypeAdapter, ValidationError

from tunix_rt_evaluator.eval_sets.admission import items_digest
from tunix_rt_evaluator.eval_sets.model import EVAL_SET_NAME, EvalItem, EvalSet, eval_set_name
from tunix_rt_evaluator.evaluations.model import (
    EVALUATION_NAME,
    Evaluation,
    Regrade,
    RegradeDraft,
    evaluation_name,
)
from tunix_rt_evaluator.grading.model import Grader
from tunix_rt_evaluator.grading.reasoning.marks import checked_marks
from tunix_rt_evaluator.grading.reasoning.model import ReasoningMarks
from tunix_rt_evaluator.grading.service import Grading
from tunix_rt_kit.errors import FailedPrecondition
from tunix_rt_kit.serving.resources import new_id, parse_name
from tunix_rt_kit.serving.validation import Violations, field_path, field_problems
from tunix_rt_kit.values import JobState

GRADER_INVALID: Final = "GRADER_INVALID"
_GRADER: Final[TypeAdapter[Grader]] = TypeAdapter(Grader)
_SHOWN: Final = 3


class Evaluations(Protocol):
    """Where evaluations are kept."""

    def get(self, evaluation_id: str) -> Evaluation: ...


class EvalSets(Protocol):
    """Where eval sets are kept."""

    def get(self, eval_set_id: str) -> EvalSet: ...


@dataclass(frozen=True)
class CheckedRegrade:
    """What is to be graded again: the answers of ``source``, by the items of ``eval_set``."""

    source: Evaluation
    eval_set: EvalSet
    grader: Grader | None
    marks: ReasoningMarks | None = None

    @property
    def identity(self) -> Mapping[str, Any]:
        """What makes a request the same one."""
        marks = {"reasoning_marks": self.marks.model_dump(mode="json")} if self.marks else {}
        return {
            "source": self.source.id,
            "eval_set": self.eval_set.id,
            "grader": self.grader.model_dump(mode="json") if self.grader else None,
            **marks,
        }

    def evaluation(self, grading: Grading) -> Evaluation:
        """A new evaluation that only grades; raises as ``checked_regrade`` where the grader does not fit.

        The items' own graders were checked when the set was stored. Where a rule is stricter by now, an item
        is not graded and says why; it does not keep the others from being graded.
        """
        items = regraded_items(self.eval_set, self.grader)
        if self.grader is not None:
            check_grader_fits(items, grading)
        check_judge(items, grading)
        source = self.source
        regrade = Regrade(
            source=source.id,
            grader=self.grader,
            source_results_digest=source.manifest.results_digest if source.manifest else "",
        )
        return Evaluation(
            id=new_id(),
            spec=source.spec.model_copy(
                update={
                    "eval_set": self.eval_set.id,
                    "reasoning_marks": self.marks or source.spec.reasoning_marks,
                }
            ),
            inputs=source.inputs.model_copy(
                update={"eval_set_digest": items_digest(items), "regrade": regrade}
            ),
            state=JobState.QUEUED,
            create_time=datetime.now(UTC),
        )


def checked_regrade(
    draft: RegradeDraft, evaluations: Evaluations, eval_sets: EvalSets, grading: Grading
) -> CheckedRegrade:
    """What a caller asks for, looked up.

    Raises:
        NotFound: the evaluation or the eval set is not there.
        FailedPrecondition: EVALUATION_NOT_SUCCEEDED, EVAL_SET_MISMATCH.
        InvalidArgument: RESOURCE_NAME_INVALID, GRADER_INVALID, REASONING_MARKS_INVALID.
    """
    source = evaluations.get(parse_name(EVALUATION_NAME, draft.evaluation))
    if source.state is not JobState.SUCCEEDED:
        name = evaluation_name(source.id)
        raise FailedPrecondition(
            f"name: {name} is {source.state}; only one that SUCCEEDED can be graded again",
            reason="EVALUATION_NOT_SUCCEEDED",
            metadata={"evaluation": name, "state": source.state},
        )
    grader = checked_grader(draft.grader, grading)
    wrong = Violations()
    marks = checked_marks(draft.reasoning_marks, wrong, "reasoning_marks")
    wrong.raise_if_any("REASONING_MARKS_INVALID")
    answered = eval_sets.get(source.spec.eval_set)
    if not draft.eval_set:
        return CheckedRegrade(source, answered, grader, marks)
    wanted = eval_sets.get(parse_name(EVAL_SET_NAME, draft.eval_set, "eval_set"))
    check_same_questions(answered, wanted)
    return CheckedRegrade(source, wanted, grader, marks)


def checked_grader(fields: Mapping[str, Any] | None, grading: Grading) -> Grader | None:
    """A grader that is to replace those of all items; raises InvalidArgument(GRADER_INVALID)."""
    if fields is None:
        return None
    wrong = Violations()
    if not wrong.check(fields["kind"] in grading.kinds, "grader", grading.unknown_kind):
        wrong.raise_if_any(GRADER_INVALID)
    try:
        return _GRADER.validate_python(fields)
    except ValidationError as error:
        for location, description in field_problems(error):
            wrong.add(field_path(("grader", *location)), description)
    wrong.raise_if_any(GRADER_INVALID)
    raise AssertionError("a validation error has problems")


def regraded_items(eval_set: EvalSet, grader: Grader | None) -> tuple[EvalItem, ...]:
    """The items of an eval set, with ``grader`` in place of their own if there is one."""
    items = eval_set.items or ()
    return items if grader is None else tuple(item.model_copy(update={"grader": grader}) for item in items)


def check_grader_fits(items: Sequence[EvalItem], grading: Grading) -> None:
    """Raise InvalidArgument(GRADER_INVALID) where items cannot be graded by the grader they were given."""
    wrong = Violations()
    for item in items:
        for path, description in grading.problems(item):
            place = field_path(path)
            if path[0] == "grader":
                wrong.add(place, description)
                wrong.raise_if_any(GRADER_INVALID)
            wrong.add("grader", f"does not fit item {item.id!r}: its {place} {description}")
    wrong.raise_if_any(GRADER_INVALID)


def check_same_questions(answered: EvalSet, wanted: EvalSet) -> None:
    """Raise FailedPrecondition(EVAL_SET_MISMATCH) unless both ask the same questions under the same ids."""
    before = {item.id: item.prompt for item in answered.items or ()}
    after = {item.id: item.prompt for item in wanted.items or ()}
    other = sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
    if not other:
        return
    shown = ", ".join(repr(key) for key in other[:_SHOWN])
    raise FailedPrecondition(
        f"eval_set: {eval_set_name(wanted.id)} asks other questions than {eval_set_name(answered.id)}, whose "
        f"answers are there: {len(other)} items differ in id or prompt, such as {shown}",
        reason="EVAL_SET_MISMATCH",
        metadata={"eval_set": eval_set_name(wanted.id), "answered": eval_set_name(answered.id)},
    )


def check_judge(items: Sequence[EvalItem], grading: Grading) -> None:
    """Raise FailedPrecondition(JUDGE_NOT_CONFIGURED) if items need a judge and the evaluator knows none."""
    if grading.has_judge or all(item.grader.kind != "judge" for item in items):
        return
    first = next(item for item in items if item.grader.kind == "judge")
    raise FailedPrecondition(
        f"item {first.id!r} is graded by a judge, and this evaluator has none; start it with --judge-url or "
        "TUNIX_RT_EVALUATOR_JUDGE_URL, such as http://localhost:8000/v1",
        reason="JUDGE_NOT_CONFIGURED",
        metadata={"item": first.id, "setting": "judge_url"},
    )

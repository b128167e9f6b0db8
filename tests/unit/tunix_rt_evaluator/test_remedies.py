"""What a refused comparison tells to do, so that the evaluations can be compared."""

from __future__ import annotations

import shlex
from datetime import timedelta
from typing import Any

import pytest

from support.comparison import answered, finished, some_items
from tunix_rt_evaluator.comparisons.model import Run
from tunix_rt_evaluator.comparisons.policy import check_sound
from tunix_rt_evaluator.evaluations.model import Decoding, Regrade
from tunix_rt_evaluator.grading.graders.numeric import NumericGrader
from tunix_rt_evaluator.grading.graders.strings import TextGrader
from tunix_rt_evaluator.grading.model import GraderSettings, ReasoningMarks
from tunix_rt_kit.errors import FailedPrecondition
from tunix_rt_kit.values import ChatTemplateFields

RESULTS = [answered(item, number, right=True, style="tuned") for number, item in enumerate(some_items(3))]
TOLERANT = NumericGrader(tolerance=0.5)


def run(name: str, *, corrected: bool = False, regraded: Any = None, **spec: Any) -> Run:
    """An evaluation; ``regraded`` is the grader that replaced the items' own, or True for none."""
    results = RESULTS
    if corrected:
        results = [result.model_copy(update={"item_digest": f"new {result.item_id}"}) for result in RESULTS]
    evaluation = finished(name, RESULTS, **spec)
    assert evaluation.manifest is not None
    changes: dict[str, Any] = {"eval_set_digest": "sha256:corrected"} if corrected else {}
    if regraded is not None:
        grader = regraded if isinstance(regraded, GraderSettings) else None
        changes["regrade"] = Regrade(source="source", grader=grader)
        changes["graders"] = (f"grader {grader}",) if grader else evaluation.manifest.graders
    manifest = evaluation.manifest.model_copy(update=changes)
    later = {"create_time": evaluation.create_time + timedelta(hours=ord(name))}
    return Run.of(evaluation.model_copy(update={"manifest": manifest, **later}), results)


def with_spec(made: Run, *, template_digest: str = "", **changes: Any) -> Run:
    """The same with other settings in its manifest."""
    manifest = made.evaluation.manifest
    assert manifest is not None
    fields = {"spec": manifest.spec.model_copy(update=changes)}
    digest = {"chat_template_digest": template_digest} if template_digest else {}
    update = {"manifest": manifest.model_copy(update={**fields, **digest})}
    return Run.of(made.evaluation.model_copy(update=update), RESULTS)


def commands(*runs: Run, waived: frozenset[Any] = frozenset()) -> list[str]:
    with pytest.raises(FailedPrecondition) as caught:
        check_sound(runs, waived)
    assert caught.value.reason == "COMPARISON_UNSOUND"
    found = [line for line in caught.value.metadata.get("remedies", "").split("\n") if line]
    assert all(line in caught.value.message for line in found)
    assert ("to make them comparable, run" in caught.value.message) is bool(found)
    # What no item is common to, nothing can waive.
    shared = set.intersection(*(set(one.results) for one in runs))
    assert ("waive" in caught.value.message) is bool(shared)
    return found


def test_the_side_that_was_not_regraded_is_graded_as_the_other_one_was() -> None:
    assert commands(run("a"), run("b", regraded=TOLERANT)) == [
        """tunix-rt evaluation regrade a --grader '{"kind": "numeric", "tolerance": 0.5}'"""
    ]
    assert commands(run("a", regraded=TextGrader()), run("b")) == [
        "tunix-rt evaluation regrade b --grader text"
    ]


def test_another_version_of_the_eval_set_is_graded_by_and_not_waived_three_times() -> None:
    corrected = run("b", corrected=True, regraded=True, eval_set="sums-2")
    assert commands(run("a"), corrected) == ["tunix-rt evaluation regrade a --eval-set sums-2"]
    with pytest.raises(FailedPrecondition) as caught:
        check_sound([run("a"), corrected])
    told = {violation.field: violation.description for violation in caught.value.violations}
    assert told["items"].startswith("3 items ask the same, with other accepted answers, another grader")
    # Neither was regraded: the older one is graded by the newer set.
    asked = run("b", corrected=True, eval_set="sums-2")
    assert commands(run("a"), asked) == ["tunix-rt evaluation regrade a --eval-set sums-2"]
    assert commands(asked, run("a")) == ["tunix-rt evaluation regrade a --eval-set sums-2"]


def test_two_that_were_graded_alike_by_other_versions_are_both_graded_again() -> None:
    old = run("a")
    assert old.evaluation.manifest is not None
    manifest = old.evaluation.manifest.model_copy(update={"graders": ("numeric/1",)})
    old = Run.of(old.evaluation.model_copy(update={"manifest": manifest}), RESULTS)
    assert commands(old, run("b")) == ["tunix-rt evaluation regrade a", "tunix-rt evaluation regrade b"]


def test_other_marks_of_reasoning_are_named() -> None:
    marks = ReasoningMarks(name="THINK", start="[THINK]", end="[/THINK]", opened=False, revision=1)
    own = ReasoningMarks(start="<a b>", end="</a>", opened=False, revision=1)
    opened = ReasoningMarks(name="think", start="<think>", end="</think>", opened=True, revision=1)
    for wanted, told in (
        (marks, "THINK"),
        (own, '{"start": "<a b>", "end": "</a>"}'),
        (opened, '{"name": "think", "opened": true}'),
    ):
        (command,) = commands(run("a"), with_spec(run("b", regraded=True), reasoning_marks=wanted))
        assert shlex.split(command) == [
            "tunix-rt",
            "evaluation",
            "regrade",
            "a",
            *("--reasoning-marks", told),
        ]


@pytest.mark.parametrize(
    ("base", "candidate", "expected"),
    [
        (
            {"decoding": Decoding(max_new_tokens=64, temperature=0.5, samples=4)},
            {"checkpoint": True},
            "tunix-rt evaluate --eval-set sums --checkpoint "
            "trainingJobs/0199aa10-9c52-7d10-a1b2-334455667788/checkpoints/39 "
            "--max-new-tokens 64 --temperature 0.5 --samples 4 --dtype bfloat16",
        ),
        (
            {"dtype": "float32"},
            {},
            "tunix-rt evaluate --eval-set sums --base-model smollm2-135m-instruct --template chatml "
            "--dtype float32",
        ),
    ],
)
def test_answers_that_were_generated_otherwise_are_generated_again_as_the_base_was(
    base: dict[str, Any], candidate: dict[str, Any], expected: str
) -> None:
    assert commands(run("a", **base), run("b", **candidate)) == [expected]


def test_a_checkpoint_brings_its_own_template_so_that_the_base_is_asked_in_that() -> None:
    template = ChatTemplateFields(builtin="llama-3", system_instruction="Be brief; it's fine.")
    made = with_spec(run("b", checkpoint=True), template_digest="sha256:other", chat_template=template)
    (command,) = commands(run("a"), made)
    assert shlex.split(command) == [
        "tunix-rt", "evaluate", "--eval-set", "sums", "--base-model", "smollm2-135m-instruct",
        "--template", "llama-3", "--system", "Be brief; it's fine.", "--dtype", "bfloat16",
    ]  # fmt: skip
    assert commands(run("a", checkpoint=True), made) == []


def test_what_nothing_can_make_equal_has_no_remedy() -> None:
    endpoint = run("b", base_model=None, endpoint_model="served", dtype=None)
    assert commands(run("a"), endpoint) == []


def test_only_what_is_not_waived_is_to_be_mended() -> None:
    other = run("b", regraded=TextGrader(), dtype="float32")
    assert commands(run("a"), other, waived=frozenset({"dtype"})) == [
        "tunix-rt evaluation regrade a --grader text"
    ]
    assert len(commands(run("a"), other, run("c", regraded=TextGrader()), waived=frozenset({"dtype"}))) == 1


def test_settings_that_are_too_long_for_a_message_are_named_by_where_they_are() -> None:
    long = NumericGrader(units=tuple(f"unit number {number}" for number in range(30)))
    assert commands(run("a"), run("b", regraded=long)) == [
        "tunix-rt evaluation regrade a --grader '(as in evaluations/b)'"
    ]

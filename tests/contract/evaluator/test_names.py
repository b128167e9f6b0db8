"""What people call eval sets, evaluations and reports, and lists by it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from support.evaluating import FOUR, create, document, eval_set, get, item, run
from support.serving import fields, refused
from tunix_rt import v1

TEMPLATE = v1.ChatTemplate(builtin="chatml")


async def compare(evaluator: Any, base: str, candidate: str, **labels: Any) -> v1.ComparisonReport:
    return await evaluator.CompareEvaluations(
        v1.CompareEvaluationsRequest(base=base, candidate=candidate, **labels)
    )


async def reports(evaluator: Any, order_by: str = "", **conditions: Any) -> list[str]:
    wanted = v1.ComparisonReportFilter(**conditions)
    request = v1.ListComparisonReportsRequest(filter=wanted, order_by=order_by)
    return [report.name for report in (await evaluator.ListComparisonReports(request)).comparison_reports]


async def evaluations(evaluator: Any, order_by: str = "", **conditions: Any) -> list[str]:
    request = v1.ListEvaluationsRequest(filter=v1.EvaluationFilter(**conditions), order_by=order_by)
    return [found.name for found in (await evaluator.ListEvaluations(request)).evaluations]


async def rename(evaluator: Any, evaluation: v1.Evaluation, name: str) -> v1.Evaluation:
    changed = v1.Evaluation(name=evaluation.name, display_name=name)
    return await evaluator.UpdateEvaluation(v1.UpdateEvaluationRequest(evaluation=changed))


async def test_evaluations_and_reports_are_found_by_what_they_are_about(
    evaluator: Any, checkpoint: str
) -> None:
    await evaluator.CreateEvalSet(eval_set(FOUR))
    base, candidate = await asyncio.gather(
        run(evaluator, chat_template=TEMPLATE), run(evaluator, checkpoint=checkpoint)
    )
    job = checkpoint.partition("/checkpoints/")[0]
    by_age = [candidate.name, base.name] if candidate.name > base.name else [base.name, candidate.name]
    assert await evaluations(evaluator) == by_age
    assert await evaluations(evaluator, models=["tiny"]) == by_age
    for name in (checkpoint, job):
        assert await evaluations(evaluator, models=[name]) == [candidate.name]
    assert await evaluations(evaluator, models=["tin"]) == []
    by_accuracy = sorted((base, candidate), key=lambda made: (made.summary.overall.accuracy, made.name))
    assert await evaluations(evaluator, "accuracy") == [made.name for made in by_accuracy]
    assert await evaluations(evaluator, "accuracy desc") == [made.name for made in by_accuracy[::-1]]
    assert await evaluations(evaluator, eval_sets=["evalSets/sums"], order_by="create_time") == by_age[::-1]
    assert await evaluations(evaluator, eval_sets=["evalSets/sum"]) == []
    assert await evaluations(evaluator, datasets=["datasets/none", "datasets/d"]) == [candidate.name]
    assert await evaluations(evaluator, states=[v1.Evaluation.STATE_SUCCEEDED]) == by_age
    report = await compare(evaluator, base.name, candidate.name, tags=["t"])
    turned = await compare(evaluator, candidate.name, base.name)
    both = sorted([report.name, turned.name])
    assert await reports(evaluator) == both
    assert await reports(evaluator, "name desc") == both[::-1]
    assert await reports(evaluator, "create_time") == [report.name, turned.name]
    for conditions in (
        {"evaluations": [base.name]},
        {"models": [job]},
        {"models": ["tiny"]},
        {"datasets": ["datasets/d@1"]},
        {"eval_sets": ["evalSets/sums"]},
        {"verdicts": [report.verdict]},
    ):
        assert await reports(evaluator, **conditions) == both
    assert await reports(evaluator, tags=["t"]) == [report.name]
    assert await reports(evaluator, evaluations=["evaluations/none"]) == []
    assert await reports(evaluator, verdicts=[v1.ComparisonReport.VERDICT_REGRESSED]) == []
    error = await refused(reports(evaluator, verdicts=[v1.ComparisonReport.VERDICT_UNSPECIFIED]))
    assert (error.reason, fields(error)) == ("FILTER_INVALID", ["filter.verdicts[0]"])


async def test_a_report_shows_what_its_sides_are_called_by_now_and_is_the_same(
    evaluator: Any, checkpoint: str
) -> None:
    await evaluator.CreateEvalSet(eval_set(FOUR))
    base, candidate = await asyncio.gather(
        run(evaluator, chat_template=TEMPLATE), run(evaluator, checkpoint=checkpoint)
    )
    plain = await compare(evaluator, base.name, candidate.name)
    documents = [await document(evaluator, plain, kind) for kind in (1, 2, 3)]
    await rename(evaluator, base, "old prompt")
    await evaluator.UpdateComparisonReport(
        v1.UpdateComparisonReportRequest(
            comparison_report=v1.ComparisonReport(name=plain.name, display_name="first", note="n")
        )
    )
    again = await compare(evaluator, base.name, candidate.name, display_name="second", tags=["x"])
    assert (again.name, again.digest) == (plain.name, plain.digest)
    assert (again.display_name, list(again.tags), again.note) == ("second", ["x"], "n")
    assert (again.base.display_name, again.candidate.display_name) == ("old prompt", "")
    listed = await evaluator.ListComparisonReports(v1.ListComparisonReportsRequest())
    assert listed.comparison_reports[0].base.display_name == "old prompt"
    assert [await document(evaluator, plain, kind) for kind in (1, 2, 3)] == documents
    found = await get(evaluator, base)
    assert found.manifest_file == base.manifest_file
    wrong = await refused(compare(evaluator, base.name, candidate.name, tags=["a,b"]))
    assert (wrong.reason, fields(wrong)) == ("LABELS_INVALID", ["tags[0]"])


@pytest.mark.one_database
async def test_a_regrade_has_a_name_of_its_own(evaluator: Any) -> None:
    await evaluator.CreateEvalSet(eval_set(FOUR))
    source = await run(evaluator)
    await rename(evaluator, source, "source")
    request = v1.RegradeEvaluationRequest(name=source.name, request_id="r", display_name="again", tags=["g"])
    made = await evaluator.RegradeEvaluation(request)
    assert (made.display_name, list(made.tags)) == ("again", ["g"])
    request.display_name = "other"
    assert (await refused(evaluator.RegradeEvaluation(request))).reason == "REQUEST_ID_REUSED"


@pytest.mark.one_database
async def test_a_stored_eval_set_takes_the_labels_that_come_with_its_items(evaluator: Any) -> None:
    items = [item(1), item(2)]
    first = await evaluator.CreateEvalSet(eval_set(items, "a", display_name="A", tags=["x"]))
    again = await evaluator.CreateEvalSet(eval_set(items[::-1], "a", note="n"))
    assert (again.digest, again.display_name, list(again.tags), again.note) == (first.digest, "A", ["x"], "n")
    await evaluator.CreateEvalSet(eval_set(items, "b"))
    listed = await evaluator.ListEvalSets(v1.ListEvalSetsRequest(order_by="display_name desc, name"))
    assert [found.eval_set_id for found in listed.eval_sets] == ["a", "b"]
    changed = v1.EvalSet(name=first.name, note="")
    update = v1.UpdateEvalSetRequest(eval_set=changed)
    assert (await refused(evaluator.UpdateEvalSet(update))).reason == "UPDATE_MASK_INVALID"
    update.update_mask.paths.append("note")
    assert (await evaluator.UpdateEvalSet(update)).note == ""
    update.eval_set.name = "evalSets/none"
    assert (await refused(evaluator.UpdateEvalSet(update))).reason == "EVAL_SET_NOT_FOUND"
    for call in (
        evaluator.UpdateEvaluation(
            v1.UpdateEvaluationRequest(evaluation=v1.Evaluation(name="evaluations/none", note="n"))
        ),
        evaluator.UpdateComparisonReport(
            v1.UpdateComparisonReportRequest(
                comparison_report=v1.ComparisonReport(name="comparisonReports/none", note="n")
            )
        ),
    ):
        assert (await refused(call)).code == "NOT_FOUND"


@pytest.mark.one_database
async def test_the_same_request_with_another_note_is_another_request(evaluator: Any) -> None:
    await evaluator.CreateEvalSet(eval_set(FOUR))
    first = await create(evaluator, request_id="r")
    assert (await create(evaluator, request_id="r")).name == first.name
    noted = v1.CreateEvaluationRequest(spec=first.spec, request_id="r", note="n")
    noted.spec.ClearField("chat_template")
    assert (await refused(evaluator.CreateEvaluation(noted))).reason == "REQUEST_ID_REUSED"

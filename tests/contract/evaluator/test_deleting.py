"""Eval sets, evaluations and reports that are deleted."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from support import scripted_evaluator as script
from support.evaluating import FOUR, create, document, ended, eval_set, get, items_of, run, until
from support.serving import refused
from tunix_rt import v1
from tunix_rt_evaluator.upstream import ExporterTrainingData
from tunix_rt_evaluator.wiring import EvaluatorSettings
from tunix_rt_kit.errors import Unavailable


@pytest.fixture(autouse=True)
def datasets(monkeypatch: pytest.MonkeyPatch) -> dict[str, bool]:
    """The exporter's datasets that were made without an eval set's items, with whether each is built."""
    known: dict[str, bool] = {}
    monkeypatch.setattr(ExporterTrainingData, "made_without", lambda *_: known)
    return known


def delete_set(evaluator: Any, name: str = "evalSets/sums", *, force: bool = False) -> Any:
    return evaluator.DeleteEvalSet(v1.DeleteEvalSetRequest(name=name, force=force))


def delete(evaluator: Any, evaluation: v1.Evaluation, *, force: bool = False) -> Any:
    return evaluator.DeleteEvaluation(v1.DeleteEvaluationRequest(name=evaluation.name, force=force))


def delete_report(evaluator: Any, report: v1.ComparisonReport) -> Any:
    return evaluator.DeleteComparisonReport(v1.DeleteComparisonReportRequest(name=report.name))


async def compare(evaluator: Any, base: v1.Evaluation, candidate: v1.Evaluation) -> v1.ComparisonReport:
    return await evaluator.CompareEvaluations(
        v1.CompareEvaluationsRequest(base=base.name, candidate=candidate.name, waivers=["decoding"])
    )


async def test_a_deleted_evaluation_loses_its_answers_and_stays_on_record(
    evaluator: Any, settings: EvaluatorSettings
) -> None:
    await evaluator.CreateEvalSet(eval_set(FOUR))
    evaluation = await run(evaluator)
    folder = settings.data_dir / "evaluations" / evaluation.name.removeprefix("evaluations/")
    assert folder.is_dir()
    deleted = await delete(evaluator, evaluation)
    assert not folder.exists()
    assert await get(evaluator, evaluation) == deleted
    deleted.ClearField("delete_time")
    assert deleted == evaluation
    assert not (await evaluator.ListEvaluations(v1.ListEvaluationsRequest())).evaluations
    request = v1.ListEvaluationsRequest(show_deleted=True)
    assert len((await evaluator.ListEvaluations(request)).evaluations) == 1
    other = await run(evaluator)
    for call in (
        delete(evaluator, evaluation, force=True),
        items_of(evaluator, evaluation),
        evaluator.RegradeEvaluation(v1.RegradeEvaluationRequest(name=evaluation.name)),
        compare(evaluator, evaluation, other),
    ):
        error = await refused(call)
        assert (error.code, error.reason) == ("NOT_FOUND", "EVALUATION_NOT_FOUND")
        assert "was deleted at" in error.message


async def test_what_reports_and_regrades_were_made_from_is_deleted_by_force_alone(
    evaluator: Any, checkpoint: str
) -> None:
    await evaluator.CreateEvalSet(eval_set(FOUR))
    base = await run(evaluator, chat_template=v1.ChatTemplate(builtin="chatml"))
    candidate = await run(evaluator, checkpoint=checkpoint)
    report = await compare(evaluator, base, candidate)
    regrade = await evaluator.RegradeEvaluation(v1.RegradeEvaluationRequest(name=base.name))
    regrade = await until(evaluator, regrade, ended)
    error = await refused(delete(evaluator, base))
    assert (error.code, error.reason) == ("FAILED_PRECONDITION", "EVALUATION_IN_USE")
    assert report.name in error.message
    assert regrade.name in error.message
    regrades = v1.ListEvaluationsRequest(filter=v1.EvaluationFilter(regraded=[base.name]))
    assert (await evaluator.ListEvaluations(regrades)).evaluations == [regrade]
    text = await document(evaluator, report, v1.REPORT_FORMAT_MARKDOWN)
    await delete(evaluator, base, force=True)
    # What was made from it says what it was, as before.
    assert await document(evaluator, report, v1.REPORT_FORMAT_MARKDOWN) == text
    assert (await evaluator.GetComparisonReport(v1.GetComparisonReportRequest(name=report.name))).base == base
    assert len(await items_of(evaluator, regrade)) == len(FOUR)


async def test_a_deleted_report_is_made_again_by_comparing_again(evaluator: Any, checkpoint: str) -> None:
    await evaluator.CreateEvalSet(eval_set(FOUR))
    base = await run(evaluator, chat_template=v1.ChatTemplate(builtin="chatml"))
    report = await compare(evaluator, base, await run(evaluator, checkpoint=checkpoint))
    outcomes = await asyncio.gather(
        delete_report(evaluator, report), delete_report(evaluator, report), return_exceptions=True
    )
    assert sorted(isinstance(outcome, Exception) for outcome in outcomes) == [False, True]
    gone = await evaluator.GetComparisonReport(v1.GetComparisonReportRequest(name=report.name))
    assert (gone.HasField("delete_time"), gone.digest, gone.base) == (True, report.digest, report.base)
    assert (
        await refused(document(evaluator, report, v1.REPORT_FORMAT_MARKDOWN))
    ).reason == "COMPARISON_REPORT_NOT_FOUND"
    assert not (await evaluator.ListComparisonReports(v1.ListComparisonReportsRequest())).comparison_reports
    again = await compare(evaluator, base, report.candidate)
    assert (again.name, again.digest, again.HasField("delete_time")) == (report.name, report.digest, False)
    error = await refused(delete_report(evaluator, v1.ComparisonReport(name="comparisonReports/none")))
    assert error.code == "NOT_FOUND"


@pytest.mark.one_database
async def test_evaluations_of_a_deleted_checkpoint_are_still_compared(
    evaluator: Any, checkpoint: str, settings: EvaluatorSettings
) -> None:
    await evaluator.CreateEvalSet(eval_set(FOUR))
    base = await run(evaluator, chat_template=v1.ChatTemplate(builtin="chatml"))
    candidate = await run(evaluator, checkpoint=checkpoint)
    # As if it was deleted by force, and its files were freed.
    for path in Path(settings.artifacts, "sha256").rglob("*"):
        if path.is_file():
            path.unlink()
    report = await compare(evaluator, base, candidate)
    assert (report.candidate, len(report.training_metrics)) == (candidate, 0)
    _, text = await document(evaluator, report, v1.REPORT_FORMAT_MARKDOWN)
    assert checkpoint.encode() in text


async def test_what_runs_is_not_deleted(evaluator: Any) -> None:
    await evaluator.CreateEvalSet(eval_set(FOUR))
    waiting = await create(evaluator, script.WAIT)
    error = await refused(delete(evaluator, waiting, force=True))
    assert (error.code, error.reason) == ("FAILED_PRECONDITION", "EVALUATION_RUNNING")
    assert "tunix-rt evaluation cancel" in error.message
    error = await refused(delete_set(evaluator, force=True))
    assert (error.reason, "cancel those first" in error.message) == ("EVAL_SET_IN_USE", True)
    for _ in range(2):
        await evaluator.CancelEvaluation(v1.CancelEvaluationRequest(name=waiting.name))
    await until(evaluator, waiting, ended)
    await delete(evaluator, waiting)
    await delete_set(evaluator)


async def test_a_deleted_eval_set_keeps_its_id_and_its_digest(evaluator: Any) -> None:
    made = await evaluator.CreateEvalSet(eval_set(FOUR))
    evaluation = await run(evaluator)
    error = await refused(delete_set(evaluator))
    assert (error.reason, error.metadata["used_by"]) == ("EVAL_SET_IN_USE", evaluation.name)
    deleted = await delete_set(evaluator, force=True)
    assert (deleted.digest, deleted.item_count, len(deleted.items)) == (made.digest, 4, 0)
    assert not (await evaluator.ListEvalSets(v1.ListEvalSetsRequest())).eval_sets
    for call in (delete_set(evaluator), create(evaluator)):
        error = await refused(call)
        assert (error.code, error.reason) == ("NOT_FOUND", "EVAL_SET_NOT_FOUND")
    error = await refused(evaluator.CreateEvalSet(eval_set(FOUR[:2])))
    assert (error.reason, "was deleted" in error.message) == ("EVAL_SET_EXISTS", True)
    again = await evaluator.CreateEvalSet(eval_set(FOUR))
    assert (again.digest, len(again.items), again.HasField("delete_time")) == (made.digest, 4, False)


async def test_an_eval_set_that_datasets_were_made_without_is_deleted_by_force_alone(
    evaluator: Any, datasets: dict[str, bool]
) -> None:
    await evaluator.CreateEvalSet(eval_set(FOUR))
    datasets["datasets/clean@1"] = False
    assert "datasets/clean@1" in (await refused(delete_set(evaluator))).message
    datasets["datasets/clean@1"] = True
    assert (await refused(delete_set(evaluator, force=True))).reason == "EVAL_SET_IN_USE"
    datasets["datasets/clean@1"] = False
    await delete_set(evaluator, force=True)


async def test_an_eval_set_stays_while_the_exporter_cannot_tell(
    evaluator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await evaluator.CreateEvalSet(eval_set(FOUR))

    def away(*_: Any) -> dict[str, bool]:
        raise Unavailable("the exporter is away", reason="UPSTREAM_UNAVAILABLE")

    monkeypatch.setattr(ExporterTrainingData, "made_without", away)
    error = await refused(delete_set(evaluator, force=True))
    assert (error.code, error.reason) == ("UNAVAILABLE", "UPSTREAM_UNAVAILABLE")
    assert (await evaluator.ListEvalSets(v1.ListEvalSetsRequest())).eval_sets


async def test_of_an_eval_set_deleted_while_an_evaluation_is_asked_for_one_is_refused(evaluator: Any) -> None:
    for number in range(5):
        name = f"sums-{number}"
        await evaluator.CreateEvalSet(eval_set(FOUR, name))
        outcomes = await asyncio.gather(
            delete_set(evaluator, f"evalSets/{name}"),
            create(evaluator, eval_set=f"evalSets/{name}"),
            return_exceptions=True,
        )
        assert any(isinstance(outcome, Exception) for outcome in outcomes)

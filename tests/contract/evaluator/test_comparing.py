"""Two evaluations compared, and their reports listed and read."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from support import scripted_evaluator as script
from support.evaluating import FOUR, create, document, ended, eval_set, item, run, until
from support.serving import fields, refused
from tunix_rt import v1
from tunix_rt_evaluator.wiring import EvaluatorSettings
from tunix_rt_kit.artifacts import ArtifactStore


async def both(evaluator: Any, checkpoint: str, **spec: Any) -> tuple[v1.Evaluation, v1.Evaluation]:
    template = v1.ChatTemplate(builtin="chatml")
    base = await run(evaluator, chat_template=template, **spec)
    return base, await run(evaluator, checkpoint=checkpoint, **spec)


async def compare(evaluator: Any, base: v1.Evaluation, candidate: v1.Evaluation) -> v1.ComparisonReport:
    return await evaluator.CompareEvaluations(
        v1.CompareEvaluationsRequest(base=base.name, candidate=candidate.name)
    )


async def test_a_comparison_pairs_items_and_tests_the_difference(evaluator: Any, checkpoint: str) -> None:
    gained = [item(number, "no", f"Answer: {number}") for number in range(10, 22)]
    await evaluator.CreateEvalSet(eval_set([*FOUR, *gained]))
    base, candidate = await both(evaluator, checkpoint)
    report = await compare(evaluator, base, candidate)
    overall = report.overall
    assert (overall.base.correct_count, overall.candidate.correct_count) == (2, 15)
    assert (overall.gained_count, overall.lost_count) == (14, 1)
    assert overall.difference == pytest.approx(13 / 16)
    assert overall.interval.lower < 13 / 16 < overall.interval.upper
    # Twice the binomial tail of 15 items: (1 + 15) / 2**15.
    assert overall.p_value == pytest.approx(2 * 16 / 2**15)
    assert report.verdict == v1.ComparisonReport.VERDICT_IMPROVED
    assert [entry.category for entry in report.categories] == ["", "sums", "words"]
    assert [flip.base.item_id for flip in report.flips][:2] == ["q10", "q11"]
    assert report.flips[-1].base.item_id == "q4"
    assert report.flips[-1].base.correct
    assert not report.flips[-1].candidate.correct
    assert [entry.loss for entry in report.training_metrics] == [3.0, 2.0, 1.5]
    assert report.training_metrics[-1].validation_loss == 1.25
    assert not report.training_metrics[0].HasField("validation_loss")
    assert report.base == base
    assert report.candidate == candidate


async def test_comparing_again_gives_the_same_report(
    evaluator: Any, checkpoint: str, settings: EvaluatorSettings
) -> None:
    await evaluator.CreateEvalSet(eval_set(FOUR))
    base, candidate = await both(evaluator, checkpoint)
    first = await compare(evaluator, base, candidate)
    assert await compare(evaluator, base, candidate) == first
    assert await evaluator.GetComparisonReport(v1.GetComparisonReportRequest(name=first.name)) == first
    turned = await compare(evaluator, candidate, base)
    assert turned.name != first.name
    assert turned.overall.difference == -first.overall.difference
    assert first.verdict == turned.verdict == v1.ComparisonReport.VERDICT_NO_EVIDENCE
    assert ArtifactStore(settings.artifacts).exists(first.digest)


async def test_every_unsound_difference_is_named(evaluator: Any, checkpoint: str) -> None:
    await evaluator.CreateEvalSet(eval_set(FOUR))
    await evaluator.CreateEvalSet(eval_set([*FOUR[1:], item(5, accepted_answers=["x"])], "other"))
    base, candidate = await both(evaluator, checkpoint)
    worse = await run(
        evaluator,
        script.WAIT_ONCE - 6,
        eval_set="evalSets/other",
        chat_template=v1.ChatTemplate(builtin="chatml", system_instruction="Hm."),
        decoding=v1.Decoding(max_new_tokens=64, batch_size=2),
        dtype=v1.DTYPE_FLOAT32,
    )
    error = await refused(compare(evaluator, worse, candidate))
    assert (error.code, error.reason) == ("FAILED_PRECONDITION", "COMPARISON_UNSOUND")
    assert fields(error) == [
        "eval_set",
        "chat_template",
        "decoding.max_new_tokens",
        "decoding.batch_size",
        "dtype",
        "graders",
        "items",
        "prompt_tokens",
    ]
    assert "q1" in error.violations[-2].description
    assert (await compare(evaluator, base, candidate)).name


async def test_only_finished_evaluations_are_compared(evaluator: Any, checkpoint: str) -> None:
    await evaluator.CreateEvalSet(eval_set(FOUR))
    base, candidate = await both(evaluator, checkpoint)
    failed = await until(evaluator, await create(evaluator, script.REFUSE), ended)
    error = await refused(compare(evaluator, base, failed))
    assert (error.code, error.reason) == ("FAILED_PRECONDITION", "EVALUATION_NOT_SUCCEEDED")
    assert "candidate" in error.message
    for request, field in (
        (v1.CompareEvaluationsRequest(base="x", candidate=candidate.name), "base"),
        (v1.CompareEvaluationsRequest(base=base.name, candidate="x"), "candidate"),
    ):
        error = await refused(evaluator.CompareEvaluations(request))
        assert (error.reason, fields(error)) == ("RESOURCE_NAME_INVALID", [field])


async def test_reports_are_listed_by_pages(evaluator: Any, checkpoint: str) -> None:
    await evaluator.CreateEvalSet(eval_set(FOUR))
    base, candidate = await both(evaluator, checkpoint)
    reports = [await compare(evaluator, base, candidate), await compare(evaluator, candidate, base)]
    found, token = [], ""
    while True:
        request = v1.ListComparisonReportsRequest(page_size=1, page_token=token)
        page = await evaluator.ListComparisonReports(request)
        found += page.comparison_reports
        token = page.next_page_token
        if not token:
            break
    for report in reports:
        report.ClearField("flips")
        report.ClearField("training_metrics")
    assert found == sorted(reports, key=lambda report: report.name)
    for request, field in (
        (v1.ListComparisonReportsRequest(page_size=-1), "page_size"),
        (v1.ListComparisonReportsRequest(page_token="made-up"), "page_token"),
    ):
        assert fields(await refused(evaluator.ListComparisonReports(request))) == [field]


async def test_reports_are_read_as_documents(evaluator: Any, checkpoint: str) -> None:
    await evaluator.CreateEvalSet(eval_set(FOUR))
    report = await compare(evaluator, *await both(evaluator, checkpoint))
    media = {}
    for format_ in (v1.REPORT_FORMAT_MARKDOWN, v1.REPORT_FORMAT_JSON, v1.REPORT_FORMAT_HTML):
        header, data = await document(evaluator, report, format_)
        assert header.size_bytes == len(data)
        assert header.digest == "sha256:" + hashlib.sha256(data).hexdigest()
        media[header.media_type] = (header.file_name, data)
        _, rest = await document(evaluator, report, format_, offset=100)
        assert rest == data[100:]
        _, nothing = await document(evaluator, report, format_, offset=len(data))
        assert nothing == b""
    assert {kind: name for kind, (name, _) in media.items()} == {
        "text/markdown": "report.md",
        "application/json": "report.json",
        "text/html": "report.html",
    }
    values = json.loads(media["application/json"][1])
    assert (values["name"], values["digest"]) == (report.name, report.digest)
    header, data = await document(evaluator, report, v1.REPORT_FORMAT_UNSPECIFIED)
    assert data == media["text/markdown"][1]


@pytest.mark.one_database
async def test_a_wrong_read_of_a_report_is_refused(evaluator: Any, checkpoint: str) -> None:
    await evaluator.CreateEvalSet(eval_set(FOUR))
    report = await compare(evaluator, *await both(evaluator, checkpoint))

    async def read(**values: Any) -> None:
        request = v1.ReadComparisonReportRequest(**({"name": report.name} | values))
        async for _ in evaluator.ReadComparisonReport(request):
            pass

    for values, reason in (
        ({"offset": -1}, "OFFSET_INVALID"),
        ({"offset": 1 << 40}, "OFFSET_INVALID"),
        ({"format": 9}, "REPORT_FORMAT_INVALID"),
        ({"name": "comparisonReports/none"}, "COMPARISON_REPORT_NOT_FOUND"),
        ({"name": "reports/none"}, "RESOURCE_NAME_INVALID"),
    ):
        assert (await refused(read(**values))).reason == reason
    error = await refused(
        evaluator.GetComparisonReport(v1.GetComparisonReportRequest(name="comparisonReports/none"))
    )
    assert (error.code, error.reason) == ("NOT_FOUND", "COMPARISON_REPORT_NOT_FOUND")


@pytest.mark.one_database
async def test_a_report_with_more_flips_than_a_message_holds_has_them_in_its_documents(
    evaluator: Any, checkpoint: str
) -> None:
    long = "y" * 20_000
    changed = [item(number, long, f"{long}\nAnswer: {number}") for number in range(60)]
    await evaluator.CreateEvalSet(eval_set(changed))
    report = await compare(evaluator, *await both(evaluator, checkpoint))
    assert report.overall.gained_count == 60
    assert 0 < len(report.flips) < 60
    assert report.ByteSize() < 4 << 20
    _, data = await document(evaluator, report, v1.REPORT_FORMAT_JSON)
    assert len(json.loads(data)["flips"]) == 60

"""`tunix-rt compare`: what it asks for, shows, stores and lets through."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from typer.testing import CliRunner, Result

from support.fake_loop import FakeLoopServices
from support.threaded import fake_server
from tunix_rt import v1
from tunix_rt.cli.comparisons import Waivable
from tunix_rt.cli.main import app
from tunix_rt_evaluator.comparisons.policy import REASONS

Run = Callable[..., Result]


class FakeComparisons(FakeLoopServices):
    """Answers every comparison with ``report``, and has three answers to each evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[v1.CompareEvaluationsRequest] = []
        self.report = v1.ComparisonReport(
            name="comparisonReports/r",
            verdict=v1.ComparisonReport.VERDICT_REGRESSED,
            overall=v1.PairedDifference(
                base=v1.Accuracy(item_count=100, correct_count=50, accuracy=0.5),
                candidate=v1.Accuracy(item_count=100, correct_count=40, accuracy=0.4),
                difference=-0.1,
                interval=v1.Interval(lower=-0.18, upper=-0.02),
                p_value=0.01,
                test="exact McNemar",
                minimum_detectable_effect=0.111,
            ),
        )

    def CompareEvaluations(self, request: v1.CompareEvaluationsRequest, _: Any) -> v1.ComparisonReport:
        self.asked.append(request)
        return self.report

    def GetEvaluation(self, request: v1.GetEvaluationRequest, _: Any) -> v1.Evaluation:
        return v1.Evaluation(name=request.name, spec=v1.EvaluationSpec(base_model="m"))

    def GetEvalSet(self, request: v1.GetEvalSetRequest, _: Any) -> v1.EvalSet:
        return v1.EvalSet(name=request.name)

    def ListEvaluationItems(
        self, request: v1.ListEvaluationItemsRequest, _: Any
    ) -> v1.ListEvaluationItemsResponse:
        outputs = (f"Reasoning:\n1. {request.parent}\nAnswer: 1", "two", "")
        return v1.ListEvaluationItemsResponse(
            results=[
                v1.EvaluationResult(item_id=f"q{n}", prompt=f"{request.parent} {n}?", output=output)
                for n, output in enumerate(outputs)
            ]
        )


@pytest.fixture
def services() -> FakeComparisons:
    return FakeComparisons()


@pytest.fixture
def run(services: FakeComparisons, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Run]:
    monkeypatch.chdir(tmp_path)
    with fake_server(services.add) as address:
        monkeypatch.setenv("TUNIX_RT_SERVER", address)
        yield lambda *arguments: CliRunner().invoke(app, ["compare", *arguments])


def test_waivers_and_seeds_are_asked_for_by_name(run: Run, services: FakeComparisons) -> None:
    result = run("a", "b", "--waive", "dtype", "--waive", "engine", "--more-candidate", "c",
                 "--more-candidate", "evaluations/d", "--more-base", "e")  # fmt: skip
    assert result.exit_code == 0, result.output
    assert services.asked == [
        v1.CompareEvaluationsRequest(
            base="evaluations/a",
            candidate="evaluations/b",
            waivers=["dtype", "engine"],
            more_bases=["evaluations/e"],
            more_candidates=["evaluations/c", "evaluations/d"],
        )
    ]


@pytest.mark.parametrize(
    "arguments",
    [("--waive", "all"), ("--fail-on", "worse"), ("--max-drop", "2"), ("--more-base", "datasets/d")],
)
def test_a_wrong_option_is_refused_before_anything_is_asked(
    run: Run, services: FakeComparisons, arguments: tuple[str, ...]
) -> None:
    result = run("a", "b", *arguments)
    assert result.exit_code == 2
    assert arguments[0] in result.stderr or "evaluations/ID" in result.stderr
    assert not services.asked


def test_a_waiver_is_what_the_contract_calls_it() -> None:
    assert tuple(Waivable) == REASONS


@pytest.mark.parametrize(
    ("arguments", "passes"),
    [
        ((), True),
        (("--fail-on", "regressed"), False),
        (("--fail-on", "not-improved"), False),
        (("--max-drop", "0.02"), False),
        (("--max-drop", "0.1"), True),
    ],
)
def test_the_gate_says_why_in_one_line_after_the_report_is_written(
    run: Run, tmp_path: Path, arguments: tuple[str, ...], passes: bool
) -> None:
    result = run("a", "b", "-o", "report", *arguments)
    assert "Verdict: regressed" in result.stdout
    assert (tmp_path / "report" / "report.html").exists()
    assert result.exit_code == (0 if passes else 3)
    for_programs = run("a", "b", "--json", *arguments)
    assert for_programs.exit_code == result.exit_code
    assert json.loads(for_programs.stdout)["verdict"] == "VERDICT_REGRESSED"
    errors = [json.loads(line) for line in for_programs.stderr.splitlines()]
    assert [(error["reason"], error["exit_code"]) for error in errors] == [("GATE_FAILED", 3)] * (not passes)
    said = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert len(said) == (0 if passes else 1)
    if not passes:
        assert "gate: the " in said[0]
        assert "base 50.0%, candidate 40.0%, p = 0.01" in said[0]


def test_a_report_is_no_file(run: Run, tmp_path: Path) -> None:
    (tmp_path / "report.md").write_text("mine")
    result = run("a", "b", "--output", "report.md")
    assert result.exit_code == 2
    assert "--output: report.md is a file; a folder would be right" in result.stderr
    assert (tmp_path / "report.md").read_text() == "mine"


def test_the_gate_leaves_the_json_as_it_is(run: Run) -> None:
    result = run("a", "b", "--json", "--fail-on", "regressed")
    assert result.exit_code == 3
    assert json.loads(result.stdout)["verdict"] == "VERDICT_REGRESSED"


def test_answers_are_stored_once(run: Run, services: FakeComparisons) -> None:
    first = run("a", "b", "--store-traces")
    assert first.exit_code == 0, first.output
    assert "answers of evaluations/a: 2 traces stored, 0 stored already" in first.stderr
    assert len(services.traces) == 4
    assert {trace.source for trace in services.traces.values()} == {"evaluation"}
    again = run("a", "b", "--store-traces", "--json")
    assert again.exit_code == 0
    assert json.loads(again.stdout)["name"] == "comparisonReports/r"
    assert len(services.traces) == 4


def test_the_terminal_says_what_speaks_against_a_verdict(run: Run, services: FakeComparisons) -> None:
    report = services.report
    report.verdict = v1.ComparisonReport.VERDICT_INCONCLUSIVE
    report.verdict_reasons.append("3 items failed or are missing on a side")
    report.waivers.add(reason="dtype", description="dtype: base has float32, candidate has bfloat16")
    report.warnings.add(
        reason=v1.ComparisonWarning.REASON_SAME_EVALUATION, description="a is base and candidate"
    )
    report.bounds.CopyFrom(v1.OutcomeBounds(unsettled_count=3, worst=-0.13, best=0.01))
    report.contamination.CopyFrom(
        v1.Contamination(
            state=v1.Contamination.STATE_LOOKED_UP,
            datasets=["datasets/d@1"],
            item_count=2,
            clean=v1.PairedDifference(difference=-0.09, p_value=0.02, base=v1.Accuracy(item_count=98)),
        )
    )
    report.seeds.CopyFrom(
        v1.SeedSummary(
            base=[0.5],
            candidate=[0.4, 0.42],
            base_mean=0.5,
            candidate_mean=0.41,
            candidate_spread=0.014,
            p_value=0.07,
            test="one-sample t",
        )
    )
    shown = run("a", "b").stdout
    for part in (
        "Verdict: inconclusive", "3 items failed or are missing on a side.",
        "warning: a is base and candidate",
        "waived: dtype: base has float32, candidate has bfloat16",
        "3 items failed, not graded or missing: -13.0 points at worst, +1.0 points at best",
        "the training data (datasets/d@1) leaks 2 items", "-9.0 points over 98, p = 0.020",
        "base 50.0%, candidate 41.0% (sd 1.4 of 2); p = 0.070 (one-sample t)", "11.1 points",
    ):  # fmt: skip
        assert part in shown, part
    report.contamination.CopyFrom(
        v1.Contamination(state=v1.Contamination.STATE_NOT_LOOKED_UP, reason="nobody is there")
    )
    assert "not checked whether the training data leaks items: nobody is there" in run("a", "b").stdout


def test_a_refused_comparison_says_what_to_waive(
    run: Run, services: FakeComparisons, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Any, context: grpc.ServicerContext) -> v1.ComparisonReport:
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "they differ in dtype (to waive: dtype)")
        raise AssertionError

    monkeypatch.setattr(services, "CompareEvaluations", refuse)
    with fake_server(services.add) as address:
        result = run("a", "b", "--fail-on", "regressed", "--server", address)
    assert result.exit_code == 1
    assert "they differ in dtype" in result.stderr

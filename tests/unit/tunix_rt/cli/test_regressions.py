"""`tunix-rt reports regressions` and `improvements`: which items, in which order, and the rows near them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from support.fake_loop import FakeLoopServices
from support.threaded import fake_server
from tunix_rt import v1
from tunix_rt.cli.main import app

Run = Callable[..., Result]
OTHER_VALUE, CUT = v1.ANSWER_PATTERN_OTHER_VALUE, v1.ANSWER_PATTERN_CUT


def flip(name: str, category: str, base: float, candidate: float, **fields: Any) -> v1.Flip:
    return v1.Flip(
        base=v1.EvaluationResult(
            item_id=name,
            category=category,
            prompt=f"Question {name}?",
            accepted_answers=["7"],
            output=f"{'words ' * 90}Answer: {name}",
            correct=base > candidate,
            score=base,
        ),
        candidate=v1.EvaluationResult(
            item_id=name, category=category, output="Answer: 8", correct=candidate > base, score=candidate
        ),
        pattern=fields.get("pattern", OTHER_VALUE),
    )


class FakeReport(FakeLoopServices):
    """One report, and a row near every question."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[v1.FindNearestRowsRequest] = []
        self.by_characters = False
        self.report = v1.ComparisonReport(
            name="comparisonReports/r",
            categories=[
                v1.CategoryDifference(category="sums", difference=v1.PairedDifference(difference=-0.1)),
                v1.CategoryDifference(category="units", difference=v1.PairedDifference(difference=-0.4)),
            ],
            flips=[
                flip("z", "sums", 0.0, 1.0),
                flip("a", "sums", 1.0, 0.0),
                flip("b", "sums", 1.0, 0.0, pattern=CUT),
                flip("c", "units", 1.0, 0.0),
                flip("d", "units", 1.0, 0.6),
            ],
            patterns=[
                v1.AnswerPatternCount(pattern=CUT, regression_count=1),
                v1.AnswerPatternCount(pattern=OTHER_VALUE, regression_count=3, improvement_count=1),
            ],
            candidate_training=v1.TrainingFacts(dataset="datasets/d@1"),
        )

    def GetComparisonReport(self, request: v1.GetComparisonReportRequest, _: Any) -> v1.ComparisonReport:
        assert request.name == self.report.name
        return self.report

    def FindNearestRows(self, request: v1.FindNearestRowsRequest, _: Any) -> v1.FindNearestRowsResponse:
        self.asked.append(request)
        near = [
            v1.NearRow(
                row_id="ab" * 32,
                similarity=0.25,
                prompt=f"Near {text}",
                final_answer="9",
                category="k",
                by_characters=self.by_characters,
            )
            for text in request.texts
        ]
        rows = [v1.NearestRows(rows=[row]) for row in near]
        if rows:
            rows[-1].ClearField("rows")
        return v1.FindNearestRowsResponse(nearest=rows, compared_row_count=10)


@pytest.fixture
def services() -> FakeReport:
    return FakeReport()


@pytest.fixture
def run(services: FakeReport) -> Iterator[Run]:
    with fake_server(services.add) as address:
        yield lambda *arguments: CliRunner().invoke(app, ["--server", address, "reports", *arguments])


def ids(result: Result) -> list[str]:
    assert result.exit_code == 0, result.output
    return [entry["base"]["item_id"] for entry in json.loads(result.stdout)]


def test_the_worst_come_first_by_score_then_by_category_and_question(run: Run) -> None:
    assert ids(run("regressions", "r", "--json")) == ["c", "a", "b", "d"]
    assert ids(run("regressions", "r", "--json", "--limit", "1")) == ["c"]
    assert ids(run("regressions", "r", "--json", "--category", "sums")) == ["a", "b"]
    assert ids(run("regressions", "r", "--json", "--pattern", "cut")) == ["b"]
    assert ids(run("regressions", "comparisonReports/r", "--json", "--pattern", "Other_Value")) == [
        "c",
        "a",
        "d",
    ]
    assert ids(run("improvements", "r", "--json")) == ["z"]


def test_the_terminal_shows_the_end_of_both_answers_and_the_pattern(run: Run) -> None:
    shown = run("regressions", "r", "--limit", "2").stdout
    assert shown.index("Question c?") < shown.index("Question a?")
    for part in ("units", "Answer: c", "Answer: 8", "other value"):
        assert part in shown
    assert "Question b?" not in shown


def test_near_rows_are_asked_for_in_one_call_and_shown_with_their_likeness(
    run: Run, services: FakeReport
) -> None:
    result = run("regressions", "r", "--limit", "2", "--training-rows", "3")
    (asked,) = services.asked
    assert (asked.name, list(asked.texts), asked.row_count) == (
        "datasets/d@1", ["Question c?", "Question a?"], 3,
    )  # fmt: skip
    shown = " ".join(result.stdout.split())
    assert "row abababababab 0.25 alike, k: Near Question c? -> 9" in shown
    assert "none: no row shares three words in a row with the question, or is like it by characters" in shown
    assert asked.or_by_characters
    assert "alike by characters" not in shown
    services.by_characters = True
    weaker = run("regressions", "r", "--limit", "2", "--training-rows", "3")
    assert "0.25 alike by characters alone, k: Near Question c? -> 9" in " ".join(weaker.stdout.split())
    documents = json.loads(run("regressions", "r", "--training-rows", "1", "--json").stdout)
    assert documents[0]["training_rows"][0]["row_id"] == "ab" * 32
    assert documents[-1]["training_rows"] == []
    assert json.loads(run("regressions", "r", "--json").stdout)[0]["training_rows"] is None


def test_the_rows_of_the_base_are_shown_where_only_the_base_was_trained(
    run: Run, services: FakeReport
) -> None:
    services.report.ClearField("candidate_training")
    services.report.base_training.dataset = "datasets/base@2"
    result = run("regressions", "r", "--limit", "2", "--training-rows", "3")
    assert [asked.name for asked in services.asked] == ["datasets/base@2"]
    assert "the training rows are those of the base, base@2" in " ".join(result.stderr.split())
    services.report.candidate_training.dataset = "datasets/d@1"
    assert run("regressions", "r", "--training-rows", "3").stderr == ""
    assert services.asked[-1].name == "datasets/d@1"


def test_what_did_not_fit_into_the_answer_is_told(run: Run, services: FakeReport) -> None:
    services.report.patterns[1].regression_count += 5
    assert "5 more items did not fit into one answer: report.json has all" in run("regressions", "r").stderr
    told = json.loads(run("regressions", "r", "--json").stderr)
    assert (told["level"], "5 more items" in told["message"]) == ("NOTICE", True)
    del services.report.flips[:]
    result = run("regressions", "r")
    assert "more items did not fit" in result.stderr
    assert "no item went" not in result.stdout


def test_wrong_options_are_refused_by_name(run: Run, services: FakeReport) -> None:
    result = run("regressions", "r", "--pattern", "lazy")
    assert result.exit_code == 2
    assert "--pattern 'lazy' is none of not-generated, not-graded, repeats" in " ".join(
        result.stderr.replace("\u2502", " ").split()
    )
    services.report.ClearField("candidate_training")
    result = run("regressions", "r", "--training-rows", "1")
    assert result.exit_code == 2
    assert (
        "--training-rows needs a side that was trained here, and neither is a checkpoint; leave it out"
        in " ".join(result.stderr.replace("\u2502", " ").split())
    )
    assert not services.asked


def test_a_report_without_items_that_changed_says_so(run: Run, services: FakeReport) -> None:
    services.report.ClearField("flips")
    services.report.ClearField("patterns")
    assert run("regressions", "r").stdout == "no item went from right to wrong\n"
    assert run("improvements", "r").stdout == "no item went from wrong to right\n"
    assert ids(run("regressions", "r", "--json", "--training-rows", "2")) == []

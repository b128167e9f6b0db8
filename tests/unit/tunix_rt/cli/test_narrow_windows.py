"""Every list is legible in a window of any width; what goes into a pipe has all columns."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text
from syrupy.assertion import SnapshotAssertion
from typer.testing import CliRunner

from support.fake_loop import FakeLoopServices
from support.threaded import fake_server
from tunix_rt import v1
from tunix_rt.cli import tables
from tunix_rt.cli.main import app

Shown = Callable[..., str]
ID = "01a22cf{}-10e1-7039-aabc-484dff7d30b9"
CJK = "東京の電車の問題集・第一版"
LONG = "sweep-over-learning-rates-and-ranks-"
LISTS = {
    "traces": ["traces", "list"],
    "datasets": ["dataset", "list"],
    "jobs": ["train", "list"],
    "eval sets": ["evalset", "list"],
    "evaluations": ["evaluation", "list"],
    "items": ["evaluation", "items", ID.format(0)],
    "reports": ["reports", "list"],
    "models": ["models", "list"],
}


def ago(**passed: float) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(datetime.now(UTC) - timedelta(**passed))
    return stamp


def evaluation(number: int, **spec: Any) -> v1.Evaluation:
    right = 50 + number // 3
    return v1.Evaluation(
        name=f"evaluations/{ID.format(number)}",
        display_name=("", CJK, LONG + "b")[number % 3],
        state=v1.Evaluation.STATE_SUCCEEDED,
        create_time=ago(hours=3 + number, minutes=1),
        spec=v1.EvaluationSpec(eval_set=f"evalSets/{LONG}test", **spec),
        summary=v1.EvaluationSummary(
            overall=v1.Accuracy(correct_count=right, item_count=100, accuracy=right / 100)
        ),
        manifest=v1.EvaluationManifest(results_digest=f"sha256:{number}{'0123456789abcdef' * 3}"),
    )


def evaluations() -> list[v1.Evaluation]:
    sampled = v1.Decoding(temperature=0.7, seed=12, samples=4, top_p=1, max_new_tokens=256)
    greedy = v1.Decoding(max_new_tokens=96, samples=1)
    checkpoint = f"trainingJobs/{ID.format(5)}/checkpoints/18"
    failed = evaluation(4, base_model=CJK, decoding=greedy, dtype=v1.DTYPE_FLOAT32)
    failed.ClearField("summary")
    failed.state = v1.Evaluation.STATE_FAILED
    return [
        evaluation(0, base_model="smollm2-135m-instruct", decoding=greedy, dtype=v1.DTYPE_FLOAT32),
        evaluation(1, base_model="smollm2-135m-instruct", decoding=greedy, dtype=v1.DTYPE_BFLOAT16),
        evaluation(2, checkpoint=checkpoint, decoding=sampled, dtype=v1.DTYPE_BFLOAT16),
        evaluation(3, endpoint_model=LONG + "served", decoding=greedy),
        failed,
    ]


class Listed(FakeLoopServices):
    """A few of everything, under long names."""

    def ListTraces(self, _: v1.ListTracesRequest, __: Any) -> v1.ListTracesResponse:
        prompts = (CJK * 4, "How many inches are 8 feet and 1 inch, if a foot has 12 inches? " * 3)
        return v1.ListTracesResponse(
            traces=[
                v1.Trace(
                    name=f"traces/{ID.format(number)}",
                    source="generator",
                    prompt=prompt,
                    final_answer=str(97 + number),
                    steps=[v1.TraceStep()] * number,
                    create_time=ago(days=number, minutes=1),
                )
                for number, prompt in enumerate(prompts)
            ]
        )

    def ListDatasets(self, _: v1.ListDatasetsRequest, __: Any) -> v1.ListDatasetsResponse:
        return v1.ListDatasetsResponse(
            datasets=[
                v1.Dataset(
                    name=f"datasets/{name}@1",
                    state=v1.Dataset.STATE_SUCCEEDED,
                    display_name=CJK,
                    splits=[v1.DatasetSplit(split="train", row_count=rows)],
                    digest=f"sha256:{rows}{'ab' * 20}",
                    tags=["draft", "paper"],
                    create_time=ago(minutes=12.5),
                )
                for name, rows in ((LONG + "a", 7_473), ("short", 12))
            ]
        )

    def ListTrainingJobs(self, _: v1.ListTrainingJobsRequest, __: Any) -> v1.ListTrainingJobsResponse:
        return v1.ListTrainingJobsResponse(
            training_jobs=[
                v1.TrainingJob(
                    name=f"trainingJobs/{ID.format(number)}",
                    state=state,
                    display_name=LONG + str(number),
                    spec=v1.TrainingSpec(
                        base_model="smollm2-135m-instruct", dataset=f"datasets/{LONG}a@1", max_steps=1_000
                    ),
                    latest_metrics=v1.TrainingMetrics(step=500 * number, loss=0.5),
                    create_time=ago(minutes=12.5),
                )
                for number, state in enumerate((v1.TrainingJob.STATE_RUNNING, v1.TrainingJob.STATE_CANCELLED))
            ]
        )

    def ListEvalSets(self, _: v1.ListEvalSetsRequest, __: Any) -> v1.ListEvalSetsResponse:
        return v1.ListEvalSetsResponse(
            eval_sets=[
                v1.EvalSet(
                    name=f"evalSets/{name}",
                    display_name=CJK,
                    item_count=1_319,
                    description="Word problems of grade school, held out before the first training.",
                    digest=f"sha256:{'cd' * 20}",
                    create_time=ago(hours=2.5),
                )
                for name in (LONG + "test", "general")
            ]
        )

    def ListEvaluations(self, _: v1.ListEvaluationsRequest, __: Any) -> v1.ListEvaluationsResponse:
        return v1.ListEvaluationsResponse(evaluations=evaluations())

    def ListEvaluationItems(
        self, _: v1.ListEvaluationItemsRequest, __: Any
    ) -> v1.ListEvaluationItemsResponse:
        return v1.ListEvaluationItemsResponse(
            results=[
                v1.EvaluationResult(
                    item_id=item_id,
                    prompt=f"{CJK}: how much is 8 * 4, and what of it is left after 3 more?",
                    output="Reasoning: 8 * 4 is 32, and 3 less are 29. Answer: 29",
                    extracted_answer="29",
                    accepted_answers=["29", "29.0"],
                    correct=item_id == "short",
                )
                for item_id in ("arithmetic/two-steps/subtraction/000123", "short")
            ]
        )

    def ListComparisonReports(
        self, _: v1.ListComparisonReportsRequest, __: Any
    ) -> v1.ListComparisonReportsResponse:
        base, sampled, *_others = evaluations()
        return v1.ListComparisonReportsResponse(
            comparison_reports=[
                v1.ComparisonReport(
                    name=f"comparisonReports/{ID.format(number).replace('-', '')}",
                    verdict=verdict,
                    base=v1.Evaluation(spec=base.spec),
                    candidate=v1.Evaluation(spec=sampled.spec, display_name=CJK),
                    overall=v1.PairedDifference(difference=0.5 - number),
                    create_time=ago(days=2.5),
                )
                for number, verdict in enumerate(
                    (v1.ComparisonReport.VERDICT_NO_EVIDENCE, v1.ComparisonReport.VERDICT_REGRESSED)
                )
            ]
        )

    def ListBaseModels(self, _: v1.ListBaseModelsRequest, __: Any) -> v1.ListBaseModelsResponse:
        return v1.ListBaseModelsResponse(
            base_models=[
                v1.BaseModel(
                    base_model=name,
                    family="llama",
                    parameter_count=134_500_000,
                    context_length=8_192,
                    license="apache-2.0",
                    weights_digest=f"sha256:{'ef' * 20}",
                )
                for name in (
                    "hf://organisation/a-model-of-a-long-name-7b-instruct-v0.3",
                    "smollm2-135m-instruct",
                )
            ]
        )


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with fake_server(Listed().add) as address:
        yield address


@pytest.fixture
def shown(server: str, monkeypatch: pytest.MonkeyPatch) -> Shown:
    """What a command shows in a terminal of so many columns, without colours."""
    monkeypatch.setenv("TUNIX_RT_SERVER", server)

    def invoke(arguments: list[str], columns: int, *, terminal: bool = True) -> str:
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setenv("TTY_COMPATIBLE", str(int(terminal)))
        monkeypatch.setenv("TERM", "xterm")
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.output
        lines = Text.from_ansi(result.stdout).plain.splitlines()
        return "\n".join(line.rstrip() for line in lines)

    return invoke


@pytest.mark.parametrize("columns", [60, 80, 120])
@pytest.mark.parametrize("listed", LISTS)
def test_lists_in_a_window(shown: Shown, listed: str, columns: int, snapshot: SnapshotAssertion) -> None:
    assert shown(LISTS[listed], columns) == snapshot


@pytest.mark.parametrize("listed", LISTS)
def test_no_line_is_wider_than_the_window_and_ids_stay_whole(shown: Shown, listed: str) -> None:
    for columns in range(50, 201, 15):
        text = shown(LISTS[listed], columns)
        assert max(map(cell_len, text.splitlines())) <= columns
        if listed in ("traces", "jobs", "evaluations", "datasets", "items"):
            known = {"datasets": [f"{LONG}a@1", "short@1"], "items": ["two-steps/subtraction/000123"]}
            for name in known.get(listed, [ID.format(number) for number in (0, 1)]):
                assert name in text


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_evaluations_with_other_results_look_different(shown: Shown, columns: int) -> None:
    text = shown(LISTS["evaluations"], columns)
    lines = [line for line in text.splitlines() if line.strip().startswith("01a22cf")]
    assert len({line.split(maxsplit=1)[1] for line in lines}) == len(lines) == 5
    assert columns == 120 or "failed" in lines[-1].split()
    assert columns < 80 or all(word in text for word in ("float32", "bfloat16", "t=0.7 s=12", "greedy"))


@pytest.mark.parametrize("listed", LISTS)
def test_a_pipe_gets_every_column_and_no_remark(shown: Shown, listed: str) -> None:
    text = shown(LISTS[listed], 160, terminal=False)
    assert "left out" not in text
    assert "in every row" not in text
    if listed == "evaluations":
        assert "AGE" in text
        assert "10123456789a" in text


def test_what_is_the_same_in_every_row_is_said_once(shown: Shown) -> None:
    text = shown(LISTS["datasets"], 80)
    assert "NAME" in text.splitlines()[-1]
    assert text.count(CJK) == 1


def test_a_sheet_shows_long_names_whole() -> None:
    console = Console(file=io.StringIO(), width=60)
    console.print(tables.facts([(f"arithmetic/{'two-steps-' * 5}", "word " * 40)]))
    assert isinstance(console.file, io.StringIO)
    names = "".join(line[:28].strip() for line in console.file.getvalue().splitlines())
    assert f"arithmetic/{'two-steps-' * 5}" in names


def test_cells_and_headings_must_match() -> None:
    with pytest.raises(ValueError, match="1 cells under 2 headings"):
        tables.add_row(tables.table("A", "B"), "a")

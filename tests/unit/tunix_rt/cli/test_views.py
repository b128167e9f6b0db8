"""What resources look like: figures, verdicts and names stand where a person looks for them."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc.status_pb2 import Status
from rich.console import Console

from tunix_rt import v1
from tunix_rt.cli import tables
from tunix_rt.cli.audit_view import print_audit
from tunix_rt.cli.comparisons import print_comparison
from tunix_rt.cli.dataset_preview import examples, print_examples, write_page
from tunix_rt.cli.dataset_view import print_dataset, print_dropped, print_leaks
from tunix_rt.cli.evaluation_view import dtype_text, how_answered, print_evaluation
from tunix_rt.cli.session import Session, SharedOptions, as_document
from tunix_rt.cli.trace_view import trace_panel
from tunix_rt.cli.training_page import losses_by_step, write_training_page
from tunix_rt.cli.training_view import print_training_job
from tunix_rt.leaks import LeakingDataset

HEX = "0123456789abcdef" * 4


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=120)


def shown(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def accuracy(correct: int, items: int) -> v1.Accuracy:
    return v1.Accuracy(
        item_count=items,
        correct_count=correct,
        accuracy=correct / items,
        interval=v1.Interval(lower=0.1, upper=0.3, confidence=0.95),
    )


def test_trace_shows_markup_as_it_is(console: Console) -> None:
    trace = v1.Trace(
        name="traces/a",
        prompt="Is [bold]x[/bold] 1?",
        steps=[v1.TraceStep(i=0, type="compute", content="[red]1 + 1[/red] = 2")],
        final_answer="2",
        source="generator",
    )
    trace.metadata.update({"family": "addition", "seed": 7})
    console.print(trace_panel(trace))
    text = shown(console)
    for part in ("traces/a", "Is [bold]x[/bold] 1?", "[red]1 + 1[/red] = 2", "metadata family", "addition"):
        assert part in text


LEARNED = v1.PreviewSegment(text="<b>\x1b[31m5</b>\n", learned=True)
PARTS = [
    v1.PreviewRowsResponse(
        split="train",
        row_id=HEX,
        example_number=1,
        segments=[v1.PreviewSegment(text="2 + [3]?\n"), LEARNED],
        fault="special_token",
    ),
    v1.PreviewRowsResponse(
        split="train",
        row_id=HEX,
        example_number=1,
        tokens=[v1.PreviewToken(id=17, text="2 +"), v1.PreviewToken(id=9, text="\n", learned=True)],
    ),
]


@pytest.mark.parametrize("coloured", [True, False])
def test_a_preview_shows_what_is_learned_with_colours_and_without(coloured: bool) -> None:
    console = Console(file=io.StringIO(), width=40, force_terminal=coloured, color_system="standard")
    if not coloured:
        console = Console(file=io.StringIO(), width=40)
    print_examples(console, examples(PARTS), tokens=False)
    text = shown(console)
    assert "2 + [3]?" in text
    assert "special token" in text
    reply = r"<b>\x1b[31m5</b>"
    assert (f"\x1b[1;32m{reply}" if coloured else f"«{reply}\n»") in text
    print_examples(console, examples(PARTS), tokens=True)
    lines = shown(console).splitlines()
    assert any(line.startswith("0  17  -") for line in lines)
    assert any(r"1   9  learned  '\n'" in line for line in lines)


def test_a_page_of_a_preview_holds_texts_and_runs_nothing(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    write_page(page, "<i>", examples([PARTS[0]]))
    written = page.read_text()
    assert r"<pre>2 + [3]?" "\n" r"<mark>&lt;b&gt;\x1b[31m5&lt;/b&gt;" in written
    assert "<title>&lt;i&gt;</title>" in written
    write_page(page, "t", examples(PARTS))
    assert '<span class="learned token" title="id 9">' in page.read_text()


def test_a_page_of_a_training_job_has_its_facts_losses_and_rows(tmp_path: Path) -> None:
    job = v1.TrainingJob(name="trainingJobs/j", display_name="<b>", state=v1.TrainingJob.STATE_SUCCEEDED)
    job.spec.base_model = "m&m"
    # The second step was taken twice.
    taken = [(1, 4.0), (2, 9.0), (2, 3.0), (4, float("nan")), (5, 2.0)]
    events = [
        v1.WatchTrainingJobResponse(metrics=v1.TrainingMetrics(step=step, loss=loss)) for step, loss in taken
    ]
    losses = losses_by_step([v1.WatchTrainingJobResponse(training_job=job), *events])
    page = tmp_path / "job.html"
    write_training_page(page, job, losses, examples(PARTS))
    written = page.read_text()
    assert "<title>What &lt;b&gt; learns</title>" in written
    assert "<tr><th>base model</th><td>m&amp;m</td></tr>" in written
    assert "<tr><th>state</th><td>succeeded</td></tr>" in written
    assert 'points="0.0,0.0 160.0,80.0 640.0,160.0"' in written
    assert "from 4.0000 at step 1 to 2.0000 at step 5" in written
    assert '<span class="learned token" title="id 9">' in written
    write_training_page(page, job, {1: 4.0}, [])
    assert "<svg" not in page.read_text()


def test_dataset_shows_splits_what_was_left_out_and_figures(console: Console) -> None:
    spread = v1.Distribution(minimum=1, mean=2.25, median=2, p95=3, maximum=4)
    file = v1.DatasetFile(
        format=v1.DATASET_FORMAT_TRAINING_EXAMPLE,
        file=v1.ArtifactFile(size_bytes=2048, digest=f"sha256:{HEX}"),
    )
    print_dataset(
        console,
        v1.Dataset(
            name="datasets/d@1",
            state=v1.Dataset.STATE_SUCCEEDED,
            digest=f"sha256:{HEX}",
            trace_count=120,
            splits=[v1.DatasetSplit(split="train", row_count=100, files=[file])],
            dropped=[
                v1.DroppedRows(stage="duplicate", reason="same content", row_count=20),
                v1.DroppedRows(stage="contaminated", reason="none", row_count=0),
            ],
            statistics=v1.DatasetStatistics(
                steps=spread, prompt_characters=spread, response_characters=spread
            ),
        ),
    )
    text = shown(console)
    assert f"sha256:{HEX}" in text
    for parts in (
        ["train", "100", "2.0 KiB"],
        ["duplicate", "20", "same content"],
        ["steps", "1", "2.2", "4"],
    ):
        assert any(all(part in line for part in parts) for line in text.splitlines()), parts
    assert "contaminated" not in text


def test_leaks_name_rows_items_and_what_is_touched(console: Console) -> None:
    row = v1.ContaminatedRow(
        row_id=HEX, split="train", eval_item="q7", match=v1.ContaminatedRow.MATCH_NGRAM, matched_text="a b c"
    )
    other = v1.ContaminatedRow(row_id=HEX, split="test", eval_item="q8", match=v1.ContaminatedRow.MATCH_EXACT)
    leak = LeakingDataset(
        v1.Dataset(name="datasets/d@1"), [row, *[other] * 30], ["trainingJobs/j/checkpoints/4"], [], []
    )
    print_leaks(console, "evalSets/e", [leak])
    text = shown(console)
    for parts in (
        ["d@1", "1", "30", "2", "j/checkpoints/4"],
        [HEX[:12], "train", "q7", "ngram", "a b c"],
        ["31 rows in all (test 30, train 1)"],
    ):
        assert any(all(part in line for part in parts) for line in text.splitlines()), parts
    print_leaks(console, "evalSets/e", [])
    assert "no dataset leaks an item of evalSets/e" in shown(console)


def test_what_was_left_out_names_what_it_matched(console: Console) -> None:
    leaked = {"id": HEX, "stage": "contaminated", "eval_set": "evalSets/e", "eval_item": "q7"}
    leaked |= {"match": "numbers", "matched_text": "24 15"}
    copies = [{"id": HEX, "stage": "duplicate", "kept": HEX[::-1]}] * 12
    print_dropped(console, [leaked, *copies])
    text = shown(console)
    for parts in (["contaminated", "e q7", "numbers", "24 15"], ["duplicate", f"row {HEX[::-1][:12]}"]):
        assert any(all(part in line for part in parts) for line in text.splitlines()), parts
    assert "there are more; tunix-rt dataset dropped writes each" in text


def test_a_narrow_window_cuts_texts_and_keeps_names_and_figures() -> None:
    narrow = Console(file=io.StringIO(), width=50)
    rows = tables.table("NAME", "TEXT", ">COUNT")
    tables.add_row(rows, "name-" * 6, "word " * 20, "1,234,567")
    narrow.print(rows)
    [line] = [line for line in shown(narrow).splitlines() if "name-" in line]
    assert "name-" * 6 in line
    assert line.rstrip().endswith("1,234,567")
    assert "…" in line


def test_failed_job_shows_its_error(console: Console) -> None:
    job = v1.TrainingJob(
        name="trainingJobs/j",
        state=v1.TrainingJob.STATE_FAILED,
        error=Status(message="loss is NaN at step 3"),
        attempt_count=2,
        stage_timings=[v1.StageTiming(stage="compiling", duration=Duration(seconds=9, nanos=400_000_000))],
    )
    print_training_job(console, job)
    text = shown(console)
    for part in ("failed", "loss is NaN at step 3", "compiling 9.4 s", "attempts"):
        assert part in text
    assert "next: tunix-rt train resume j" in text


def test_finished_job_says_what_comes_next(console: Console) -> None:
    print_training_job(
        console, v1.TrainingJob(name="trainingJobs/j", checkpoint="trainingJobs/j/checkpoints/4")
    )
    assert "tunix-rt evaluate --eval-set ID --checkpoint j" in shown(console)


def test_evaluation_shows_accuracy_and_categories(console: Console) -> None:
    summary = v1.EvaluationSummary(
        overall=accuracy(10, 40),
        categories=[v1.CategoryAccuracy(category=name, accuracy=accuracy(5, 20)) for name in ("a", "")],
        truncated_count=3,
        failed_count=1,
    )
    spec = v1.EvaluationSpec(eval_set="evalSets/e", base_model="m")
    print_evaluation(console, v1.Evaluation(name="evaluations/x", spec=spec, summary=summary))
    text = shown(console)
    assert "10 of 40 right, 25.0% (95% interval 10.0% to 30.0%)" in text
    assert "3 answers" in text
    assert "not run" in text
    assert any(line.strip().startswith("none") for line in text.splitlines())


def test_evaluation_shows_how_answers_were_drawn_and_what_was_kept(console: Console) -> None:
    summary = v1.EvaluationSummary(
        overall=accuracy(10, 40), mean_score=0.31, any_correct_count=22, cached_count=12
    )
    decoding = v1.Decoding(max_new_tokens=96, batch_size=16, temperature=0.7, top_p=0.95, seed=3, samples=8)
    spec = v1.EvaluationSpec(eval_set="evalSets/e", base_model="m", decoding=decoding)
    print_evaluation(console, v1.Evaluation(name="evaluations/x", spec=spec, summary=summary))
    text = " ".join(shown(console).split())
    for part in (
        "decoding sampled at temperature 0.7, top-p 0.95, seed 3, 8 samples of each item, at most 96 tokens, "
        "batches of 16",
        "10 of 40 right, 25.0% (95% interval 10.0% to 30.0%), by most of 8 samples",
        "mean score 0.310",
        "any sample right 22 items",
        "kept 12 items taken from earlier evaluations; --fresh generates them anew",
    ):
        assert part in text
    # Nothing was generated, so there is no speed to tell.
    assert "tokens/s" not in text


def test_evaluation_with_greedy_answers_says_so(console: Console) -> None:
    summary = v1.EvaluationSummary(overall=accuracy(10, 40), mean_score=0.25, tokens_per_second=1234)
    spec = v1.EvaluationSpec(decoding=v1.Decoding(max_new_tokens=96, batch_size=16, samples=1))
    print_evaluation(console, v1.Evaluation(spec=spec, summary=summary))
    text = " ".join(shown(console).split())
    assert "decoding greedy, at most 96 tokens, batches of 16 accuracy" in text
    assert "1,234 tokens/s" in text
    for part in ("kept", "mean score", "sample"):
        assert part not in text


def comparison(verdict: v1.ComparisonReport.Verdict.ValueType) -> v1.ComparisonReport:
    overall = v1.PairedDifference(
        base=accuracy(10, 40),
        candidate=accuracy(30, 40),
        difference=0.5,
        interval=v1.Interval(lower=0.3, upper=0.65),
        gained_count=21,
        lost_count=1,
        p_value=1e-5,
    )
    flips = [
        v1.Flip(
            base=v1.EvaluationResult(
                item_id=f"q{i}", prompt=f"question {i}", output="4", accepted_answers=["5"]
            ),
            candidate=v1.EvaluationResult(item_id=f"q{i}", output="Answer: 5", correct=i > 0),
        )
        for i in range(4)
    ]
    return v1.ComparisonReport(
        name="comparisonReports/r",
        base=v1.Evaluation(spec=v1.EvaluationSpec(base_model="m")),
        candidate=v1.Evaluation(spec=v1.EvaluationSpec(checkpoint="trainingJobs/j/checkpoints/4")),
        verdict=verdict,
        overall=overall,
        categories=[v1.CategoryDifference(category=name, difference=overall) for name in ("add", "sub")],
        flips=flips,
    )


def test_comparison_gives_the_headline_first(console: Console) -> None:
    print_comparison(console, comparison(v1.ComparisonReport.VERDICT_IMPROVED), flips=2)
    text = shown(console)
    assert text.index("Verdict: improved") < text.index("CATEGORY")
    for part in (
        "25.0%", "75.0%", "+50.0 points", "+30.0 points to +65.0 points",
        "p = 1.0e-05 (exact McNemar): 21 went right, 1 went wrong", "j/checkpoints/4",
        "went right: 3, the best 2", "went wrong: 1", "question 1",
    ):  # fmt: skip
        assert part in text, part
    assert "question 3" not in text


def test_comparison_of_samples_says_how_they_were_drawn(console: Console) -> None:
    report = comparison(v1.ComparisonReport.VERDICT_IMPROVED)
    print_comparison(console, report)
    assert "decoding" not in shown(console)
    drawn = v1.Decoding(max_new_tokens=96, batch_size=16, temperature=0.7, samples=2, top_p=1, seed=3)
    for side in (report.base, report.candidate):
        side.spec.decoding.CopyFrom(drawn)
    report.overall.test = "permutation"
    report.flips[1].candidate.samples.extend(
        [v1.Sample(output="It is 4."), v1.Sample(output="Answer: five", correct=True)]
    )
    print_comparison(console, report)
    text = " ".join(shown(console).replace("\u2502", " ").split())
    assert "sampled at temperature 0.7, seed 3, 2 samples of each item, at most 96 tokens" in text
    assert "21 went right, 1 went wrong, on average over the samples of an item" in text
    assert "Answer: five" in text
    assert "It is 4." not in text


def test_comparison_says_when_there_is_no_evidence(console: Console) -> None:
    print_comparison(console, comparison(v1.ComparisonReport.VERDICT_NO_EVIDENCE), flips=0)
    text = shown(console)
    assert "Verdict: no evidence of a difference" in text
    assert "went right: 3" not in text


def test_json_keeps_the_names_of_the_contract_and_zero_values() -> None:
    document = as_document(v1.EvaluationSummary(overall=v1.Accuracy(item_count=3)))
    assert document["overall"] == {
        "item_count": 3,
        "correct_count": 0,
        "accuracy": 0.0,
        "interval": None,
    }
    assert document["truncated_count"] == 0


def test_a_list_is_one_json_array(capsys: pytest.CaptureFixture[str]) -> None:
    session = Session(SharedOptions(as_json=True))
    session.print_messages(v1.Trace(name=f"traces/{i}") for i in range(2))
    assert [trace["name"] for trace in json.loads(capsys.readouterr().out)] == ["traces/0", "traces/1"]
    session.print_messages(iter(()))
    assert json.loads(capsys.readouterr().out) == []


def test_evaluation_shows_what_was_reasoning_and_what_nothing_marks(console: Console) -> None:
    summary = v1.EvaluationSummary(
        overall=accuracy(10, 40),
        generated_tokens=9_000,
        reasoning_count=30,
        reasoning_tokens=6_000,
        unclosed_reasoning_count=2,
        unmarked_count=7,
        unmarked_correct_count=5,
    )
    marks = v1.ReasoningMarks(name="think", start="<think>", end="</think>", opened=True, revision=1)
    manifest = v1.EvaluationManifest(spec=v1.EvaluationSpec(reasoning_marks=marks))
    print_evaluation(console, v1.Evaluation(name="evaluations/x", summary=summary, manifest=manifest))
    text = " ".join(shown(console).split())
    for part in (
        "reasoning in 30 answers: 6,000 of 9,000 tokens, 200 each",
        "never closed the reasoning of 2 answers, counted as wrong",
        "unmarked 7 verdicts (5 right) on an answer that nothing marks",
        "reasoning marks <think> to </think>, opened by the prompt",
    ):
        assert part in text


def test_lines_of_evaluations_differ_where_what_was_asked_differs() -> None:
    spec = v1.EvaluationSpec(dtype=v1.DTYPE_FLOAT32, decoding=v1.Decoding(max_new_tokens=96, top_p=1))
    plain = v1.Evaluation(spec=spec)
    assert (dtype_text(plain.spec), how_answered(plain)) == ("float32", "greedy, 96 tokens")
    endpoint = v1.EvaluationSpec(endpoint_model="m")
    assert dtype_text(endpoint) == "-"
    lines = {how_answered(plain)}
    for number, change in enumerate(
        (
            {"max_new_tokens": 97},
            {"temperature": 0.5},
            {"temperature": 0.7},
            {"temperature": 0.7, "seed": 1},
            {"temperature": 0.7, "top_p": 0.9},
            {"temperature": 0.7, "samples": 4},
        )
    ):
        other = v1.Evaluation(spec=spec)
        other.spec.decoding.MergeFrom(v1.Decoding(**change))
        lines.add(how_answered(other))
        assert len(lines) == number + 2
    regraded = v1.Evaluation(spec=spec, regrade=v1.Regrade(grader=v1.Grader(numeric=v1.NumericGrader())))
    assert how_answered(regraded) == "regraded (numeric), greedy, 96 tokens"


def test_the_digest_of_items_with_another_grader_is_not_shown_as_the_eval_sets(console: Console) -> None:
    evaluation = v1.Evaluation(
        name="evaluations/e",
        spec=v1.EvaluationSpec(eval_set="evalSets/demo"),
        manifest=v1.EvaluationManifest(eval_set_digest=f"sha256:{'ab' * 32}"),
        regrade=v1.Regrade(source="evaluations/d"),
    )
    print_evaluation(console, evaluation)
    assert "demo (abababababab)" in shown(console)
    evaluation.regrade.grader.numeric.SetInParent()
    print_evaluation(console, evaluation)
    told = shown(console).rpartition("graded again")[2]
    assert "demo (" not in told
    assert "items graded digest abababababab, of the items with that grader" in " ".join(told.split())


def test_an_evaluation_is_shown_with_its_name_tags_note_and_type(console: Console) -> None:
    evaluation = v1.Evaluation(
        name="evaluations/e",
        display_name="first\x1b[31m",
        tags=["a", "b"],
        note="two\nlines",
        spec=v1.EvaluationSpec(dtype=v1.DTYPE_BFLOAT16),
    )
    print_evaluation(console, evaluation)
    told = shown(console)
    for line in ("name", "first", "a, b", "two", "dtype", "bfloat16"):
        assert line in told
    assert "\x1b[31m" not in told


def test_an_audit_shows_what_is_learned_of_each_role_and_what_is_wrong(console: Console) -> None:
    part = v1.RoleSupervision
    said = part(part=part.PART_ASSISTANT, token_count=1234, supervised_token_count=1200, turn_count=9)
    said.supervised_turn_count, said.end_mark_count, said.supervised_end_mark_count = 8, 9, 7
    asked = part(part=part.PART_USER, token_count=50, supervised_token_count=3, turn_count=9)
    rows = v1.AuditedRows(row_count=1, example_row_ids=[HEX])
    split = v1.SplitSupervision(split="train", roles=[asked, said], supervised_elsewhere=rows)
    split.end_mark_masked.CopyFrom(rows)
    print_audit(console, v1.SupervisionAudit(name="a", splits=[split]))
    lines = [" ".join(line.split()) for line in shown(console).splitlines()]
    assert "assistant train 1,234 1,200 8 of 9 7 of 9 -" in lines
    assert "user train 50 3 0 of 9 - -" in lines
    assert any(line.startswith("another's text is learned") for line in lines)
    assert any(line.startswith("end mark of a turn not learned train 1") for line in lines)

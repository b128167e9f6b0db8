"""Commands that start work on a server, wait for it and show what came of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from support.fake_loop import FakeLoopServices
from support.threaded import fake_server
from tunix_rt import v1
from tunix_rt.cli import evaluations, training
from tunix_rt.cli.main import app

Run = Callable[..., Result]


@pytest.fixture
def services() -> FakeLoopServices:
    return FakeLoopServices()


@pytest.fixture
def run(services: FakeLoopServices, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Run]:
    monkeypatch.chdir(tmp_path)
    with fake_server(services.add) as address:
        monkeypatch.setenv("TUNIX_RT_SERVER", address)
        yield lambda *arguments: CliRunner().invoke(app, list(arguments))


def done(result: Result) -> Result:
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture
def stored(run: Run) -> Run:
    """Traces, a dataset and an eval set are there."""
    done(run("traces", "generate", "--count", "20"))
    done(run("dataset", "build", "d", "--base-model", "tiny", "--system", "Think."))
    done(run("evalset", "import", "e", "--from-dataset", "d", "--split", "test", "--limit", "3"))
    return run


def test_traces_are_stored_once(run: Run) -> None:
    assert "20 traces read, 20 stored, 0 skipped" in done(run("traces", "generate", "--count", "20")).stdout
    again = done(run("traces", "generate", "--count", "20", "--json"))
    assert json.loads(again.stdout) == {
        "read": 20,
        "created": 0,
        "skipped": 20,
        "bad": 0,
        "left_out": {},
        "columns": {},
        "redacted": {},
    }


def test_dataset_is_built_with_the_given_spec(stored: Run, services: FakeLoopServices) -> None:
    spec = services.jobs["datasets/d@1"].spec
    assert spec.chat_template == v1.ChatTemplate(
        jinja="{{ x }}", eos_token="</s>", system_instruction="Think."
    )
    assert spec.special_tokens == ["</s>", "<pad>"]
    assert spec.reasoning_style == v1.REASONING_STYLE_NUMBERED
    assert spec.model_answers == v1.MODEL_ANSWERS_UNSPECIFIED
    done(stored("dataset", "build", "plain", "--template", "model:tiny", "--unwritable", "refuse"))
    spec = services.jobs["datasets/plain@1"].spec
    assert (spec.chat_template.jinja, len(spec.special_tokens)) == ("{{ x }}", 0)
    assert spec.unwritable_rows == v1.UNWRITABLE_ROWS_REFUSE
    assert spec.train_on == v1.TRAIN_ON_ALL_ASSISTANTS
    done(stored("dataset", "build", "turns", "--train-on", "marked", "--changed-history", "refuse"))
    spec = services.jobs["datasets/turns@1"].spec
    assert (spec.train_on, spec.changed_history) == (v1.TRAIN_ON_MARKED, v1.CHANGED_HISTORY_REFUSE)
    done(
        stored("dataset", "build", "mixed", "--base-model", "tiny", "--template", "chatml", "--model-answers")
    )
    spec = services.jobs["datasets/mixed@1"].spec
    assert (spec.chat_template.builtin, list(spec.special_tokens)) == ("chatml", ["</s>", "<pad>"])
    assert spec.model_answers == v1.MODEL_ANSWERS_KEEP
    for option in ("--base-model", "--template"):
        refused = stored(
            "dataset", "build", "far", option, "far" if option == "--base-model" else "model:far"
        )
        assert refused.exit_code == 2
        said = " ".join(refused.stderr.replace("│", " ").split())
        assert f"Invalid value for {option}: far is not on" in said and "tunix-rt models pull far" in said
    result = done(
        stored("dataset", "build", "other@2", "--random", "5", "--split", "train=0.9", "--split", "test=0.1",
               "--seed", "3", "--source", "generator", "--style", "answer-only", "--eval-set", "e", "--json")
    )  # fmt: skip
    assert json.loads(result.stdout)["state"] == "STATE_SUCCEEDED"
    spec = services.jobs["datasets/other@2"].spec
    assert (spec.seed, spec.selection.random, list(spec.filter.sources)) == (3, 5, ["generator"])
    assert [(part.split, part.fraction) for part in spec.splits] == [("train", 0.9), ("test", 0.1)]
    assert list(spec.eval_sets) == ["evalSets/e"]


def test_a_safe_dataset_is_built_with_the_given_spec(stored: Run, services: FakeLoopServices) -> None:
    done(
        stored("dataset", "build", "safe", "--duplicates", "near", "--similarity", "0.7", "--group-by",
               "talk", "--keep-apart", "0.9", "--ngram-words", "0", "--eval-set", "e", "--parent", "d")
    )  # fmt: skip
    spec = services.jobs["datasets/safe@1"].spec
    assert spec.deduplication == v1.Deduplication(method=v1.Deduplication.METHOD_NEAR, threshold=0.7)
    assert spec.split_group == v1.SplitGroup(metadata_field="talk", near_duplicate_threshold=0.9)
    assert spec.decontamination.HasField("ngram_words")
    assert spec.decontamination.ngram_words == 0
    assert (spec.parent, list(spec.eval_sets)) == ("datasets/d@1", ["evalSets/e"])
    plain = services.jobs["datasets/d@1"].spec
    assert plain.split_group == v1.SplitGroup(prompt=True)
    assert not plain.decontamination.HasField("ngram_words")
    for wrong, said in (
        (("--similarity", "0.7"), "--duplicates near"),
        (("--duplicates", "near", "--similarity", "1"), "0.95"),
        (("--keep-apart", "0.1"), "0.5"),
    ):
        result = stored("dataset", "build", "wrong", *wrong)
        assert (result.exit_code, said in result.stderr) == (2, True), result.stderr


def test_dataset_is_exported_to_a_file_and_to_stdout(stored: Run, tmp_path: Path) -> None:
    arguments = ("dataset", "export", "d@1", "--split", "test", "--format", "trace")
    result = done(stored(*arguments, "-o", "out/test.jsonl"))
    assert "written to out/test.jsonl" in result.stderr
    content = (tmp_path / "out" / "test.jsonl").read_text()
    assert content == done(stored(*arguments)).stdout
    assert json.loads(content.splitlines()[0])["prompts"]


def test_an_export_that_has_the_last_turns_alone_says_so_or_is_refused(
    stored: Run, services: FakeLoopServices, tmp_path: Path
) -> None:
    arguments = ("dataset", "export", "d@1", "--split", "test", "--format", "training_example")
    asked = (*arguments, "--conversations", "refuse", "-o", "test.jsonl")
    assert "conversations" not in done(stored(*asked)).stderr
    (tmp_path / "test.jsonl").unlink()
    services.jobs["datasets/d@1"].splits[0].files.add(format=v1.DATASET_FORMAT_CONVERSATION_EXAMPLE)
    assert "training_example holds the last turn alone" in done(stored(*arguments)).stderr
    refused = stored(*asked)
    assert (refused.exit_code, "datasets/d@1 has conversations" in refused.stderr) == (1, True)
    assert not (tmp_path / "test.jsonl").exists()
    assert "conversations" not in done(stored(*arguments[:-1], "trace")).stderr


def drop_rows(services: FakeLoopServices, count: int) -> list[str]:
    rows = [json.dumps({"id": f"{row:012}", "stage": "duplicate", "kept": "0" * 64}) for row in range(count)]
    services.dropped = "".join(f"{row}\n" for row in rows).encode()
    services.jobs["datasets/d@1"].dropped_rows.size_bytes = len(services.dropped)
    return rows


def test_what_goes_to_stdout_is_written_as_it_arrives(stored: Run, services: FakeLoopServices) -> None:
    rows = drop_rows(services, 30)
    exported = ("dataset", "export", "d", "--split", "test", "--format", "trace")
    assert done(stored("dataset", "dropped", "d")).stdout.splitlines() == rows
    whole = done(stored(*exported)).stdout
    services.damaged_at = 50
    for arguments, content in ((("dataset", "dropped", "d"), services.dropped.decode()), (exported, whole)):
        cut = stored(*arguments)
        assert (cut.exit_code, cut.stdout) == (1, content[:50])
        assert "all behind byte 50 is gone" in cut.stderr


def test_only_the_beginning_of_the_report_is_read_to_show_it(stored: Run, services: FakeLoopServices) -> None:
    rows = drop_rows(services, 30)
    services.damaged_at = len("\n".join(rows[:20]))
    shown = done(stored("dataset", "show", "d"))
    assert [row for row in range(30) if f"{row:012}" in shown.stdout] == list(range(10))
    assert "there are more; tunix-rt dataset dropped writes each" in shown.stdout
    assert shown.stderr == ""
    services.damaged_at = None
    drop_rows(services, 10)
    assert "there are more" not in done(stored("dataset", "show", "d")).stdout


def test_a_dataset_says_how_many_traces_came_later(stored: Run, services: FakeLoopServices) -> None:
    dataset = services.jobs["datasets/d@1"]
    dataset.spec.as_of = len(services.traces)
    assert "since then" not in done(stored("dataset", "show", "d")).stdout
    dataset.spec.as_of -= 3
    shown = " ".join(done(stored("dataset", "show", "d")).stdout.split())
    assert (
        f"3 traces that match were added: set another version to have them, or --as-of {dataset.spec.as_of}"
        in shown
    )


@pytest.mark.parametrize("damage", [b"", b"{\n" * 12])
def test_a_dataset_is_shown_without_its_report(
    stored: Run, services: FakeLoopServices, damage: bytes
) -> None:
    drop_rows(services, 30)
    services.dropped = damage or services.dropped
    services.damaged_at = None if damage else 0
    shown = done(stored("dataset", "show", "d"))
    assert "datasets/d@1" in shown.stdout
    (line,) = shown.stderr.splitlines()
    assert line.startswith("the rows that were left out cannot be shown: ")
    assert ("the report is damaged" if damage else "all behind byte 0 is gone") in line


def test_parquet_is_not_written_to_a_terminal(stored: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunix_rt.cli.dataset_export._on_terminal", lambda: True)
    result = stored("dataset", "export", "d@1", "--format", "chat_parquet")
    assert result.exit_code == 2
    assert "give -o FILE" in " ".join(result.stderr.split())


def test_dataset_is_audited_and_the_audit_shown_afterwards(stored: Run) -> None:
    arguments = ("dataset", "show", "d@1")
    assert "AUDIT FOR" not in done(stored(*arguments)).stdout
    shown = done(
        stored(*arguments, "--audit", "tiny", "--max-length", "64", "--packing-length", "32",
               "--packing-length", "128")
    ).stdout  # fmt: skip
    for fact in ("tokenizer k", "64 tokens", "8 to 15", "32 tokens", "128 tokens", "50.0%", "longer than 64"):
        assert fact in shown
    assert "traces/01234" in shown
    assert "tiny" in (after := done(stored(*arguments)).stdout)
    assert "AUDIT FOR" in after
    told = json.loads(done(stored(*arguments, "--audit", "tiny", "--json")).stdout)
    assert (told["max_length"], told["base_model"]) == (256, "tiny")


@pytest.mark.parametrize(
    ("model", "problem"),
    [("none", "base model 'none' is unknown; known: tiny, far"), ("far", "models pull far")],
)
def test_audit_needs_a_model_whose_tokenizer_is_known(stored: Run, model: str, problem: str) -> None:
    result = stored("dataset", "show", "d@1", "--audit", model)
    assert result.exit_code == 2
    assert problem in " ".join(result.stderr.replace("│", " ").split())


def test_eval_set_holds_the_held_out_rows(stored: Run, services: FakeLoopServices) -> None:
    assert len(services.eval_sets["evalSets/e"].items) == 3
    shown = done(stored("evalset", "show", "e", "--items", "2")).stdout
    assert "and 1 more (--items)" in shown


def test_eval_set_from_a_file_of_questions_and_answers(
    run: Run, services: FakeLoopServices, tmp_path: Path
) -> None:
    row = {"question": "How much is 2 + 3?", "answer": "2 + 3 = <<2+3=5>>5\n#### 5"}
    (tmp_path / "q.jsonl").write_text(json.dumps(row) + "\n")
    done(run("evalset", "import", "q", "q.jsonl", "--format", "gsm8k"))
    [item] = services.eval_sets["evalSets/q"].items
    assert (item.prompt, list(item.accepted_answers)) == (row["question"], ["5"])


def test_training_waits_and_says_what_comes_next(stored: Run, services: FakeLoopServices) -> None:
    result = done(
        stored("train", "start", "-d", "d", "-m", "tiny", "--rank", "4", "--lr", "0.01", "--max-steps", "2",
               "--schedule", "cosine", "--no-packing", "--target-module", "q_proj", "--dtype", "float32")
    )  # fmt: skip
    assert "training: 2/2 steps loss 0.5000" in result.stderr
    assert "tunix-rt evaluate --eval-set ID --checkpoint 0" in result.stdout
    spec = services.jobs["trainingJobs/0"].spec
    assert (spec.dataset, spec.lora.rank, spec.optimizer.learning_rate) == ("datasets/d@1", 4, 0.01)
    assert spec.optimizer.schedule == v1.LEARNING_RATE_SCHEDULE_COSINE
    assert (spec.packing, spec.dtype, list(spec.lora.target_modules)) == (False, v1.DTYPE_FLOAT32, ["q_proj"])
    assert not spec.lora.HasField("alpha")


def test_detached_training_is_not_waited_for(stored: Run, services: FakeLoopServices) -> None:
    result = done(stored("train", "start", "-d", "d", "-m", "tiny", "--detach", "--json"))
    assert json.loads(result.stdout)["state"] == "STATE_QUEUED"
    assert result.stderr == ""
    told = done(stored("train", "resume", "0", "--detach")).stderr
    assert "trainingJobs/0 goes on at the server; watch it with: tunix-rt train watch 0" in told
    watched = done(stored("train", "watch", "0"))
    assert "loading" in watched.stderr.splitlines()
    assert services.made["training"] == 1


def test_failed_training_is_an_error(stored: Run, services: FakeLoopServices) -> None:
    services.outcomes["training"] = ["FAILED", "FAILED"]
    result = stored("train", "start", "-d", "d", "-m", "tiny")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == "error: trainingJobs/0 failed: it broke"
    assert "training: failed after 2/2 steps" in result.stderr
    error = json.loads(stored("train", "start", "-d", "d", "-m", "tiny", "--json").stderr)
    assert (error["message"], error["metadata"]["name"]) == (
        "trainingJobs/1 failed: it broke",
        "trainingJobs/1",
    )


def test_every_setting_of_a_job_can_be_given(stored: Run, services: FakeLoopServices) -> None:
    done(
        stored("train", "start", "-d", "d", "-m", "tiny", "--method", "qlora", "--epochs", "2.5",
               "--tokens-per-batch", "2048", "--gradient-accumulation", "4", "--remat", "full", "--fsdp", "2",
               "--validation-interval", "5", "--checkpoint-interval", "10", "--keep-best",
               "--early-stopping", "2", "--min-delta", "0.01", "--beta2", "0.95")
    )  # fmt: skip
    spec = services.jobs["trainingJobs/0"].spec
    assert (spec.method, spec.remat) == (v1.TUNING_METHOD_QLORA, v1.REMAT_POLICY_FULL)
    assert (spec.epochs, spec.tokens_per_batch, spec.gradient_accumulation_steps) == (2.5, 2048, 4)
    assert not spec.HasField("max_steps") and not spec.HasField("rows_per_batch")
    assert (spec.validation_interval_steps, spec.checkpoint_interval_steps) == (5, 10)
    assert spec.keep_best_checkpoint
    assert spec.early_stopping == v1.EarlyStopping(patience=2, min_delta=0.01)
    assert (spec.mesh.fsdp, spec.optimizer.beta2) == (2, 0.95)
    lonely = stored("train", "start", "-d", "d", "-m", "tiny", "--min-delta", "0.1")
    assert (lonely.exit_code, "--min-delta needs --early-stopping" in lonely.stderr) == (2, True)


def test_a_dry_run_shows_the_plan_and_starts_nothing(stored: Run, services: FakeLoopServices) -> None:
    shown = done(stored("train", "start", "-d", "d", "-m", "tiny", "--epochs", "3", "--dry-run")).stdout
    for part in (
        "40 to train on",
        "1,000, of which 250 (25%) are learned",
        "16 an epoch, 90% filled",
        "6 (3 epochs of 2 steps)",
        "about 1.9 GiB: activations 1.2 GiB, process 667.6 MiB",
    ):
        assert part in shown
    as_json = done(stored("train", "start", "-d", "d", "-m", "tiny", "--dry-run", "--json"))
    assert json.loads(as_json.stdout)["steps_per_epoch"] == 2
    assert services.made["training"] == 0


def test_an_ended_job_is_resumed_and_waited_for(stored: Run, services: FakeLoopServices) -> None:
    services.outcomes["training"] = ["FAILED", "SUCCEEDED"]
    assert stored("train", "start", "-d", "d", "-m", "tiny").exit_code == 1
    resumed = done(stored("train", "resume", "0"))
    assert "training: 2/2 steps" in resumed.stderr
    assert services.made["training"] == 1


def test_a_checkpoint_is_exported_to_a_folder(
    stored: Run, services: FakeLoopServices, tmp_path: Path
) -> None:
    done(stored("train", "start", "-d", "d", "-m", "tiny"))
    result = done(stored("train", "export", "0", "--format", "peft", "-o", "out/tuned"))
    assert "2 files" in result.stderr
    name = "trainingJobs/0/checkpoints/2"
    assert sorted(path.name for path in (tmp_path / "out").rglob("*")) == ["config.json", "tuned", "weights"]
    assert (tmp_path / "out" / "tuned" / "weights").read_text() == f"weights of {name} as 1"
    again = stored("train", "export", "0", "-o", "out/tuned")
    assert (again.exit_code, "out/tuned is there already" in again.stderr) == (2, True)
    services.jobs["trainingJobs/0"].best_checkpoint = "trainingJobs/0/checkpoints/1"
    done(stored("train", "export", "0", "-o", "best"))
    assert (tmp_path / "best" / "weights").read_text() == "weights of trainingJobs/0/checkpoints/1 as 2"
    services.damaged_at = 3
    assert stored("train", "export", name, "-o", "broken").exit_code == 1
    assert not (tmp_path / "broken").exists()
    assert not list(tmp_path.glob(".broken*"))


def test_a_trace_is_followed_to_datasets_and_jobs(stored: Run, services: FakeLoopServices) -> None:
    done(stored("train", "start", "-d", "d", "-m", "tiny"))
    services.jobs["trainingJobs/0"].dataset_digest = "sha256:d"
    name = next(iter(services.traces))
    assert "in no dataset" in done(stored("traces", "show", name)).stdout
    services.uses = [
        v1.TraceUse(dataset="datasets/d@1", dataset_digest="sha256:d", split="train", row_number=7),
        v1.TraceUse(dataset="datasets/e@2", stage="near_duplicate", reason="like row 0123456789ab"),
    ]
    services.unreadable = ["datasets/f@1"]
    shown = done(stored("traces", "show", name))
    lines = [line.split() for line in shown.stdout.splitlines()]
    assert ["d@1", "train", "7", "-"] in lines
    assert ["e@2", "near_duplicate", "-", "like", "row", "0123456789ab"] in lines
    assert ["0", "succeeded", "d@1", "2"] in lines
    assert "f@1 may hold the trace" in shown.stderr
    document = json.loads(done(stored("traces", "show", name, "--json")).stdout)
    assert [use["dataset"] for use in document["datasets"]] == ["datasets/d@1", "datasets/e@2"]
    assert [(job["name"], job["state"]) for job in document["training_jobs"]] == [
        ("trainingJobs/0", "STATE_SUCCEEDED")
    ]
    # The dataset was made anew since, or the trace was held out: nobody learned from it.
    services.uses[0].dataset_digest = "sha256:other"
    assert "LEARNED BY" not in done(stored("traces", "show", name)).stdout
    assert json.loads(done(stored("traces", "show", name, "--json")).stdout)["training_jobs"] == []
    services.uses[0].dataset_digest, services.uses[0].split = "sha256:d", "test"
    assert "LEARNED BY" not in done(stored("traces", "show", name)).stdout


def test_a_checkpoint_is_exported_with_its_ledger(
    stored: Run, services: FakeLoopServices, tmp_path: Path
) -> None:
    done(stored("train", "start", "-d", "d", "-m", "tiny"))
    result = done(stored("train", "export", "0", "-o", "tuned", "--with-ledger", "--json"))
    written = {path.name: path.read_text() for path in (tmp_path / "tuned").iterdir()}
    assert sorted(written) == ["config.json", "ledger.jsonl", "manifest.json", "weights"]
    assert [file["path"] for file in json.loads(result.stdout)["files"]] == [
        "config.json",
        "weights",
        "ledger.jsonl",
        "manifest.json",
    ]
    # As they were saved: no format has them.
    assert written["ledger.jsonl"] == "ledger.jsonl of trainingJobs/0/checkpoints/2 as 0"
    assert written["weights"] == "weights of trainingJobs/0/checkpoints/2 as 2"
    services.records = []
    result = stored("train", "export", "0", "-o", "without", "--with-ledger")
    assert (result.exit_code, "--with-ledger" in result.stderr) == (2, True)
    assert "has no ledger.jsonl" in " ".join(result.stderr.replace("│", "").split())
    assert not list(tmp_path.glob("*without*"))


def interrupt(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


def test_interrupted_wait_says_that_the_job_goes_on(stored: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training.jobs, "wait_for_training_job", interrupt)
    result = stored("train", "start", "-d", "d", "-m", "tiny")
    assert result.exit_code == 130
    last = result.stderr.splitlines()[-1]
    assert (
        last == "interrupted: the training job keeps running on the server; look with: tunix-rt train watch 0"
    )
    error = json.loads(stored("train", "start", "-d", "d", "-m", "tiny", "--json").stderr)
    assert (error["reason"], error["exit_code"]) == ("INTERRUPTED", 130)
    assert error["metadata"]["name"] == "trainingJobs/1"


def test_evaluations_are_compared(stored: Run, services: FakeLoopServices, tmp_path: Path) -> None:
    done(stored("train", "start", "-d", "d", "-m", "tiny"))
    services.jobs["trainingJobs/0"].checkpoint = "trainingJobs/0/checkpoints/2"
    before = done(
        stored("evaluate", "-e", "e", "-m", "tiny", "--template", "chatml", "--max-new-tokens", "9")
    )
    assert "1 of 4 right, 25.0%" in before.stdout
    after = done(stored("evaluate", "-e", "e", "-c", "trainingJobs/0/checkpoints/2", "--json"))
    assert json.loads(after.stdout)["summary"]["overall"]["correct_count"] == 3
    spec = services.jobs["evaluations/0"].spec
    assert (spec.base_model, spec.chat_template.builtin, spec.decoding.max_new_tokens) == (
        "tiny",
        "chatml",
        9,
    )
    result = done(stored("compare", "0", "1", "-o", "report"))
    assert "Verdict: improved" in result.stdout
    assert "report written to report/report.html" in result.stderr
    written = sorted(path.name for path in (tmp_path / "report").iterdir())
    assert written == ["report.html", "report.json", "report.md"]
    assert (tmp_path / "report" / "report.md").read_text() == "report in REPORT_FORMAT_MARKDOWN"


def test_a_model_of_an_endpoint_is_evaluated(stored: Run, services: FakeLoopServices) -> None:
    result = done(stored("evaluate", "-e", "e", "--endpoint-model", "qwen3-8b"))
    assert "qwen3-8b" in result.stdout
    spec = services.jobs["evaluations/0"].spec
    assert (spec.endpoint_model, spec.dtype) == ("qwen3-8b", v1.DTYPE_UNSPECIFIED)
    assert stored("evaluate", "-e", "e", "--endpoint-model", "qwen3-8b", "-m", "tiny").exit_code == 2


def test_marks_of_reasoning_can_be_given(stored: Run, services: FakeLoopServices) -> None:
    given = '{"start": "<a>", "end": "</a>"}'
    done(stored("evaluate", "-e", "e", "-m", "tiny", "--reasoning-marks", given))
    assert services.jobs["evaluations/0"].spec.reasoning_marks == v1.ReasoningMarks(start="<a>", end="</a>")
    for wrong, said in (('{"stat": "<a>"}', "did you mean 'start'?"), ("{", "is no JSON")):
        refused = stored("evaluate", "-e", "e", "-m", "tiny", "--reasoning-marks", wrong)
        assert refused.exit_code == 2
        assert said in " ".join(refused.stderr.replace("│", " ").split())


def test_report_is_opened_in_a_browser(stored: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    for _ in range(2):
        done(stored("evaluate", "-e", "e", "-m", "tiny"))
    done(stored("compare", "0", "1", "-o", "report", "--open"))
    assert opened == [(tmp_path / "report" / "report.html").as_uri()]


def test_interrupted_evaluation_names_its_own_command(stored: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluations.jobs, "wait_for_evaluation", interrupt)
    result = stored("evaluate", "-e", "e", "-m", "tiny")
    assert result.exit_code == 130
    assert result.stderr.splitlines()[-1].endswith("look with: tunix-rt evaluation watch 0")


LOOP = """
name: small
traces: {generate: {count: 40, seed: 3}}
dataset: {id: small, splits: {train: 0.8, test: 0.2}, chat_template: model}
training: {base_model: tiny, max_steps: 2}
"""


def test_loop_runs_once_and_goes_on(run: Run, services: FakeLoopServices, tmp_path: Path) -> None:
    (tmp_path / "loop.yaml").write_text(LOOP)
    result = done(run("loop", "run", "loop.yaml", "--output-dir", "out"))
    assert "Verdict: improved" in result.stdout
    assert "candidate answers" in result.stdout
    assert "report: out/report.html" in result.stdout
    made = dict(services.made)
    again = done(run("loop", "run", "loop.yaml", "-o", "out", "--json"))
    assert dict(services.made) == made
    document = json.loads(again.stdout)
    assert document["checkpoint"]["digest"] == "sha256:weights"
    assert set(document["stage_seconds"]) >= {"dataset", "training", "comparison"}
    assert document["files"]["report.html"] == "out/report.html"
    assert again.stderr == ""


def test_interrupted_loop_says_how_to_go_on(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "loop.yaml").write_text(LOOP)
    monkeypatch.setattr("tunix_rt.cli.loops.run_loop", interrupt)
    result = run("loop", "run", "loop.yaml")
    assert result.exit_code == 130
    assert result.stderr.splitlines()[-1].endswith("the same command goes on from here")

"""A loop runs its stages in order, and repeats none that is done."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tunix_rt
from support.fake_loop import FakeLoopServices
from support.threaded import fake_server
from support.traces import trace
from tunix_rt import AsyncClient, Client, LoopConfig, LoopEvent, LoopResult, run_loop, v1
from tunix_rt.aio.loop import run_loop as aio_run_loop
from tunix_rt.errors import (
    AlreadyExistsError,
    FailedPreconditionError,
    InternalError,
    InvalidArgumentError,
    JobFailedError,
)
from tunix_rt.formats import trace_to_json
from tunix_rt.loop.result import TrainingProgress
from tunix_rt.rpc.batches import ImportStoppedError

EMPTY = Path(tunix_rt.__file__).with_name("py.typed")
ALL = ["import", "dataset", "eval_set", "evaluation_before", "training", "evaluation_after", "comparison"]


@pytest.fixture
def services() -> FakeLoopServices:
    return FakeLoopServices()


@pytest.fixture
def client(services: FakeLoopServices) -> Iterator[Client]:
    with fake_server(services.add) as address, Client(address) as client:
        yield client


def config(folder: Path, **changes: Any) -> LoopConfig:
    document: dict[str, Any] = {
        "name": "test",
        "traces": {"generate": {"count": 20, "seed": 3}},
        "dataset": {"id": "d", "chat_template": "chatml", "splits": {"train": 0.8, "test": 0.2}},
        "eval_set": {"limit": 4},
        "training": {"base_model": "tiny"},
        "output_dir": folder / "out",
    }
    return LoopConfig.model_validate(document | changes)


def run(config: LoopConfig, client: Client) -> tuple[LoopResult, dict[str, str]]:
    events: list[LoopEvent] = []
    result = run_loop(config, client, on_event=events.append)
    ends = {event.stage: event.kind for event in events if event.kind in ("finished", "skipped")}
    return result, {str(stage): kind for stage, kind in ends.items()}


def test_a_loop_runs_from_traces_to_report(
    client: Client, services: FakeLoopServices, tmp_path: Path
) -> None:
    events: list[LoopEvent] = []
    result = run_loop(config(tmp_path), client, on_event=events.append)
    assert [event.stage for event in events if event.kind == "started"] == ALL
    assert [event.stage for event in events if event.kind == "finished"] == ALL
    assert list(result.stage_seconds) == ALL
    assert dict(services.made) == {"dataset": 1, "eval_set": 1, "evaluation": 2, "training": 1}
    assert result.imported is not None
    assert result.imported.created == 20
    assert result.eval_set.item_count == 4
    assert result.evaluation_before.spec.base_model == "tiny"
    assert result.evaluation_before.spec.chat_template == result.dataset.spec.chat_template
    assert result.evaluation_after.spec.checkpoint == result.checkpoint.name
    assert result.evaluation_before.spec.eval_set == result.evaluation_after.spec.eval_set
    assert events[-1].message == "25.0% -> 75.0%, p = 0.04"


def labels(result: LoopResult) -> list[tuple[str, list[str], str]]:
    made = (
        result.dataset,
        result.eval_set,
        result.evaluation_before,
        result.training_job,
        result.evaluation_after,
        result.report,
    )
    return [(entry.display_name, list(entry.tags), entry.note) for entry in made]


def test_what_a_loop_makes_bears_its_name_tags_and_note(
    client: Client, services: FakeLoopServices, tmp_path: Path
) -> None:
    result, _ = run(config(tmp_path, name="two\nlines", tags=["a"], note="n"), client)
    names = ["", "", "two lines: before training", "two lines", "two lines: after training", "two lines"]
    assert labels(result) == [(name, ["a"], "n") for name in names]
    made = dict(services.made)
    client.trainer.update_training_job(
        v1.TrainingJob(name=result.training_job.name, display_name="best", note="kept"),
        update_mask=["display_name", "note"],
    )
    # Run again with other labels, it repeats nothing: new tags are added, and what people wrote stays.
    again, ends = run(config(tmp_path, name="two\nlines", tags=["b"], note="other"), client)
    names[3] = "best"
    assert labels(again) == [(name, ["a", "b"], "kept" if name == "best" else "n") for name in names]
    assert dict(services.made) == made
    assert {ends[stage] for stage in ALL[:-1]} == {"skipped"}


def test_training_reports_its_steps(client: Client, tmp_path: Path) -> None:
    events: list[LoopEvent] = []
    run_loop(config(tmp_path), client, on_event=events.append)
    steps = [event for event in events if event.metrics is not None]
    assert [(step.completed, step.total, step.unit, step.eta_seconds) for step in steps] == [
        (1, 2, "steps", 2.5),
        (2, 2, "steps", 2.5),
    ]
    assert steps[0].resource == "trainingJobs/0"
    assert any(event.message == "loading" for event in events)


def test_the_documents_are_written(client: Client, tmp_path: Path) -> None:
    result = run_loop(config(tmp_path), client)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "loop-state.json",
        "loop.json",
        "report.html",
        "report.json",
        "report.md",
    ]
    assert result.files["report.html"].read_bytes() == b"report in REPORT_FORMAT_HTML"
    summary = json.loads(result.files["loop.json"].read_bytes())
    assert summary == result.summary()
    assert summary["dataset"]["digest"] == result.dataset.digest
    assert summary["comparison"]["verdict"] == "VERDICT_IMPROVED"
    assert summary["training_job"]["losses_digest"].startswith("sha256:")


def test_a_loop_that_is_done_repeats_nothing(
    client: Client, services: FakeLoopServices, tmp_path: Path
) -> None:
    first, _ = run(config(tmp_path), client)
    made, batches = dict(services.made), services.batches
    again, ends = run(config(tmp_path), client)
    assert (dict(services.made), services.batches) == (made, batches)
    assert ends == dict.fromkeys(ALL, "skipped") | {"comparison": "finished"}
    assert again.to_json() == first.to_json()


@pytest.mark.parametrize("stage", ["dataset", "evaluation", "training"])
def test_a_loop_that_was_cut_off_goes_on_where_it_stopped(
    client: Client, services: FakeLoopServices, tmp_path: Path, stage: str
) -> None:
    services.breaks_before = stage
    with pytest.raises(InternalError, match="on fire"):
        run_loop(config(tmp_path), client)
    done = dict(services.made)
    services.breaks_before = ""
    _, ends = run(config(tmp_path), client)
    assert dict(services.made) == {"dataset": 1, "eval_set": 1, "evaluation": 2, "training": 1}
    assert services.batches == 1
    assert ends["import"] == "skipped"
    assert ends["dataset"] == ("skipped" if done.get("dataset") else "finished")


def test_a_loop_goes_on_without_its_output_folder(
    client: Client, services: FakeLoopServices, tmp_path: Path
) -> None:
    first, _ = run(config(tmp_path), client)
    made = dict(services.made)
    again, ends = run(config(tmp_path / "elsewhere"), client)
    assert dict(services.made) == made
    assert ends["training"] == "skipped"
    assert again.summary() == first.summary()


def test_traces_that_are_gone_from_the_store_are_sent_again(
    client: Client, services: FakeLoopServices, tmp_path: Path
) -> None:
    run(config(tmp_path), client)
    services.traces.clear()
    services.by_request.clear()
    _, ends = run(config(tmp_path), client)
    assert ends["import"] == "finished"
    assert len(services.traces) == 20


@pytest.mark.parametrize(
    ("kind", "outcome"), [("training", "FAILED"), ("evaluation", "CANCELLED"), ("dataset", "FAILED")]
)
def test_a_job_that_went_wrong_is_tried_anew_by_the_next_run(
    client: Client, services: FakeLoopServices, tmp_path: Path, kind: str, outcome: str
) -> None:
    services.outcomes[kind] = [outcome, outcome, "SUCCEEDED", "SUCCEEDED", "SUCCEEDED"]
    for _ in range(2):
        with pytest.raises(JobFailedError):
            run_loop(config(tmp_path), client)
    result, _ = run(config(tmp_path), client)
    assert result.report.name == "comparisonReports/r"
    assert services.made[kind] == {"training": 3, "evaluation": 4, "dataset": 3}[kind]
    run(config(tmp_path), client)
    assert services.made[kind] == {"training": 3, "evaluation": 4, "dataset": 3}[kind]


def test_another_setting_repeats_only_what_it_changes(
    client: Client, services: FakeLoopServices, tmp_path: Path
) -> None:
    run(config(tmp_path), client)
    _, ends = run(config(tmp_path, evaluation={"max_new_tokens": 7}), client)
    assert (services.made["training"], services.made["evaluation"]) == (1, 4)
    assert ends["training"] == "skipped"
    run(config(tmp_path, training={"base_model": "tiny", "max_steps": 9}), client)
    assert (services.made["dataset"], services.made["training"], services.made["evaluation"]) == (1, 2, 5)


def test_another_name_starts_afresh(client: Client, services: FakeLoopServices, tmp_path: Path) -> None:
    run(config(tmp_path), client)
    run(config(tmp_path, name="other"), client)
    assert (services.made["training"], services.made["evaluation"]) == (2, 4)


def test_traces_come_from_a_file_or_from_the_store_as_it_is(
    client: Client, services: FakeLoopServices, tmp_path: Path
) -> None:
    file = tmp_path / "t.jsonl"
    file.write_text("\n".join(trace_to_json(trace(i)) for i in range(10)))
    result, _ = run(config(tmp_path, traces={"file": file}), client)
    assert result.imported is not None
    assert (result.imported.read, len(services.traces)) == (10, 10)
    result, ends = run(config(tmp_path, name="none", traces=None), client)
    assert (result.imported, ends["import"]) == (None, "skipped")


def test_what_is_redacted_is_not_sent_and_asks_for_another_import(
    client: Client, services: FakeLoopServices, tmp_path: Path
) -> None:
    file, told = tmp_path / "t.jsonl", list[LoopEvent]()
    made = trace(1)
    made.final_answer = "Ask ann@example.com at 10.1.2.3"
    file.write_text(trace_to_json(made))
    hidden = {"file": file, "redact": True, "redact_skip": ["ip_address"]}
    run_loop(config(tmp_path, traces=hidden), client, on_event=told.append)
    assert [sent.final_answer for sent in services.traces.values()] == ["Ask <EMAIL_1> at 10.1.2.3"]
    assert "1 trace: 1 stored, 0 there already; redacted: 1 EMAIL" in [event.message for event in told]
    _, ends = run(config(tmp_path, traces=hidden), client)
    assert ends["import"] == "skipped"
    _, ends = run(config(tmp_path, traces={"file": file}), client)
    assert ends["import"] == "finished"
    file.write_text('{"messages": [{"role": "ann@example.com", "content": ""}]}')
    with pytest.raises(ImportStoppedError, match="EMAIL_1") as refused:
        run_loop(config(tmp_path, traces=hidden), client)
    causes = [refused.value, refused.value.__cause__, refused.value.__context__]
    assert "ann@" not in "".join(map(str, causes))


def test_other_traces_in_the_file_ask_for_another_dataset_version(
    client: Client, services: FakeLoopServices, tmp_path: Path
) -> None:
    file = tmp_path / "t.jsonl"
    file.write_text("\n".join(trace_to_json(trace(i)) for i in range(10)))
    run(config(tmp_path, traces={"file": file}), client)
    file.write_text("\n".join(trace_to_json(trace(i)) for i in range(12)))
    with pytest.raises(AlreadyExistsError, match="datasets/d@1 is bound"):
        run(config(tmp_path, traces={"file": file}), client)
    dataset = {"id": "d", "version": "2", "chat_template": "chatml", "splits": {"train": 0.8, "test": 0.2}}
    run(config(tmp_path, traces={"file": file}, dataset=dataset), client)
    assert (services.made["dataset"], services.made["training"], len(services.traces)) == (2, 2, 12)


def test_questions_of_their_own_are_kept_out_of_the_dataset(client: Client, tmp_path: Path) -> None:
    events: list[LoopEvent] = []
    result = run_loop(config(tmp_path, eval_set={"builtin": "eval_v1"}), client, on_event=events.append)
    assert [event.stage for event in events if event.kind == "started"][:3] == [
        "import",
        "eval_set",
        "dataset",
    ]
    assert result.eval_set.name == "evalSets/eval_v1"
    assert list(result.dataset.spec.eval_sets) == ["evalSets/eval_v1"]
    assert result.eval_set.item_count == 25


def test_generated_questions_come_behind_the_traces_and_are_kept_out_of_the_dataset(
    client: Client, services: FakeLoopServices, tmp_path: Path
) -> None:
    asked = {"generate": {"count": 5, "seed": 3, "start": 20}}
    result, _ = run(config(tmp_path, eval_set=asked), client)
    learned = {trace.prompt for trace in services.traces.values()}
    items = services.eval_sets[result.eval_set.name].items
    assert [item.id.rpartition("-")[2] for item in items] == ["20", "21", "22", "23", "24"]
    assert learned.isdisjoint(item.prompt for item in items)
    assert list(result.dataset.spec.eval_sets) == [result.eval_set.name]
    assert result.eval_set.name.startswith("evalSets/d-generated-")
    with pytest.raises(
        InvalidArgumentError, match=r"eval_set\.generate: families has 'poetry'; the known ones"
    ):
        run(config(tmp_path, eval_set={"generate": {"count": 5, "families": ["poetry"]}}), client)
    with pytest.raises(
        InvalidArgumentError, match=r"traces\.generate: count is 1000000000 from start 0; these"
    ):
        few = {"generate": {"count": 10**9, "seed": 3, "families": ["ages"]}}
        run(config(tmp_path, traces=few), client)


def test_an_id_that_is_bound_to_other_questions_is_refused(client: Client, tmp_path: Path) -> None:
    run(config(tmp_path, eval_set={"id": "mine", "limit": 2}), client)
    with pytest.raises(AlreadyExistsError, match="evalSets/mine is bound"):
        run(config(tmp_path, eval_set={"id": "mine", "limit": 3}), client)


def test_the_models_own_chat_template_is_taken_from_the_trainer(
    client: Client, services: FakeLoopServices, tmp_path: Path
) -> None:
    dataset = {
        "id": "d",
        "system_instruction": "Think.",
        "splits": {"train": 0.8, "test": 0.2},
    }
    result, _ = run(config(tmp_path, dataset=dataset), client)
    assert result.dataset.spec.chat_template == v1.ChatTemplate(
        jinja="{{ x }}", eos_token="</s>", system_instruction="Think."
    )
    assert result.dataset.spec.special_tokens == ["</s>", "<pad>"]
    named, _ = run(config(tmp_path, dataset=dataset | {"chat_template": "chatml", "version": "2"}), client)
    assert not named.dataset.spec.special_tokens
    services.template_known = False
    with pytest.raises(FailedPreconditionError, match="'tiny': it has none of its own; name gemma-it"):
        run(config(tmp_path, dataset=dataset), client)
    far = {"base_model": "far"}
    with pytest.raises(FailedPreconditionError, match="tunix-rt models pull far"):
        run(config(tmp_path, dataset=dataset, training=far), client)


def test_a_loop_that_cannot_write_its_results_does_not_begin(
    client: Client, services: FakeLoopServices, tmp_path: Path
) -> None:
    (tmp_path / "out").write_text("a file, not a folder")
    with pytest.raises(FailedPreconditionError, match=r"output_dir .*out: cannot be written"):
        run_loop(config(tmp_path), client)
    assert not services.made
    assert not services.batches


@pytest.mark.parametrize(
    ("traces", "said"),
    [
        ({"file": "/nope.jsonl"}, "traces.file /nope.jsonl: cannot be read: No such file"),
        ({"generate": {"count": 5, "families": ["poetry"]}}, "traces.generate: .*poetry"),
        ({"file": "/dev/null"}, "traces.file /dev/null: cannot be read: is a pipe or a device"),
        ({"file": str(EMPTY)}, f"{EMPTY} holds no traces"),
    ],
)
def test_traces_that_cannot_be_had_are_named(
    client: Client, services: FakeLoopServices, tmp_path: Path, traces: Any, said: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=said):
        run_loop(config(tmp_path, traces=traces), client)
    assert not services.made


@pytest.mark.parametrize(
    ("traces", "said"),
    [
        ({"file": "t", "redact": True, "redact_skip": ["name"]}, "'NAME' is no kind; expected one of"),
        ({"file": "t", "redact_skip": ["EMAIL"]}, "redact_skip goes with redact: true"),
        ({"generate": {"count": 5}, "redact": True}, "redact goes with file"),
    ],
)
def test_redaction_that_is_asked_for_wrongly_is_refused(tmp_path: Path, traces: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        config(tmp_path, traces=traces)


def test_progress_never_steps_back() -> None:
    told: list[int] = []
    progress = TrainingProgress(lambda _, **facts: told.append(facts["completed"]))
    state = v1.TrainingJob(progress=v1.Progress(stage="training", completed=1, total=3, unit="steps"))
    progress(v1.WatchTrainingJobResponse(training_job=state))
    for step in (1, 2):
        progress(v1.WatchTrainingJobResponse(metrics=v1.TrainingMetrics(step=step)))
    progress(v1.WatchTrainingJobResponse(training_job=state))
    assert told == [1, 1, 2]


async def test_a_loop_runs_in_asyncio_and_a_second_run_repeats_nothing(
    services: FakeLoopServices, tmp_path: Path
) -> None:
    with fake_server(services.add) as address:
        async with AsyncClient(address) as client:
            events: list[LoopEvent] = []
            first = await aio_run_loop(config(tmp_path), client, on_event=events.append)
            again = await aio_run_loop(config(tmp_path), client)
        with Client(address) as client:
            synchronous = run_loop(config(tmp_path), client)
    assert [event.stage for event in events if event.kind == "finished"] == ALL
    assert dict(services.made) == {"dataset": 1, "eval_set": 1, "evaluation": 2, "training": 1}
    assert first.report == again.report == synchronous.report
    assert first.files.keys() == synchronous.files.keys()


def test_a_loop_grades_by_a_file_and_another_file_is_another_eval_set(client: Client, tmp_path: Path) -> None:
    grader = tmp_path / "own.py"
    wanted = config(tmp_path, eval_set={"limit": 4, "grader_file": f"{grader}:score"})
    names = []
    for source in (
        "def score(output, item):\n    return True\n",
        "def score(output, item):\n    return False\n",
    ):
        grader.write_text(source)
        result, ends = run(wanted, client)
        assert ends["eval_set"] == "finished"
        stored = client.evaluator.get_eval_set(result.eval_set.name)
        assert list(stored.python_sources) == [source]
        assert {item.grader.python.function for item in stored.items} == {"score"}
        names.append(stored.name)
    assert len(set(names)) == 2


def test_names_in_the_file_are_looked_up(client: Client, services: FakeLoopServices, tmp_path: Path) -> None:
    base = v1.Dataset(name="datasets/base@1")
    services.jobs[base.name] = base
    dataset = {"id": "d", "chat_template": "chatml", "splits": {"train": 0.8, "test": 0.2}}
    named = dataset | {"parent": "base", "eval_sets": ["exam", "evalSets/other"]}
    result, _ = run(config(tmp_path, dataset=named), client)
    assert result.dataset.spec.parent == base.name
    assert list(result.dataset.spec.eval_sets) == ["evalSets/exam", "evalSets/other"]

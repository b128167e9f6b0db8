"""The whole worker as a child process: what it reports, and that a killed run ends in the same bytes."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tunix_rt_evaluator.events import AttemptFacts
from tunix_rt_evaluator.model import (
    ChatTemplateFields,
    Decoding,
    Generation,
    WorkerItem,
    WorkerSpec,
)
from tunix_rt_evaluator.worker.job import evaluate
from tunix_rt_kit.artifacts import canonical_json
from tunix_rt_kit.errors import FailedPrecondition, NotFound
from tunix_rt_kit.jobs import JobDir, WorkerProcess
from tunix_rt_kit.models.runtime import child_environment

TIMEOUT_S = 240.0
STAGES = ["loading the model", "compiling", "generating"]


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("jax")


def worker_spec(models_dir: Path, **changes: Any) -> WorkerSpec:
    items = [WorkerItem(id=f"q{number}", prompt="Count. " * (number % 9)) for number in range(20)]
    spec = WorkerSpec(
        evaluation="evaluations/e",
        attempt=1,
        base_model="tiny",
        models_dir=str(models_dir),
        checkpoint_dir=None,
        base_weights_digest=None,
        chat_template=ChatTemplateFields(builtin="chatml"),
        decoding=Decoding(max_new_tokens=24, batch_size=4),
        dtype="bfloat16",
        items=(*items, WorkerItem(id="long", prompt="x" * 300)),
        code_revision="test",
    )
    return spec.model_copy(update=changes)


def start(folder: Path, spec: WorkerSpec, cache_dir: Path) -> WorkerProcess:
    process = WorkerProcess("tunix_rt_evaluator.worker", folder, env=child_environment(cache_dir))
    process.start(spec.model_dump(mode="json"))
    return process


def answers(process: WorkerProcess) -> dict[str, Generation]:
    """Generations by item without their times; an item that was written twice is an error."""
    found: dict[str, Generation] = {}
    for event in process.events():
        if event["kind"] == "item":
            result = Generation.model_validate(event["generation"]).model_copy(update={"seconds": 0.0})
            assert result.item_id not in found
            found[result.item_id] = result
    return found


def test_a_killed_run_goes_on_and_ends_as_one_that_was_not(
    models_dir: Path, cache_dir: Path, tmp_path: Path
) -> None:
    spec = worker_spec(models_dir)
    whole = start(tmp_path / "whole", spec, cache_dir)
    assert whole.wait(TIMEOUT_S) == 0, whole.log_tail()
    expected = answers(whole)
    assert len(expected) == len(spec.items)
    assert expected["long"].finish_reason == "failed"
    assert all(result.prompt_token_digest for result in expected.values())

    killed = start(tmp_path / "killed", spec, cache_dir)
    deadline = time.monotonic() + TIMEOUT_S
    while not answers(killed) and time.monotonic() < deadline:
        time.sleep(0.005)
    killed.kill()
    # Cut inside the last batch, and inside a line, as a kill can.
    events = tmp_path / "killed" / "events.jsonl"
    lines = [line for line in events.read_bytes().splitlines() if b'"item"' in line]
    assert 0 < len(lines) <= len(spec.items)
    events.write_bytes(b"\n".join(lines[:6]) + b"\n" + lines[-1][:40])
    assert killed.wait(1.0) is not None
    again = start(tmp_path / "killed", spec.model_copy(update={"attempt": 2}), cache_dir)
    assert again.wait(TIMEOUT_S) == 0, again.log_tail()
    assert answers(again) == expected
    facts = AttemptFacts(2)
    facts.take(again.events())
    assert facts.progress is not None
    assert (facts.progress.stage, facts.progress.completed) == ("generating", len(spec.items))
    assert len(facts.new_generations) == len(spec.items)
    assert [timing.stage for timing in facts.stage_timings] == STAGES
    assert facts.exit_code == 0


def test_a_run_reports_its_stages_and_what_it_ran(models_dir: Path, tmp_path: Path) -> None:
    spec = worker_spec(models_dir, chat_template=None)
    job = make_job(tmp_path, spec)
    evaluate(job)
    told = AttemptFacts(1)
    told.take([json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()])
    # The last stage ends with the process, which this is not.
    assert [timing.stage for timing in told.stage_timings] == STAGES[:-1]
    assert told.progress is not None
    assert told.progress.eta_s == 0
    facts = told.facts
    assert facts is not None
    assert facts.engine.startswith("tunix/")
    assert facts.chat_template.jinja is not None
    assert facts.base_weights_digest.startswith("sha256:")
    assert facts.code_revision == "test"


def test_other_weights_than_the_checkpoint_was_trained_on_are_refused(
    models_dir: Path, tmp_path: Path
) -> None:
    job = make_job(tmp_path, worker_spec(models_dir, base_weights_digest="sha256:" + "0" * 64))
    with pytest.raises(FailedPrecondition) as caught:
        evaluate(job)
    assert caught.value.reason == "BASE_MODEL_MISMATCH"


def test_an_unknown_base_model_is_named(models_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFound) as caught:
        evaluate(make_job(tmp_path, worker_spec(models_dir, base_model="nobody")))
    assert "nobody" in caught.value.message


def make_job(folder: Path, spec: WorkerSpec) -> JobDir:
    (folder / "spec.json").write_bytes(canonical_json(spec.model_dump(mode="json")))
    return JobDir(folder)

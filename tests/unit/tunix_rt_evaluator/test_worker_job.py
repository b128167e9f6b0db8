"""The whole worker as a child process: what it reports, and that a killed run ends in the same bytes."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from tunix_rt_evaluator.events import AttemptFacts
from tunix_rt_evaluator.model import (
    ChatTemplateFields,
    Decoding,
    Generation,
    WorkerItem,
    WorkerSpec,
)
from tunix_rt_evaluator.worker import weights
from tunix_rt_evaluator.worker.job import Evaluations
from tunix_rt_kit.artifacts import canonical_json
from tunix_rt_kit.errors import FailedPrecondition, NotFound
from tunix_rt_kit.jobs import JobDir, WorkerProcess
from tunix_rt_kit.models.loader import load_model, make_mesh
from tunix_rt_kit.models.lora import apply_lora, save_adapter
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
    Evaluations().evaluate(job)
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


def generations(folder: Path) -> list[Generation]:
    lines = (folder / "events.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    found = [Generation.model_validate(event["generation"]) for event in events if event["kind"] == "item"]
    return sorted(found, key=lambda generation: generation.item_id)


def timeless(found: list[Generation]) -> list[Generation]:
    return [
        generation.model_copy(update={"seconds": 0.0, "cached": False, "kept_tokens": 0})
        for generation in found
    ]


def run(folder: Path, spec: WorkerSpec, evaluations: Evaluations) -> list[Generation]:
    folder.mkdir()
    evaluations.evaluate(make_job(folder, spec))
    return generations(folder)


def test_kept_answers_are_those_that_were_made_and_need_no_model(models_dir: Path, tmp_path: Path) -> None:
    spec = worker_spec(models_dir, responses=str(tmp_path / "cache" / "responses.db"))
    evaluations = Evaluations()
    made = run(tmp_path / "made", spec, evaluations)
    again = run(tmp_path / "again", spec.model_copy(update={"evaluation": "evaluations/f"}), evaluations)
    assert not any(generation.cached for generation in made)
    assert all(generation.cached for generation in again if generation.finish_reason != "failed")
    assert timeless(again) == timeless(made)
    stages = [json.loads(line) for line in (tmp_path / "again" / "events.jsonl").read_text().splitlines()]
    assert [event["stage"] for event in stages if event["kind"] == "stage"] == ["generating"]
    fresh = run(tmp_path / "fresh", spec.model_copy(update={"responses": None}), evaluations)
    assert not any(generation.cached for generation in fresh)
    assert timeless(fresh) == timeless(made)


def test_one_process_puts_adapters_onto_a_base_that_stays_loaded(
    models_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads = []
    load = weights.load_model
    monkeypatch.setattr(weights, "load_model", lambda *args, **kw: loads.append(args) or load(*args, **kw))
    plain = worker_spec(models_dir)
    one, two = (adapter(models_dir / "tiny", tmp_path / name, seed) for name, seed in (("a", 1), ("b", 2)))
    evaluations = Evaluations()
    base = run(tmp_path / "base", plain, evaluations)
    tuned = [
        run(
            tmp_path / f"tuned-{number}",
            plain.model_copy(update={"checkpoint_dir": str(folder)}),
            evaluations,
        )
        for number, folder in enumerate((one, two, one))
    ]
    back = run(tmp_path / "back", plain, evaluations)
    assert len(loads) == 1
    assert timeless(tuned[0]) == timeless(tuned[2])
    assert timeless(back) == timeless(base)
    texts = [[generation.output for generation in found] for found in (base, *tuned[:2])]
    assert texts[0] != texts[1] != texts[2] != texts[0]
    alone = run(tmp_path / "alone", plain.model_copy(update={"checkpoint_dir": str(two)}), Evaluations())
    assert timeless(alone) == timeless(tuned[1])


def test_several_samples_of_each_item_are_one_result(models_dir: Path, tmp_path: Path) -> None:
    decoding = Decoding(max_new_tokens=12, batch_size=4, temperature=1.0, samples=3, log_probabilities=True)
    found = run(tmp_path / "job", worker_spec(models_dir, decoding=decoding), Evaluations())
    whole = [generation for generation in found if generation.finish_reason != "failed"]
    assert len(whole) == 20
    for generation in whole:
        assert len(generation.answers) == 3
        assert len({answer.output for answer in generation.answers}) == 3
        assert all(len(answer.log_probabilities) == answer.output_tokens for answer in generation.answers)


def adapter(base: Path, folder: Path, seed: int) -> Path:
    tuned = apply_lora(load_model(base, dtype="float32", mesh=make_mesh()), rank=4, alpha=8.0, seed=seed)
    random = np.random.default_rng(seed)
    for layer in tuned.layers:
        b = layer.mlp.down_proj.kernel_lora_b
        b[...] = jnp.asarray(random.normal(size=b.shape, scale=0.3), jnp.float32)
    save_adapter(tuned, folder, alpha=8.0, base_model="tiny")
    return folder


def test_other_weights_than_the_checkpoint_was_trained_on_are_refused(
    models_dir: Path, tmp_path: Path
) -> None:
    job = make_job(tmp_path, worker_spec(models_dir, base_weights_digest="sha256:" + "0" * 64))
    with pytest.raises(FailedPrecondition) as caught:
        Evaluations().evaluate(job)
    assert caught.value.reason == "BASE_MODEL_MISMATCH"


def test_an_unknown_base_model_is_named(models_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFound) as caught:
        Evaluations().evaluate(make_job(tmp_path, worker_spec(models_dir, base_model="nobody")))
    assert "nobody" in caught.value.message


def make_job(folder: Path, spec: WorkerSpec) -> JobDir:
    (folder / "spec.json").write_bytes(canonical_json(spec.model_dump(mode="json")))
    return JobDir(folder)

"""The whole worker as a child process: what it reports, and that a killed run ends in the same bytes."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from tunix_rt_evaluator.evaluations.job_folders import WorkerItem, WorkerSpec
from tunix_rt_evaluator.evaluations.jobs import EvaluationFacts
from tunix_rt_evaluator.evaluations.model import Decoding, Generation
from tunix_rt_evaluator.worker import local
from tunix_rt_evaluator.worker.job import Evaluations
from tunix_rt_kit.canonical import canonical_json
from tunix_rt_kit.errors import FailedPrecondition, NotFound
from tunix_rt_kit.jobs.child import JobCancelled, JobDir
from tunix_rt_kit.jobs.process import WorkerProcess
from tunix_rt_kit.models.lora import apply_lora, save_adapter
from tunix_rt_kit.models.pretrained import load_model, make_mesh
from tunix_rt_kit.models.runtime import child_environment
from tunix_rt_kit.values import ChatTemplateFields

TIMEOUT_S = 240.0
STAGES = ["loading the model", "compiling", "generating"]


@pytest.fixture(scope="module")
def evaluations() -> Evaluations:
    """What a process does evaluations with: it holds a model, and what was compiled for it."""
    return Evaluations()


@pytest.fixture(scope="module")
def others() -> Evaluations:
    """What another process does them with, which knows nothing of the jobs of the first."""
    return Evaluations()


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


@pytest.mark.slow
def test_a_killed_run_goes_on_and_ends_as_one_that_was_not(
    models_dir: Path, cache_dir: Path, tmp_path: Path, evaluations: Evaluations
) -> None:
    spec = worker_spec(models_dir)
    whole = run(tmp_path / "whole", spec, evaluations)
    expected = {result.item_id: result.model_copy(update={"seconds": 0.0}) for result in whole}
    assert len(expected) == len(whole)
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
    cut_after(events, 6)
    events.write_bytes(events.read_bytes() + b'{"generation":{"cached":false,"error')
    assert killed.wait(1.0) is not None
    again = start(tmp_path / "killed", spec.model_copy(update={"attempt": 2}), cache_dir)
    assert again.wait(TIMEOUT_S) == 0, again.log_tail()
    assert answers(again) == expected
    facts = EvaluationFacts(2)
    facts.take(again.events())
    assert not facts.changed
    assert facts.progress is not None
    assert (facts.progress.stage, facts.progress.completed) == ("generating", len(spec.items))
    assert len(facts.new_generations) == len(spec.items)
    assert [timing.stage for timing in facts.stage_timings] == STAGES
    assert facts.exit_code == 0


def cut_after(events: Path, items: int) -> None:
    """Let events end with the item of that number, or their last one."""
    left = items
    kept = []
    for line in events.read_bytes().splitlines(keepends=True):
        if left and line.endswith(b"\n"):
            kept.append(line)
            left -= b'"kind":"item"' in line
    assert left < items
    events.write_bytes(b"".join(kept))


def told(folder: Path, attempt: int) -> EvaluationFacts:
    facts = EvaluationFacts(attempt)
    facts.take([json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()])
    return facts


@pytest.mark.parametrize("differing", ["engine", "stops", "unknown", "older"])
def test_what_another_engine_answered_before_is_answered_anew(
    models_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    evaluations: Evaluations,
    others: Evaluations,
    differing: str,
) -> None:
    spec = worker_spec(models_dir)
    run(tmp_path / "job", spec, evaluations)
    events = tmp_path / "job" / "events.jsonl"
    cut_after(events, 6)
    if differing == "engine":
        monkeypatch.setattr(local, "engine_name", lambda: "tunix/other")
    elif differing == "stops":
        monkeypatch.setattr(local, "stop_ids", lambda *_: (1,))
    elif differing == "older":
        # A version that told of facts alone.
        events.write_bytes(events.read_bytes().replace(b'"identity":', b'"ignored":'))
    else:
        lines = [line for line in events.read_bytes().splitlines(keepends=True) if b'"facts"' not in line]
        events.write_bytes(b"".join(lines))
    again = make_job(tmp_path / "job", spec.model_copy(update={"attempt": 2}))
    others.evaluate(again)
    facts = told(tmp_path / "job", 2)
    (change,) = facts.changed
    assert change.startswith("engine: " if differing in ("unknown", "older") else f"{differing}: ")
    assert change.endswith(" before, tunix/other now") == (differing == "engine")
    assert facts.stage_timings[0].stage == f"starting over: another {change.partition(':')[0]}"
    # Each item once: what came before the change counts no more.
    ids = [generation.item_id for generation in facts.new_generations]
    assert sorted(ids) == sorted(item.id for item in spec.items)
    # The engine of the second attempt goes on with what it wrote.
    size = len(generations(tmp_path / "job"))
    evaluations.evaluate(make_job(tmp_path / "job", spec.model_copy(update={"attempt": 3})))
    assert len(generations(tmp_path / "job")) == size
    assert told(tmp_path / "job", 3).stage_timings == ()


def test_another_revision_of_this_code_goes_on(
    models_dir: Path, tmp_path: Path, evaluations: Evaluations, others: Evaluations
) -> None:
    spec = worker_spec(models_dir)
    made = run(tmp_path / "job", spec, evaluations)
    cut_after(tmp_path / "job" / "events.jsonl", 6)
    again = spec.model_copy(update={"attempt": 2, "code_revision": "newer"})
    others.evaluate(make_job(tmp_path / "job", again))
    assert not told(tmp_path / "job", 2).changed
    assert timeless(generations(tmp_path / "job")) == timeless(made)


def test_a_run_reports_its_stages_and_what_it_ran(
    models_dir: Path, tmp_path: Path, evaluations: Evaluations
) -> None:
    spec = worker_spec(models_dir, chat_template=None)
    job = make_job(tmp_path, spec)
    evaluations.evaluate(job)
    attempt = told(tmp_path, 1)
    # The last stage ends with the process, which this is not.
    assert [timing.stage for timing in attempt.stage_timings] == STAGES[:-1]
    assert attempt.progress is not None
    assert attempt.progress.eta_s == 0
    facts = attempt.facts
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


def test_kept_answers_are_those_that_were_made_and_need_no_model(
    models_dir: Path, tmp_path: Path, evaluations: Evaluations
) -> None:
    spec = worker_spec(models_dir, responses=str(tmp_path / "cache" / "responses.db"))
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


class StoppedBy(JobDir):
    """A job that is told to stop when it has written an event of a kind."""

    def __init__(self, folder: Path, spec: WorkerSpec, kind: str) -> None:
        folder.mkdir()
        super().__init__(make_job(folder, spec).path)
        self._kind = kind

    def emit(self, kind: str, **fields: Any) -> None:
        super().emit(kind, **fields)
        if kind == self._kind:
            self.end_soon()


def test_a_run_that_is_told_to_stop_writes_and_keeps_what_had_ended(
    models_dir: Path, tmp_path: Path, evaluations: Evaluations
) -> None:
    # All rows end their answers in the same step, and the first of them is written before the others.
    spec = worker_spec(
        models_dir, decoding=Decoding(max_new_tokens=1), responses=str(tmp_path / "responses.db")
    )
    spec = spec.model_copy(update={"items": spec.items[:-1]})
    with pytest.raises(JobCancelled):
        evaluations.evaluate(StoppedBy(tmp_path / "stopped", spec, "item"))
    found = generations(tmp_path / "stopped")
    assert 1 < len(found) < len(spec.items)
    next_run = run(tmp_path / "next", spec, evaluations)
    assert len([generation for generation in next_run if generation.cached]) >= len(found)


def test_looking_up_many_answers_is_told_of_and_can_be_stopped(
    models_dir: Path, tmp_path: Path, evaluations: Evaluations
) -> None:
    spec = worker_spec(
        models_dir,
        decoding=Decoding(max_new_tokens=1, temperature=1.0, samples=64),
        responses=str(tmp_path / "responses.db"),
    )
    spec = spec.model_copy(update={"items": spec.items[:9]})
    run(tmp_path / "made", spec, evaluations)
    run(tmp_path / "kept", spec, evaluations)
    assert [timing.stage for timing in told(tmp_path / "kept", 1).stage_timings] == [
        "looking up kept answers"
    ]
    with pytest.raises(JobCancelled):
        evaluations.evaluate(StoppedBy(tmp_path / "stopped", spec, "facts"))
    assert 0 < len(generations(tmp_path / "stopped")) < len(spec.items)


def test_one_process_puts_adapters_onto_a_base_that_stays_loaded(
    models_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads = []
    load = local.load_model
    monkeypatch.setattr(local, "load_model", lambda *args, **kw: loads.append(args) or load(*args, **kw))
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


def test_several_samples_of_each_item_are_one_result(
    models_dir: Path, tmp_path: Path, evaluations: Evaluations
) -> None:
    decoding = Decoding(max_new_tokens=12, batch_size=4, temperature=1.0, samples=3, log_probabilities=True)
    found = run(tmp_path / "job", worker_spec(models_dir, decoding=decoding), evaluations)
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


def test_the_speed_of_answers_is_measured_and_none_is_written(
    models_dir: Path, tmp_path: Path, evaluations: Evaluations
) -> None:
    items = tuple(WorkerItem(id=f"{number}", prompt="Count.") for number in range(16))
    spec = worker_spec(models_dir, items=items).model_dump(mode="json")
    (tmp_path / "spec.json").write_bytes(canonical_json({**spec, "measure": True}))
    evaluations.evaluate(JobDir(tmp_path))
    (told,) = map(json.loads, (tmp_path / "events.jsonl").read_text().splitlines())
    assert (told["kind"], told["rows"], told["dtype"]) == ("speed", 16, "bfloat16")
    assert told["tokens_per_second"] > 0
    assert told["prompt_tokens_per_second"] > 0

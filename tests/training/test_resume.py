"""A job whose process was ended goes on from its latest state, and ends in the bytes of one that was not."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from support.disk import largest_file
from support.job_folder import LINEAR, SPEC, JobFolder, Killed
from support.tiny_model import ONE_LAYER, make_tiny_model
from tunix_rt_kit.errors import DomainError
from tunix_rt_kit.jobs.child import JobCancelled
from tunix_rt_kit.models.lora import load_adapter
from tunix_rt_kit.models.pretrained import load_model, logits, make_mesh
from tunix_rt_trainer.jobs.model import EarlyStopping
from tunix_rt_trainer.worker import states

STEPS = 8
WEIGHTS = "adapter_model.safetensors"
PLANS: dict[str, dict[str, Any]] = {
    "packed": {"gradient_accumulation_steps": 2, "optimizer": LINEAR},
    "unpacked": {"packing": False, "max_length": 64, "keep_best_checkpoint": True},
    "full": {"method": "full", "lora": None, "gradient_accumulation_steps": 2},
    "qlora": {"method": "qlora"},
}
Seen = Callable[[str, dict[str, Any]], None]
Uninterrupted = Callable[[str], tuple[dict[str, Any], JobFolder]]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    make_tiny_model(folder / "tiny", config=ONE_LAYER)
    return folder


def job(path: Path, models: Path, **changed: Any) -> JobFolder:
    values = {"max_steps": STEPS, "checkpoint_interval_steps": 3, "validation_interval_steps": 2}
    return JobFolder(path, models, **(values | changed))


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Uninterrupted:
    """By name a plan of a job, and the folder of one that nothing came across."""

    @cache
    def run(name: str) -> tuple[dict[str, Any], JobFolder]:
        folder = job(tmp_path_factory.mktemp("uninterrupted"), models, **PLANS[name])
        folder.train()
        return PLANS[name], folder

    return run


def kill_at(kind: str, count: int = 1) -> Seen:
    """Ends the job before its event of this kind, the ``count``-th one, is written."""
    left = count

    def seen(told: str, fields: dict[str, Any]) -> None:
        nonlocal left
        del fields
        if told == kind:
            left -= 1
            if not left:
                raise Killed

    return seen


def killed(folder: JobFolder, seen: Seen | None) -> None:
    with pytest.raises(Killed):
        folder.train(seen)
    folder.next_attempt()


def resumed_from(folder: JobFolder) -> list[int]:
    return [event["step"] for event in folder.events("resumed")]


def losses(folder: JobFolder) -> dict[int, dict[str, Any]]:
    """What each step measured, apart from times; of a step that was taken twice it must be the same."""
    found: dict[int, dict[str, Any]] = {}
    for event in folder.events("metrics"):
        kept = {name: event.get(name) for name in ("loss", "grad_norm", "learning_rate", "epoch")}
        assert found.setdefault(event["step"], kept) == kept
    return found


@pytest.mark.parametrize("name", ["unpacked", "full", "qlora"])
def test_a_job_that_is_killed_ends_in_the_same_bytes(
    tmp_path: Path, models: Path, uninterrupted: Uninterrupted, name: str
) -> None:
    plan, whole = uninterrupted(name)
    folder = job(tmp_path, models, **plan)
    killed(folder, kill_at("metrics", 5))
    folder.train()
    assert resumed_from(folder) == [3]
    assert folder.contents() == whole.contents()
    assert losses(folder) == losses(whole)


def test_a_job_that_is_killed_again_and_again_ends_in_the_same_bytes(
    tmp_path: Path, models: Path, uninterrupted: Uninterrupted, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, whole = uninterrupted("packed")
    folder = job(tmp_path, models, **plan)
    killed(folder, kill_at("metrics", 2))
    killed(folder, kill_at("metrics", 5))
    with monkeypatch.context() as patched:
        # In the middle of the state of step 6: the one of step 3 is still there.
        write, count = states.save_file, iter(range(10))

        def write_one(*arguments: Any) -> None:
            if next(count):
                raise Killed
            write(*arguments)

        patched.setattr(states, "save_file", write_one)
        killed(folder, None)
    assert {entry.name for entry in (tmp_path / "states").iterdir()} == {"3"}
    # When the checkpoint of step 6 was told of, but its state was not written.
    killed(folder, kill_at("checkpoint", 2))
    folder.train()
    assert resumed_from(folder) == [3, 3, 3]
    assert folder.contents() == whole.contents()
    assert losses(folder) == losses(whole)
    assert {entry.name for entry in (tmp_path / "states").iterdir()} == {"6", "8"}


def test_a_job_that_ended_tells_of_its_checkpoint_again(
    uninterrupted: Uninterrupted,
) -> None:
    _, whole = uninterrupted("packed")
    before, told = whole.contents(), whole.events("checkpoint")
    whole.next_attempt()
    whole.train()
    assert resumed_from(whole) == [STEPS]
    assert whole.events("checkpoint")[len(told) :][0]["step"] == STEPS
    assert whole.events("checkpoint")[-1]["best"] == told[-1]["best"]
    assert whole.contents() == before
    assert len(whole.events("metrics")) == STEPS


def test_a_job_that_is_cancelled_while_it_validates_has_taken_its_step(
    tmp_path: Path, models: Path, uninterrupted: Uninterrupted
) -> None:
    plan, whole = uninterrupted("packed")
    folder = job(tmp_path, models, **plan)

    def cancel_in_validation(kind: str, fields: dict[str, Any]) -> None:
        if kind == "stage" and fields["stage"] == "validating":
            (tmp_path / "cancel").touch()

    with pytest.raises(JobCancelled):
        folder.train(cancel_in_validation)
    assert [event["step"] for event in folder.events("metrics")] == [1, 2]
    assert folder.checkpoint.name == "2"
    folder.next_attempt()
    folder.train()
    assert resumed_from(folder) == [2]
    assert folder.contents() == whole.contents()
    assert losses(folder) == losses(whole)


def test_a_full_disk_fails_the_job_and_keeps_what_it_had(
    tmp_path: Path, models: Path, uninterrupted: Uninterrupted
) -> None:
    plan, whole = uninterrupted("packed")
    folder = job(tmp_path, models, **plan)
    killed(folder, kill_at("metrics", 5))
    with largest_file(15_000), pytest.raises(DomainError) as caught:
        folder.train()
    assert caught.value.reason == "STORAGE_FULL"
    assert str(tmp_path) in caught.value.message
    assert {entry.name for entry in (tmp_path / "states").iterdir()} == {"3"}
    folder.next_attempt()
    folder.train()
    assert folder.contents() == whole.contents()


def test_damaged_states_cost_steps_but_not_the_result(
    tmp_path: Path, models: Path, uninterrupted: Uninterrupted
) -> None:
    plan, whole = uninterrupted("packed")
    folder = job(tmp_path, models, **plan)
    killed(folder, kill_at("metrics", 8))
    for step in (6, 3):
        path = tmp_path / "states" / str(step) / "optimizer.safetensors"
        path.write_bytes(path.read_bytes()[:-1])
        killed(folder, kill_at("metrics", 1))
        assert resumed_from(folder) == [3]
        logged = folder.events("log")
        assert any(f"state of step {step} is passed over" in event["line"] for event in logged)
    assert any("starts from the beginning" in event["line"] for event in folder.events("log"))
    folder.train()
    assert folder.contents() == whole.contents()


def test_training_stops_when_the_validation_loss_falls_no_more_and_the_best_is_kept(
    tmp_path: Path, models: Path
) -> None:
    # No loss falls by a million nats: the first one counts, the next two do not.
    stopping = EarlyStopping(patience=2, min_delta=1e6)
    folder = job(tmp_path, models, keep_best_checkpoint=True, early_stopping=stopping, max_steps=20)
    killed(folder, kill_at("metrics", 5))
    folder.train()
    assert resumed_from(folder) == [3]
    assert [event["step"] for event in folder.events("metrics")][-3:] == [4, 5, 6]
    validated = {e["step"]: e["validation_loss"] for e in folder.events("metrics") if "validation_loss" in e}
    assert sorted(validated) == [2, 4, 6]
    told = {event["step"]: event["best"] for event in folder.events("checkpoint")}
    lowest, best = float("inf"), {}
    for step, loss in sorted(validated.items()):
        best[step] = loss < lowest
        lowest = min(loss, lowest)
    # Those of the interval, those that were the best when they were written, and the last one.
    assert told == {3: False} | {step: True for step in best if best[step]} | {6: best[6]}
    assert folder.manifest().spec.max_steps == 20


def test_a_loss_that_breaks_later_leaves_the_checkpoint_before(tmp_path: Path, models: Path) -> None:
    # From almost nothing to far too much.
    rising = SPEC.optimizer.model_copy(
        update={"learning_rate": 1.0, "weight_decay": 3e38, "warmup_steps": 3, "max_grad_norm": 0.0}
    )
    changed = {"checkpoint_interval_steps": 1, "optimizer": rising}
    trained = job(tmp_path / "trained", models, validation_interval_steps=0, **changed)
    validated = job(tmp_path / "validated", models, **changed)
    for folder in (trained, validated):
        with pytest.raises(DomainError) as caught:
            folder.train()
        error = caught.value
        assert error.reason == "LOSS_NOT_FINITE"
        last = int(folder.checkpoint.name)
        assert f"the last checkpoint is that of step {last}" in error.message
        assert all(np.isfinite(tensor).all() for tensor in load_file(folder.checkpoint / WEIGHTS).values())
        told = [event["step"] for event in folder.events("metrics")]
        assert told == list(range(1, told[-1] + 1))
        if "batch" in error.metadata:
            assert error.metadata["batch"] == error.metadata["step"] == str(told[-1] + 1)
    assert caught.value.message.startswith("step 2: the validation loss is nan")
    assert "validation_loss" not in validated.events("metrics")[-1]


def test_a_second_job_takes_the_tokens_of_the_first(tmp_path: Path, models: Path) -> None:
    cache = str(tmp_path / "cache")
    first, second = (job(tmp_path / name, models, max_steps=1) for name in ("first", "second"))
    for folder in (first, second):
        folder.next_attempt(attempt=1, cache_dir=cache)
        folder.train()
    assert [
        len([e for e in folder.events("log") if "in the cache" in e["line"]]) for folder in (first, second)
    ] == [0, 2]
    assert first.contents() == second.contents()
    ledger = [json.loads(line) for line in first.contents()["ledger.jsonl"].splitlines()]
    assert [line["step"] for line in ledger] == [1]
    known = {json.loads(line)["id"] for line in (first.path / "data/train.jsonl").read_bytes().splitlines()}
    learned = [name for row in ledger[0]["example_ids"] for name in row]
    assert learned and set(learned) <= known and len(set(learned)) == len(learned)


def test_epochs_may_be_fractions_and_are_told_of(tmp_path: Path, models: Path) -> None:
    # 40 rows in batches of 4 are 10 steps a pass; 0.25 of that is 2.5, and a part of a step is a step.
    folder = job(tmp_path, models, max_steps=None, epochs=0.25, packing=False, max_length=64)
    folder.train()
    assert [event["epoch"] for event in folder.events("metrics")] == [0.1, 0.2, 0.3]
    assert all(event["supervised_tokens_per_second"] > 0 for event in folder.events("metrics"))
    assert folder.manifest().spec.max_steps == 3


def test_a_job_that_is_cancelled_as_its_best_checkpoint_was_saved_goes_on_after_it(
    tmp_path: Path, models: Path
) -> None:
    folder = job(tmp_path, models, keep_best_checkpoint=True, checkpoint_interval_steps=0, max_steps=4)

    def cancel_after_best(kind: str, fields: dict[str, Any]) -> None:
        if kind == "checkpoint" and fields["best"]:
            (tmp_path / "cancel").touch()

    with pytest.raises(JobCancelled):
        folder.train(cancel_after_best)
    assert [event["step"] for event in folder.events("checkpoint")] == [2]
    folder.next_attempt()
    folder.train()
    assert [event["step"] for event in folder.events("resumed")] == [2]


def test_all_weights_are_a_model_that_computes_otherwise_than_its_base(
    models: Path, uninterrupted: Uninterrupted
) -> None:
    _, whole = uninterrupted("full")
    assert {"config.json", "model.safetensors", "tokenizer.json", "ledger.jsonl"} <= set(whole.contents())
    tokens = np.asarray([[5, 6, 7, 8]], np.int32)
    mesh = make_mesh()
    with mesh:
        base, tuned = (
            np.asarray(logits(load_model(folder, dtype="float32", mesh=mesh), tokens, tokens > 0))
            for folder in (models / "tiny", whole.checkpoint)
        )
    assert np.abs(base - tuned).max() > 1e-3


def test_an_adapter_beside_four_bits_fits_the_base_model(models: Path, uninterrupted: Uninterrupted) -> None:
    _, whole = uninterrupted("qlora")
    mesh = make_mesh()
    with mesh:
        load_adapter(load_model(models / "tiny", dtype="float32", mesh=mesh), whole.checkpoint)

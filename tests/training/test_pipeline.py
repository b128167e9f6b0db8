"""One training job in this process, from its spec to its checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from support.job_folder import LINEAR, OPTIMIZER, SPEC, JobFolder
from support.tiny_model import ONE_LAYER, make_tiny_model
from support.training import CHATML, rows
from tunix_rt_kit.canonical import canonical_json
from tunix_rt_kit.errors import DomainError
from tunix_rt_kit.jobs.child import JobCancelled, JobDir
from tunix_rt_kit.models.lora import load_adapter
from tunix_rt_kit.models.pretrained import load_model, make_mesh
from tunix_rt_kit.models.runtime import fast_dtype
from tunix_rt_kit.models.store import ModelStore
from tunix_rt_trainer.jobs.model import TrainingSpeed
from tunix_rt_trainer.worker import measure


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    make_tiny_model(folder / "tiny")
    return folder


def trained(path: Path, models: Path, **changed: Any) -> JobFolder:
    folder = JobFolder(path, models, **changed)
    folder.train()
    return folder


def refused(path: Path, models: Path, **changed: Any) -> DomainError:
    with pytest.raises(DomainError) as caught:
        trained(path, models, **changed)
    return caught.value


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory, models: Path) -> JobFolder:
    """A job that was done."""
    return trained(tmp_path_factory.mktemp("learned"), models, optimizer=LINEAR)


def test_a_job_learns_and_tells_each_step_without_a_lag(learned: JobFolder) -> None:
    metrics = learned.events("metrics")
    assert [entry["step"] for entry in metrics] == [1, 2, 3, 4, 5, 6]
    losses = [entry["loss"] for entry in metrics]
    assert losses[0] == pytest.approx(np.log(259), rel=0.1)
    assert losses[-1] < losses[0] - 0.5
    rates = [entry["learning_rate"] for entry in metrics]
    assert rates == pytest.approx([0.02 * (6 - step) / 6 for step in range(6)])
    assert [step for step, entry in enumerate(metrics, 1) if "validation_loss" in entry] == [4, 6]
    assert metrics[5]["validation_loss"] < metrics[3]["validation_loss"] < losses[0]
    assert all(0 < entry["supervised_tokens"] < entry["tokens"] <= 4 * 128 for entry in metrics)
    assert metrics[-1]["eta_s"] == 0
    assert all(entry["tokens_per_second"] > 0 and entry["grad_norm"] > 0 for entry in metrics)
    stages = list(dict.fromkeys(event["stage"] for event in learned.events("stage")))
    assert stages == [
        "checking the base model",
        "preparing data",
        "loading the model",
        "compiling",
        "training",
        "validating",
        "saving",
    ]


def test_the_checkpoint_holds_adapter_metrics_and_manifest(learned: JobFolder, models: Path) -> None:
    assert {file.name for file in learned.checkpoint.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "ledger.jsonl",
        "metrics.jsonl",
        "manifest.json",
    }
    weights = load_file(learned.checkpoint / "adapter_model.safetensors")
    assert len(weights) == 2 * 2 * 4
    assert {value.dtype for value in weights.values()} == {np.dtype("float32")}
    assert all(np.any(value) for value in weights.values())
    mesh = make_mesh()
    with mesh:
        load_adapter(load_model(models / "tiny", dtype="float32", mesh=mesh), learned.checkpoint)
    lines = [json.loads(line) for line in (learned.checkpoint / "metrics.jsonl").read_text().splitlines()]
    assert [line["loss"] for line in lines] == [entry["loss"] for entry in learned.events("metrics")]
    assert not {"tokens_per_second", "eta_s", "step_duration_s"} & set(lines[0])
    manifest, base = learned.manifest(), ModelStore(models).resolve("tiny")
    assert manifest.spec == SPEC.model_copy(update={"optimizer": LINEAR})
    assert manifest.training_job == "trainingJobs/a"
    assert (manifest.base_weights_digest, manifest.tokenizer_digest, manifest.base_config_digest) == (
        base.weights_digest,
        base.tokenizer_digest,
        base.config_digest,
    )
    assert manifest.chat_template_digest == CHATML.digest
    assert manifest.package_versions["jax"] == jax.__version__
    assert manifest.device.startswith("cpu")
    assert manifest.mesh == {"fsdp": 1, "tp": 1}
    assert manifest.runtime_settings["jax_enable_x64"] == "False"
    assert manifest.data_order_digest.startswith("sha256:")


def test_an_equal_job_leaves_equal_bytes(tmp_path: Path, models: Path, learned: JobFolder) -> None:
    again = trained(tmp_path, models, optimizer=LINEAR)
    assert learned.contents() == again.contents()


def test_another_seed_makes_another_adapter(tmp_path: Path, models: Path, learned: JobFolder) -> None:
    other = trained(tmp_path, models, seed=12, optimizer=LINEAR)
    assert learned.manifest().data_order_digest != other.manifest().data_order_digest
    weights = "adapter_model.safetensors"
    assert (learned.checkpoint / weights).read_bytes() != (other.checkpoint / weights).read_bytes()


def test_left_out_steps_mean_one_pass_and_auto_what_is_fast_here(tmp_path: Path, models: Path) -> None:
    folder = trained(tmp_path, models, max_steps=None, dtype="auto", packing=False, max_length=64)
    (plan,) = folder.events("plan")
    assert (plan["max_steps"], plan["dtype"]) == (10, fast_dtype(jax.default_backend()))
    assert len(folder.events("metrics")) == 10
    filled_in = {"max_steps": 10, "dtype": plan["dtype"]}
    assert folder.manifest().spec == folder.worker.spec.model_copy(update=filled_in)
    (line,) = (event["line"] for event in folder.events("log") if "examples in" in event["line"])
    assert line.startswith("40 examples in 40 rows of 64 tokens")


def test_a_cancelled_job_leaves_the_checkpoint_of_its_last_step(tmp_path: Path, models: Path) -> None:
    folder = JobFolder(tmp_path, models, max_steps=1_000)

    def cancel_after_two(kind: str, fields: dict[str, Any]) -> None:
        if kind == "metrics" and fields["step"] == 2:
            (tmp_path / "cancel").touch()

    with pytest.raises(JobCancelled):
        folder.train(cancel_after_two)
    assert [entry["step"] for entry in folder.events("metrics")] == [1, 2]
    assert folder.checkpoint.name == "2"
    assert len((folder.checkpoint / "metrics.jsonl").read_text().splitlines()) == 2


def test_a_loss_that_is_no_number_stops_the_job_and_names_step_and_example(
    tmp_path: Path, models: Path
) -> None:
    broken = make_tiny_model(models / "broken", config=ONE_LAYER) / "model.safetensors"
    tensors = load_file(broken)
    # Each is a number, but their products with anything are none.
    tensors["model.norm.weight"][:] = np.finfo(np.float32).max
    save_file(tensors, broken, metadata={"format": "pt"})
    error = refused(tmp_path, models, base_model="broken")
    assert (error.code, error.reason) == ("FAILED_PRECONDITION", "LOSS_NOT_FINITE")
    assert error.metadata["step"] == "1"
    assert error.metadata["first_example_id"] in {row["id"] for row in rows(40)}
    assert not (tmp_path / "checkpoints").exists()


def test_data_and_settings_that_do_not_fit_are_refused_before_the_model_is_loaded(
    tmp_path: Path, models: Path
) -> None:
    error = refused(tmp_path / "long", models, max_length=32)
    assert (error.code, error.reason) == ("FAILED_PRECONDITION", "EXAMPLE_TOO_LONG")
    assert error.message.startswith("40 examples of split 'train'")
    error = refused(tmp_path / "deep", models, max_length=2048)
    assert (error.reason, "1024" in error.message) == ("MAX_LENGTH_INVALID", True)
    error = refused(tmp_path / "gemma", models, markers=("<end_of_turn>",))
    assert error.reason == "CHAT_TEMPLATE_MISMATCH"
    slow = OPTIMIZER.model_copy(update={"warmup_steps": 10})
    error = refused(tmp_path / "slow", models, max_steps=None, packing=False, optimizer=slow)
    assert error.reason == "WARMUP_STEPS_INVALID"
    error = refused(tmp_path / "unknown", models, base_model="nobody")
    assert (error.code, error.reason) == ("NOT_FOUND", "BASE_MODEL_UNKNOWN")
    for folder in tmp_path.iterdir():
        assert '"loading the model"' not in (folder / "events.jsonl").read_text()


def test_the_speed_of_a_spec_is_measured_on_made_up_rows(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "_SECONDS", 0.0)
    asked = {"measure": True, "spec": SPEC.model_dump(mode="json"), "models_dir": str(models)}
    (tmp_path / "spec.json").write_bytes(canonical_json(asked))
    measure.measure(JobDir(tmp_path))
    (told,) = map(json.loads, (tmp_path / "events.jsonl").read_text().splitlines())
    speed = TrainingSpeed.model_validate(
        {name: told[name] for name in TrainingSpeed.model_fields if name in told}
    )
    # Two of the four rows of a batch, so that a whole step takes twice as long.
    assert (speed.rows, speed.steps, speed.dtype) == (2, 2, "float32")
    assert speed.step_duration_s == pytest.approx(speed.measured_duration_s / 2 * 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["events.jsonl", "spec.json"]

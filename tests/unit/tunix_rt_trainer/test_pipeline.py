"""One training job in this process, from its spec to its checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from support.tiny_model import make_tiny_model
from support.training import CHATML, rows, write_rows
from tunix_rt_kit.artifacts import canonical_json
from tunix_rt_kit.errors import DomainError
from tunix_rt_kit.jobs import JobCancelled, JobDir
from tunix_rt_kit.models.llama import load_model, make_mesh
from tunix_rt_kit.models.lora import load_adapter
from tunix_rt_kit.models.store import ModelStore
from tunix_rt_trainer.model import (
    ChatTemplateFields,
    LoraConfig,
    OptimizerConfig,
    SplitFile,
    TrainingInput,
    TrainingManifest,
    TrainingSpec,
    WorkerSpec,
)
from tunix_rt_trainer.worker.pipeline import run

OPTIMIZER = OptimizerConfig(
    learning_rate=0.02,
    schedule="linear",
    warmup_steps=0,
    weight_decay=0.0,
    beta1=0.9,
    beta2=0.999,
    epsilon=1e-8,
    max_grad_norm=1.0,
)
SPEC = TrainingSpec(
    base_model="tiny",
    dataset="datasets/sums@1",
    lora=LoraConfig(rank=4, alpha=8.0, target_modules=("q_proj", "v_proj", "up_proj", "down_proj")),
    optimizer=OPTIMIZER,
    max_steps=6,
    rows_per_batch=4,
    max_length=128,
    packing=True,
    dtype="bfloat16",
    seed=11,
    validation_interval_steps=4,
)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    make_tiny_model(folder / "tiny")
    return folder


class Folder:
    """A job's folder, and what the job left in it."""

    def __init__(self, path: Path, models: Path, **changed: Any) -> None:
        self.path = path
        self.train, self.held_out = rows(40), rows(6, start=40)
        train = SplitFile(digest=write_rows(path / "data" / "train.jsonl", self.train), row_count=40)
        validation = write_rows(path / "data" / "validation.jsonl", self.held_out)
        inputs = TrainingInput(
            dataset_digest="sha256:d",
            chat_template=ChatTemplateFields(builtin="chatml"),
            chat_template_digest=CHATML.digest,
            turn_markers=CHATML.markers,
            train=train,
            validation=SplitFile(digest=validation, row_count=6),
        )
        worker = WorkerSpec(
            job_name="trainingJobs/a",
            spec=SPEC.model_copy(update=changed),
            inputs=inputs.model_copy(update={"turn_markers": changed.pop("markers", CHATML.markers)}),
            attempt=1,
            models_dir=str(models),
            train_file="data/train.jsonl",
            validation_file="data/validation.jsonl",
            code_revision="0.0.0+test",
        )
        (path / "spec.json").write_bytes(canonical_json(worker.model_dump(mode="json")))
        self.job = JobDir(path)

    def events(self, kind: str) -> list[dict[str, Any]]:
        lines = (self.path / "events.jsonl").read_text().splitlines()
        return [event for event in map(json.loads, lines) if event["kind"] == kind]

    @property
    def checkpoint(self) -> Path:
        (told,) = self.events("checkpoint")
        return self.path / str(told["folder"])

    def manifest(self) -> TrainingManifest:
        return TrainingManifest.model_validate_json((self.checkpoint / "manifest.json").read_bytes())


def trained(path: Path, models: Path, **changed: Any) -> Folder:
    folder = Folder(path, models, **changed)
    run(folder.job)
    return folder


def refused(path: Path, models: Path, **changed: Any) -> DomainError:
    with pytest.raises(DomainError) as caught:
        trained(path, models, **changed)
    return caught.value


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Folder:
    """A job that was done."""
    return trained(tmp_path_factory.mktemp("learned"), models)


def test_a_job_learns_and_tells_each_step_without_a_lag(learned: Folder) -> None:
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


def test_the_checkpoint_holds_adapter_metrics_and_manifest(learned: Folder, models: Path) -> None:
    assert {file.name for file in learned.checkpoint.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
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
    assert manifest.spec == SPEC
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


def test_an_equal_job_leaves_equal_bytes(tmp_path: Path, models: Path, learned: Folder) -> None:
    again = trained(tmp_path, models)
    for name in ("adapter_model.safetensors", "adapter_config.json", "metrics.jsonl"):
        assert (learned.checkpoint / name).read_bytes() == (again.checkpoint / name).read_bytes()
    assert learned.manifest() == again.manifest()


def test_another_seed_and_float32_make_another_adapter(tmp_path: Path, models: Path, learned: Folder) -> None:
    other = trained(tmp_path, models, seed=12, dtype="float32")
    assert learned.manifest().data_order_digest != other.manifest().data_order_digest
    weights = "adapter_model.safetensors"
    assert (learned.checkpoint / weights).read_bytes() != (other.checkpoint / weights).read_bytes()


def test_left_out_steps_mean_one_pass(tmp_path: Path, models: Path) -> None:
    folder = trained(tmp_path, models, max_steps=None, packing=False, max_length=64)
    assert folder.events("plan")[0]["max_steps"] == 10
    assert len(folder.events("metrics")) == 10
    assert folder.manifest().spec.max_steps == 10
    (line,) = (event["line"] for event in folder.events("log") if "examples in" in event["line"])
    assert line.startswith("40 examples in 40 rows of 64 tokens")


def test_a_cancelled_job_leaves_the_checkpoint_of_its_last_step(tmp_path: Path, models: Path) -> None:
    folder = Folder(tmp_path, models, max_steps=1_000)
    emit = folder.job.emit

    def cancel_after_two(kind: str, **fields: Any) -> None:
        emit(kind, **fields)
        if kind == "metrics" and fields["step"] == 2:
            (tmp_path / "cancel").touch()

    folder.job.emit = cancel_after_two  # type: ignore[method-assign]
    with pytest.raises(JobCancelled):
        run(folder.job)
    assert [entry["step"] for entry in folder.events("metrics")] == [1, 2]
    assert folder.checkpoint.name == "2"
    assert len((folder.checkpoint / "metrics.jsonl").read_text().splitlines()) == 2


def test_a_loss_that_is_no_number_stops_the_job_and_names_step_and_example(
    tmp_path: Path, models: Path
) -> None:
    broken = make_tiny_model(models / "broken") / "model.safetensors"
    tensors = load_file(broken)
    tensors["model.norm.weight"][:] = np.nan
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

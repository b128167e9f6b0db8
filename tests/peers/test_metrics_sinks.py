"""What TensorBoard, MLflow and Weights & Biases show of a job that was interrupted once."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.training_specs import SPEC, metrics
from tunix_rt_trainer.jobs.model import MetricsSink
from tunix_rt_trainer.worker.reporter import MetricsSinks

LOSSES = [(1, 4.0), (2, 2.0), (3, pytest.approx(4 / 3)), (4, 1.0)]


def train(name: MetricsSink, folder: Path) -> None:
    """Steps 1 to 3, then an end without a word; a second attempt goes on after step 2."""
    told: list[str] = []
    for resumed, steps in ((0, (1, 2, 3)), (2, (3, 4))):
        with MetricsSinks(
            (name,), folder, "trainingJobs/job-1", SPEC, tell=told.append, resumed=resumed
        ) as sinks:
            for step in steps:
                sinks.write(metrics(step))
    assert not told


def test_tensorboard_shows_each_step_once(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train("tensorboard", tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == LOSSES


def test_mlflow_shows_one_run_with_its_parameters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    import mlflow

    mlflow.set_tracking_uri((tmp_path / "mlruns").as_uri())
    train("mlflow", tmp_path)
    client = mlflow.MlflowClient()
    [run] = client.search_runs([client.get_experiment_by_name("tunix-rt").experiment_id])
    assert (run.info.status, run.info.run_name) == ("FINISHED", "trainingJobs/job-1")
    assert (run.data.params["lora.rank"], run.data.params["optimizer.learning_rate"]) == ("4", "0.01")
    history = {entry.step: entry.value for entry in client.get_metric_history(run.info.run_id, "loss")}
    assert sorted(history.items()) == LOSSES


def test_weights_and_biases_keeps_a_run_by_the_id_of_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    train("wandb", tmp_path)
    runs = sorted((tmp_path / "wandb").glob("offline-run-*/*.wandb"))
    assert {file.stem for file in runs} == {"run-job-1"}
    assert all(b"lora.rank" in file.read_bytes() for file in runs[:1])

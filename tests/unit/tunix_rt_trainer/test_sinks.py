"""Where metrics go: what happens when a sink fails. What each one shows is tested beside its library."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.training_specs import SPEC, metrics
from tunix_rt_kit.serving.settings import SettingsInvalid, load_settings
from tunix_rt_trainer.wiring import TrainerSettings
from tunix_rt_trainer.worker.reporter import MetricsSinks


def test_metrics_go_to_files_in_the_folder_of_the_job(tmp_path: Path) -> None:
    told: list[str] = []
    with MetricsSinks(("tensorboard",), tmp_path, "trainingJobs/1", SPEC, tell=told.append) as sinks:
        for step in (1, 2):
            sinks.write(metrics(step))
    [file] = (tmp_path / "tensorboard").iterdir()
    assert b"train/loss" in file.read_bytes()
    assert not told


def test_a_sink_that_fails_is_told_once_and_ends_nothing(tmp_path: Path) -> None:
    (tmp_path / "tensorboard").write_text("a file stands where the folder would be")
    told: list[str] = []
    with MetricsSinks(("tensorboard",), tmp_path, "trainingJobs/1", SPEC, tell=told.append) as sinks:
        for step in (1, 2):
            sinks.write(metrics(step))
    [line] = told
    assert line.startswith("metrics no longer go to tensorboard: ")


@pytest.mark.parametrize(
    ("given", "names"),
    [("none", ()), ("tensorboard", ("tensorboard",)), (" tensorboard , tensorboard", ("tensorboard",))],
)
def test_sinks_are_named_with_commas(given: str, names: tuple[str, ...]) -> None:
    settings = load_settings(TrainerSettings, ["--metrics-to", given], program="trainer")
    assert settings.sinks == names


def test_an_unknown_sink_is_refused() -> None:
    with pytest.raises(SettingsInvalid, match="'prometheus' is none of tensorboard, mlflow, wandb"):
        load_settings(TrainerSettings, ["--metrics-to", "tensorboard,prometheus"], program="trainer")

"""What children learn of their server's environment."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from support.timing import eventually
from tunix_rt_evaluator.evaluations.job_folders import JobFolders as EvaluationFolders
from tunix_rt_evaluator.evaluations.model import Evaluation, EvaluationInput, EvaluationSpec
from tunix_rt_evaluator.openai_endpoint import API_KEY_VARIABLE, Endpoint
from tunix_rt_kit.artifacts import ArtifactStore
from tunix_rt_kit.jobs.process import WorkerProcess
from tunix_rt_kit.models.pull import pulling_environment
from tunix_rt_kit.models.runtime import child_environment
from tunix_rt_kit.values import JobState
from tunix_rt_trainer.jobs.model import MetricsSink
from tunix_rt_trainer.jobs.training import JobFolders as TrainingFolders

SECRETS = {
    name: f"secret of {name}"
    for name in (
        *("TUNIX_RT_EVALUATOR_JUDGE_API_KEY", "TUNIX_RT_EVALUATOR_ENDPOINT_API_KEY", "NVIDIA_API_KEY"),
        *("TUNIX_RT_TRAINER_DATABASE_URL", "TUNIX_RT_EVALUATOR_DATABASE_URL", "PGPASSWORD", "TF_TOKEN_x"),
        *("AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "OPENAI_API_KEY", "WANDB_API_KEY", "MLFLOW_TRACKING_PASSWORD"),
        *("https_proxy", "PIP_INDEX_URL", "LANGUAGES", "PATHOLOGY"),
    )
}
NEEDED = {
    "XLA_FLAGS": "--xla_cpu_max_isa=AVX2", "JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": "0",
    "TMPDIR": "/tmp", "OMP_NUM_THREADS": "1", "LC_ALL": "C.UTF-8",
    "PYTHONUSERBASE": "/nowhere",
}  # fmt: skip
Kind = Callable[[Path], WorkerProcess]


def training(*metrics_to: MetricsSink, base_model: str = "a-folder") -> Kind:
    def made(folder: Path) -> WorkerProcess:
        folders = TrainingFolders(
            folder,
            ArtifactStore(folder / "artifacts"),
            models_dir=folder,
            cache_dir=folder,
            environment=child_environment(folder),
            code_revision="",
            metrics_to=metrics_to,
        )
        return folders.process("job", base_model)

    return made


def evaluation(**model: str) -> Kind:
    def made(folder: Path) -> WorkerProcess:
        folders = EvaluationFolders(
            folder,
            ArtifactStore(folder / "artifacts"),
            endpoint=Endpoint(url="http://127.0.0.1:1/v1", api_key="the endpoint's key"),
            models_dir=folder,
            environment=child_environment(folder),
            code_revision="",
            responses=folder / "responses.db",
        )
        spec = EvaluationSpec.model_construct(endpoint_model=model.get("endpoint_model"))
        inputs = EvaluationInput.model_construct(base_model=model.get("base_model", "a-folder"))
        state = JobState.QUEUED
        asked = Evaluation.model_construct(id="evaluation", spec=spec, inputs=inputs, state=state)
        return folders.process(asked, warm=False)

    return made


@pytest.mark.parametrize(
    ("kind", "given", "asks"),
    [
        pytest.param(training(), set(), False, id="training"),
        pytest.param(training("wandb"), {"WANDB_API_KEY", "https_proxy"}, False, id="training-wandb"),
        pytest.param(
            training("mlflow"), {"MLFLOW_TRACKING_PASSWORD", "https_proxy"}, False, id="training-mlflow"
        ),
        pytest.param(
            training(base_model="smollm2-135m-instruct"),
            {"PIP_INDEX_URL", "https_proxy"},
            False,
            id="training-that-pulls",
        ),
        pytest.param(evaluation(), set(), False, id="evaluation"),
        pytest.param(
            evaluation(base_model="smollm2-135m-instruct"),
            {"PIP_INDEX_URL", "https_proxy"},
            False,
            id="evaluation-that-pulls",
        ),
        pytest.param(evaluation(endpoint_model="m"), {"https_proxy"}, True, id="evaluation-endpoint"),
    ],
)
def test_a_child_gets_what_it_needs_and_no_more(
    kind: Kind, given: set[str], asks: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (SECRETS | NEEDED).items():
        monkeypatch.setenv(name, value)
    tests = Path(__file__).parents[3]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tests), *sys.path]))
    process = kind(tmp_path)
    process.module = "support.worker"
    process.start({"what": "wait", "events": 0})
    try:
        assert process.pid is not None
        eventually(process.events)
        environment = psutil.Process(process.pid).environ()
    finally:
        process.kill()
    assert {name for name, value in SECRETS.items() if value in environment.values()} == given
    assert NEEDED.items() <= environment.items()
    assert ("the endpoint's key" in environment.values()) is asks
    assert (API_KEY_VARIABLE in environment) is asks


def test_a_child_is_told_how_to_pull_a_model_only_while_it_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "of an index")
    catalogued = "smollm2-135m-instruct"
    assert pulling_environment(tmp_path, catalogued)["PIP_INDEX_URL"] == "of an index"
    assert pulling_environment(tmp_path, str(tmp_path)) == {}
    (tmp_path / catalogued).mkdir()
    assert pulling_environment(tmp_path, catalogued) == {}

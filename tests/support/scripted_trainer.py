"""A worker that acts out a training job without a model; the seed of its spec says how it goes."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any

import numpy as np

from tunix_rt_kit.artifacts import canonical_json
from tunix_rt_kit.errors import FailedPrecondition
from tunix_rt_kit.jobs import JobCancelled, JobDir, run_worker
from tunix_rt_kit.models.adapter import write_adapter
from tunix_rt_kit.models.store import ModelStore
from tunix_rt_trainer.checkpoints.model import TrainingManifest
from tunix_rt_trainer.jobs.model import StepMetrics, WorkerSpec

SUCCEED, WAIT, DEAF, REFUSE, DIE, CRASH, WAIT_ONCE, BUG = range(8)
STEPS = 3
RANK, SCALE = 4096, 0.5
_WIDTH = 64
_LAYERS = 2


def work(job: JobDir) -> None:
    worker = with_dtype(WorkerSpec.model_validate(job.spec))
    plan = worker.spec.seed
    job.emit("attempt", number=worker.attempt)
    job.emit("stage", stage="preparing data", completed=0, total=0, unit="")
    job.emit("plan", max_steps=STEPS, dtype=worker.spec.dtype)
    job.emit("log", line=f"attempt {worker.attempt} of {worker.spec.dataset}")
    print("about to train", flush=True)
    if plan == REFUSE:
        raise FailedPrecondition("rows are too long", reason="EXAMPLE_TOO_LONG", metadata={"count": "2"})
    job.emit("stage", stage="training", completed=0, total=STEPS, unit="steps")
    if plan == BUG:
        raise RuntimeError("no such luck")
    step(job, 1)
    if plan == DIE:
        os.kill(os.getpid(), signal.SIGKILL)
    if plan == CRASH:
        print("the end is near", flush=True)
        os._exit(7)
    waits = plan in (WAIT, DEAF) or (plan == WAIT_ONCE and worker.attempt == 1)
    while waits:
        if job.cancel_requested and plan != DEAF:
            checkpoint(job, worker, 1)
            raise JobCancelled
        time.sleep(0.02)
    for number in range(2, STEPS + 1):
        step(job, number)
    checkpoint(job, worker, STEPS)


def with_dtype(worker: WorkerSpec) -> WorkerSpec:
    if worker.spec.dtype != "auto":
        return worker
    return worker.model_copy(update={"spec": worker.spec.model_copy(update={"dtype": "float32"})})


def step(job: JobDir, number: int) -> None:
    metrics = StepMetrics(
        step=number,
        loss=4.0 / number,
        learning_rate=0.001,
        grad_norm=1.0,
        supervised_tokens=10,
        tokens=20,
        tokens_per_second=200.0,
        step_duration_s=0.1,
        eta_s=0.1 * (STEPS - number),
    )
    job.emit("metrics", **metrics.model_dump(mode="json", exclude_none=True))
    job.emit("progress", stage="training", completed=number, total=STEPS, unit="steps")


def checkpoint(job: JobDir, worker: WorkerSpec, number: int) -> None:
    folder = job.path / "checkpoints" / str(number)
    folder.mkdir(parents=True, exist_ok=True)
    write_adapter(folder, _pairs(), rank=RANK, alpha=RANK * SCALE, base_model=worker.spec.base_model)
    (folder / "metrics.jsonl").write_text('{"step":1}\n')
    base = ModelStore(worker.models_dir).resolve(worker.spec.base_model)
    manifest = TrainingManifest(
        training_job=worker.job_name,
        spec=worker.spec.model_copy(update={"max_steps": STEPS}),
        dataset_digest=worker.inputs.dataset_digest,
        train_file_digest=worker.inputs.train.digest,
        base_weights_digest=base.weights_digest or "",
        tokenizer_digest="sha256:t",
        base_config_digest="sha256:c",
        chat_template_digest=worker.inputs.chat_template_digest,
        data_order_digest="sha256:o",
        package_versions={"jax": "1"},
        runtime_settings={"XLA_FLAGS": ""},
        device="cpu",
        mesh={"fsdp": 1},
        code_revision=worker.code_revision,
    )
    (folder / "manifest.json").write_bytes(canonical_json(manifest.model_dump(mode="json")))
    job.emit("checkpoint", step=number, folder=f"checkpoints/{number}")


def _pairs() -> dict[str, tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    """A and B for one kind of projection of ``support.tiny_model``, so wide that they are sent in pieces."""
    random = np.random.default_rng(1)
    return {
        f"model.layers.{layer}.self_attn.q_proj": (
            random.standard_normal((RANK, _WIDTH), dtype=np.float32),
            random.standard_normal((_WIDTH, RANK), dtype=np.float32),
        )
        for layer in range(_LAYERS)
    }


if __name__ == "__main__":
    sys.exit(run_worker(work))

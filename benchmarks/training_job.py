"""One training job in its own process, as the trainer starts it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil

from benchmarks.measure import peak_rss
from benchmarks.training_peer import Answer, Task
from tunix_rt_kit.canonical import canonical_json, digest_bytes
from tunix_rt_kit.chat import ChatTemplate
from tunix_rt_kit.jobs.process import WorkerProcess
from tunix_rt_kit.loss_mask import TextExample
from tunix_rt_kit.models.runtime import child_environment
from tunix_rt_kit.values import ChatTemplateFields
from tunix_rt_trainer.jobs.model import (
    LoraConfig,
    OptimizerConfig,
    SplitFile,
    TrainingInput,
    TrainingSpec,
    WorkerSpec,
)

DATASET_DIGEST: Final = "sha256:benchmark"
SEED: Final = 1
_MODULE: Final = "tunix_rt_trainer.worker"
_LONGEST_S: Final = 7_200.0


@dataclass(frozen=True, slots=True)
class Job:
    """What a job measured, and the folder of its last checkpoint.

    ``outside_steps`` is the time between two steps (batches, events) over the time of the steps.
    """

    answer: Answer
    outside_steps: float
    checkpoint: Path

    @property
    def weights(self) -> bytes:
        """The adapter that it left."""
        return (self.checkpoint / "adapter_model.safetensors").read_bytes()


def _row(example: TextExample) -> dict[str, str]:
    prompt, response = (segment.text for segment in example.segments)
    return {"id": example.id, "prompt": prompt, "response": response}


def train(folder: Path, task: Task, examples: Sequence[TextExample], steps: int, cache: Path) -> Job:
    """Run a job of ``steps`` steps in ``folder``, of which ``task.warmup`` do not count.

    Raises RuntimeError with the last lines of its log if it fails.
    """
    process = WorkerProcess(_MODULE, folder, env=environment(cache))
    data = b"".join(canonical_json(_row(example)) + b"\n" for example in examples)
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "train.jsonl").write_bytes(data)
    process.start(_spec(task, steps, SplitFile(digest=digest_bytes(data), row_count=len(examples))))
    assert process.pid is not None
    with peak_rss({"worker": psutil.Process(process.pid)}) as peaks:
        code = process.wait(_LONGEST_S)
    if code:
        process.kill()
        tail = "\n".join(process.log_tail())
        raise RuntimeError(f"the training process ended with {code}:\n{tail}")
    return _job(process, task, peaks["worker"])


def environment(cache: Path) -> dict[str, str]:
    """What the trainer adds to the environment of a training process."""
    return child_environment(cache)


def tunables() -> str:
    """``GLIBC_TUNABLES`` of a training process."""
    return environment(Path()).get("GLIBC_TUNABLES", os.environ.get("GLIBC_TUNABLES", ""))


def _job(process: WorkerProcess, task: Task, peak_rss_mb: float) -> Job:
    events = process.events()
    told = [event for event in events if event["kind"] == "metrics"]
    steps = told[task.warmup :]
    (*_, checkpoint) = (event["folder"] for event in events if event["kind"] == "checkpoint")
    measured = Answer(
        [step["step_duration_s"] for step in steps],
        [step["supervised_tokens"] for step in steps],
        [step["loss"] for step in steps],
        peak_rss_mb,
    )
    computing = sum(step["step_duration_s"] for step in told[1:])
    elapsed = told[-1]["time"] - told[0]["time"]
    return Job(measured, elapsed / computing - 1 if computing else 0.0, process.path / checkpoint)


def _spec(task: Task, steps: int, file: SplitFile) -> dict[str, Any]:
    template = ChatTemplate.built_in("chatml")
    spec = TrainingSpec(
        base_model=task.base_model,
        dataset="datasets/benchmark@1",
        lora=LoraConfig(rank=task.rank, alpha=task.alpha, target_modules=task.target_modules),
        optimizer=OptimizerConfig(
            learning_rate=task.learning_rate,
            schedule="constant",
            warmup_steps=0,
            weight_decay=0.0,
            beta1=0.9,
            beta2=0.999,
            epsilon=1e-8,
            max_grad_norm=0.0,
        ),
        max_steps=steps,
        rows_per_batch=task.rows_per_batch,
        max_length=task.length,
        packing=task.packing,
        dtype=task.dtype,
        seed=SEED,
        validation_interval_steps=0,
    )
    inputs = TrainingInput(
        dataset_digest=DATASET_DIGEST,
        chat_template=ChatTemplateFields(builtin="chatml"),
        chat_template_digest=template.digest,
        turn_markers=template.markers,
        train=file,
        validation=None,
    )
    worker = WorkerSpec(
        job_name="trainingJobs/benchmark",
        spec=spec,
        inputs=inputs,
        attempt=1,
        models_dir=str(Path(task.base_model).parent),
        train_file="data/train.jsonl",
        validation_file=None,
        code_revision="benchmark",
    )
    return worker.model_dump(mode="json")

"""The folder of a training job, for tests that do the job in this process or in one of its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.training import CHATML, rows, write_rows
from tunix_rt_kit.canonical import canonical_json
from tunix_rt_kit.jobs.child import JobDir
from tunix_rt_kit.values import ChatTemplateFields
from tunix_rt_trainer.checkpoints.model import TrainingManifest
from tunix_rt_trainer.jobs.model import (
    LoraConfig,
    OptimizerConfig,
    SplitFile,
    TrainingInput,
    TrainingSpec,
    WorkerSpec,
)
from tunix_rt_trainer.worker.train import run

OPTIMIZER = OptimizerConfig(
    learning_rate=0.02,
    schedule="constant",
    warmup_steps=0,
    weight_decay=0.0,
    beta1=0.9,
    beta2=0.999,
    epsilon=1e-8,
    max_grad_norm=1.0,
)
"""Its program is that of jobs of any number of steps, and is compiled once for them all."""
LINEAR = OPTIMIZER.model_copy(update={"schedule": "linear"})
SPEC = TrainingSpec(
    base_model="tiny",
    dataset="datasets/sums@1",
    lora=LoraConfig(rank=4, alpha=8.0, target_modules=("q_proj", "v_proj", "up_proj", "down_proj")),
    optimizer=OPTIMIZER,
    max_steps=6,
    rows_per_batch=4,
    max_length=128,
    packing=True,
    dtype="float32",
    seed=11,
    validation_interval_steps=4,
)


class Killed(BaseException):
    """What stands for the end of a process: nothing that the worker does handles it."""


class JobFolder:
    """A job's folder, and what the job left in it.

    Args:
        path: the folder.
        models: folder of the base models.
        changed: fields of ``SPEC`` that are set otherwise; ``markers`` are the chat template's turn markers,
            ``validation`` False leaves the validation split out.
    """

    def __init__(self, path: Path, models: Path, **changed: Any) -> None:
        self.path = path
        train = SplitFile(digest=write_rows(path / "data" / "train.jsonl", rows(40)), row_count=40)
        held_out = write_rows(path / "data" / "validation.jsonl", rows(6, start=40))
        markers, validated = changed.pop("markers", CHATML.markers), changed.pop("validation", True)
        inputs = TrainingInput(
            dataset_digest="sha256:d",
            chat_template=ChatTemplateFields(builtin="chatml"),
            chat_template_digest=CHATML.digest,
            turn_markers=markers,
            train=train,
            validation=SplitFile(digest=held_out, row_count=6) if validated else None,
        )
        self.worker = WorkerSpec(
            job_name="trainingJobs/a",
            spec=SPEC.model_copy(update=changed),
            inputs=inputs,
            attempt=0,
            models_dir=str(models),
            train_file="data/train.jsonl",
            validation_file="data/validation.jsonl" if validated else None,
            code_revision="0.0.0+test",
        )
        self.next_attempt()

    def next_attempt(self, **changed: Any) -> None:
        """Put the spec of the next attempt there; ``changed`` are fields of the worker's spec."""
        changed.setdefault("attempt", self.worker.attempt + 1)
        self.worker = self.worker.model_copy(update=changed)
        (self.path / "cancel").unlink(missing_ok=True)
        (self.path / "spec.json").write_bytes(canonical_json(self.worker.model_dump(mode="json")))

    def train(self, before: Callable[[str, dict[str, Any]], None] | None = None) -> None:
        """Do the job in this process; ``before`` sees each event before it is written, and may end it."""
        job = JobDir(self.path)
        emit = job.emit

        def told(kind: str, **fields: Any) -> None:
            if before is not None:
                before(kind, fields)
            emit(kind, **fields)

        job.emit = told  # type: ignore[method-assign]
        run(job)

    def events(self, kind: str) -> list[dict[str, Any]]:
        """The events of a kind, of all attempts."""
        lines = (self.path / "events.jsonl").read_text().splitlines()
        return [event for event in map(json.loads, lines) if event["kind"] == kind]

    @property
    def checkpoint(self) -> Path:
        """The folder of the checkpoint that was told of last."""
        return self.path / str(self.events("checkpoint")[-1]["folder"])

    def manifest(self) -> TrainingManifest:
        """The manifest of that checkpoint."""
        return TrainingManifest.model_validate_json((self.checkpoint / "manifest.json").read_bytes())

    def contents(self) -> dict[str, bytes]:
        """The bytes of the files of that checkpoint, by name."""
        return {file.name: file.read_bytes() for file in self.checkpoint.iterdir()}

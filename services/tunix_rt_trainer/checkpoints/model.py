"""Checkpoints: the weights that a job left at a step, and what they were made of."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final, Literal

from tunix_rt_kit.values import ChatTemplateFields, DeleteTime, Filter, StoredFile, Value, Wanted
from tunix_rt_trainer.jobs.model import TrainingSpec

ExportFormat = Literal["peft", "hugging_face"]

METRICS_FILE: Final = "metrics.jsonl"
LEDGER_FILE: Final = "ledger.jsonl"
MANIFEST_FILE: Final = "manifest.json"
RECORDS: Final = (METRICS_FILE, LEDGER_FILE)
"""Files beside the weights that say how they came about."""


def checkpoint_name(job_id: str, step: int) -> str:
    """The resource name of a checkpoint."""
    return f"trainingJobs/{job_id}/checkpoints/{step}"


def is_weights(path: str) -> bool:
    """Whether a file of a checkpoint belongs to its weights."""
    return path not in (*RECORDS, MANIFEST_FILE)


class TrainingManifest(Value):
    """Everything that can change the result of a job."""

    training_job: str
    spec: TrainingSpec
    dataset_digest: str
    train_file_digest: str
    base_weights_digest: str
    tokenizer_digest: str
    base_config_digest: str
    chat_template_digest: str
    data_order_digest: str
    package_versions: Mapping[str, str]
    runtime_settings: Mapping[str, str]
    device: str
    mesh: Mapping[str, int]
    code_revision: str


class Checkpoint(Value):
    """Weights that a job left at a step; ``digest`` covers the weight files alone."""

    job_id: str
    step: int
    digest: str
    files: tuple[StoredFile, ...]
    manifest: TrainingManifest
    manifest_file: StoredFile
    chat_template: ChatTemplateFields
    create_time: datetime
    delete_time: DeleteTime = None


class CheckpointFilter(Filter):
    """Which checkpoints: those that meet every condition that is set."""

    order_fields = ("create_time", "step", "base_model", "dataset")

    show_deleted: bool = False
    base_models: Wanted = ()
    datasets: Wanted = ()

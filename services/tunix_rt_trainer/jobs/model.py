"""What the trainer knows: jobs, specs, metrics, checkpoints, manifests. Plain values, free of transport."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Final, Literal, get_args

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from tunix_rt_kit.values import (
    AskedDtype,
    ChatTemplateFields,
    DeleteTime,
    JobError,
    JobState,
    Labelled,
    ListFilter,
    Progress,
    Seed,
    StageTiming,
    Value,
    Wanted,
)

Schedule = Literal["constant", "linear", "cosine"]
Method = Literal["lora", "qlora", "full"]
Remat = Literal["none", "dots", "full"]
MetricsSink = Literal["tensorboard", "mlflow", "wandb"]

TargetModule = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
Finite = Annotated[float, Field(allow_inf_nan=False)]

TARGET_MODULES: Final = get_args(TargetModule)
MAX_ROWS: Final = 1_024
"""Rows that one optimizer step may learn from."""
TRAIN_SPLIT = "train"
VALIDATION_SPLIT = "validation"


def _in_order(modules: tuple[str, ...]) -> tuple[str, ...]:
    for index, name in enumerate(modules):
        if name in modules[:index]:
            raise PydanticCustomError(
                "twice", "{name} is named twice", {"path": (index,), "name": repr(name)}
            )
    return tuple(name for name in TARGET_MODULES if name in modules or not modules)


def _base_model(name: str) -> str:
    if not name:
        raise PydanticCustomError("empty", "is empty; name a base model, see ListBaseModels")
    if len(name) > 4_096 or "\0" in name:
        raise PydanticCustomError(
            "name", "{name}... is not a base model's id and not a path", {"name": repr(name[:40])}
        )
    return name


def _dataset(name: str) -> str:
    if not re.fullmatch(r"datasets/[a-z0-9][a-z0-9._-]{0,63}@[a-z0-9][a-z0-9._-]{0,31}", name):
        raise PydanticCustomError(
            "name",
            "{name} is not of the form datasets/{{dataset_id}}@{{version}}",
            {"name": repr(name[:120])},
        )
    return name


class LoraConfig(Value):
    """A low-rank adapter (LoRA, arXiv:2106.09685); its product is scaled by ``alpha / rank``.

    ``target_modules`` stand in the order of a layer; none named means all seven.
    """

    rank: int = Field(16, ge=1, le=1_024)
    alpha: Finite = Field(default_factory=lambda given: 2.0 * given["rank"], gt=0)
    target_modules: Annotated[tuple[TargetModule, ...], AfterValidator(_in_order)] = TARGET_MODULES


class OptimizerConfig(Value):
    """AdamW (arXiv:1711.05101) and its learning rate; ``max_grad_norm`` 0 means no clipping."""

    learning_rate: Finite = Field(1e-3, gt=0, le=1)
    schedule: Schedule = "linear"
    warmup_steps: int = Field(0, ge=0)
    weight_decay: Finite = Field(0.0, ge=0)
    beta1: Finite = Field(0.9, ge=0, lt=1)
    beta2: Finite = Field(0.999, ge=0, lt=1)
    epsilon: Finite = Field(1e-8, gt=0)
    max_grad_norm: Finite = Field(1.0, ge=0)


class EarlyStopping(Value):
    """Ends training after ``patience`` validations in a row whose loss fell by no more than ``min_delta``."""

    patience: int = Field(3, ge=1)
    min_delta: Finite = Field(0.0, ge=0)


class MeshShape(Value):
    """How many devices share rows and slices of the weights (fsdp), and each layer's width (tp)."""

    fsdp: int = Field(1, ge=1, le=65_536)
    tp: int = Field(1, ge=1, le=65_536)


class TrainingSpec(Value):
    """What to train. The limits and defaults of its fields stand here alone.

    A field that the contract got later has here what the jobs before it did. ``lora`` is None exactly when
    ``method`` is "full". ``max_steps`` None means ``epochs`` passes over the training split, and is replaced
    when the worker has counted them; ``dtype`` "auto" is replaced when it has chosen. A batch of
    ``rows_per_batch`` rows is computed in ``gradient_accumulation_steps`` microbatches.
    """

    base_model: Annotated[str, AfterValidator(_base_model)]
    dataset: Annotated[str, AfterValidator(_dataset)]
    method: Method = "lora"
    lora: LoraConfig | None
    optimizer: OptimizerConfig = Field(default_factory=OptimizerConfig)
    max_steps: int | None = Field(None, ge=1, le=1_000_000_000)
    epochs: Finite | None = Field(None, gt=0, le=10_000)
    rows_per_batch: int = Field(8, ge=1, le=MAX_ROWS)
    gradient_accumulation_steps: int = Field(1, ge=1)
    max_length: int = Field(256, ge=16)
    packing: bool = True
    dtype: AskedDtype = "auto"
    remat: Remat = "dots"
    seed: Seed = 0
    validation_interval_steps: int = Field(0, ge=0)
    checkpoint_interval_steps: int = Field(0, ge=0)
    keep_best_checkpoint: bool = False
    early_stopping: EarlyStopping | None = None
    mesh: MeshShape = MeshShape()


class StepMetrics(Value):
    """What one optimizer step measured: losses in nats a token, times in seconds."""

    step: int
    epoch: float = 0.0
    loss: float
    learning_rate: float
    grad_norm: float
    supervised_tokens: int
    tokens: int
    tokens_per_second: float
    supervised_tokens_per_second: float = 0.0
    step_duration_s: float
    eta_s: float | None = None
    validation_loss: float | None = None


class TrainingAttempt(Value):
    """One start of a job; ``resumed_from_step`` 0 means from the beginning."""

    number: int
    resumed_from_step: int = 0
    start_time: datetime


class TrainingJob(Labelled):
    """One fine-tuning of a base model on a dataset.

    ``checkpoint_step`` is that of the latest checkpoint, ``best_checkpoint_step`` that of the one with the
    lowest validation loss.
    """

    id: str
    spec: TrainingSpec
    state: JobState
    error: JobError | None = None
    progress: Progress | None = None
    latest_metrics: StepMetrics | None = None
    dataset_digest: str
    chat_template_digest: str
    checkpoint_step: int | None = None
    best_checkpoint_step: int | None = None
    attempt_count: int = 0
    attempts: tuple[TrainingAttempt, ...] = ()
    create_time: datetime
    start_time: datetime | None = None
    end_time: datetime | None = None
    stage_timings: tuple[StageTiming, ...] = ()
    delete_time: DeleteTime = None


class TrainingJobFilter(ListFilter):
    """Which jobs a list has."""

    order_fields = ("create_time", "display_name", "state", "base_model", "dataset", "loss")

    states: tuple[JobState, ...] = ()
    base_models: Wanted = ()
    datasets: Wanted = ()


class SplitFile(Value):
    """The file of training examples of one split."""

    digest: str
    row_count: int


class DatasetInput(Value):
    """What the trainer needs to know of a dataset.

    ``state`` is the name of its state (``SUCCEEDED``), ``turn_markers`` are the texts of its chat template
    that must be single tokens of the tokenizer, ``splits`` the files of training examples by split.
    """

    name: str
    state: str
    digest: str
    chat_template: ChatTemplateFields
    chat_template_digest: str
    turn_markers: tuple[str, ...]
    splits: Mapping[str, SplitFile]


class FoundRows(Value):
    """How many rows an audit found something about, and the ids of the first of them."""

    row_count: int
    first_ids: tuple[str, ...]


class SplitFindings(Value):
    """What an audit tells of a split: its size, and the rows that stand against training on it.

    ``packed_rows`` is how many sequences of the audit's length its rows need.
    """

    row_count: int
    token_count: int
    supervised_tokens: int
    packed_rows: int
    truncated: FoundRows
    unsupervised: FoundRows
    end_unsupervised: FoundRows
    target_lost: FoundRows
    special_token: FoundRows
    supervised_elsewhere: FoundRows
    end_mark_masked: FoundRows


class TrainingInput(Value):
    """What a job was given when it was admitted, kept so that it can be started again."""

    dataset_digest: str
    chat_template: ChatTemplateFields
    chat_template_digest: str
    turn_markers: tuple[str, ...]
    train: SplitFile
    validation: SplitFile | None


@dataclass(frozen=True, slots=True)
class QueuedJob:
    """A job and what it was given."""

    job: TrainingJob
    inputs: TrainingInput


@dataclass(frozen=True, slots=True)
class JobUpdate:
    """How far a job has come.

    ``spec`` is set where a default was filled in meanwhile, ``attempts`` where the present one has told what
    it resumes from.
    """

    progress: Progress | None
    latest_metrics: StepMetrics | None
    stage_timings: tuple[StageTiming, ...]
    spec: TrainingSpec | None = None
    attempts: tuple[TrainingAttempt, ...] = ()


class WorkerSpec(Value):
    """What the child process is told; ``attempt`` counts its starts from 1.

    ``train_file`` and ``validation_file`` lie in the job's folder and have the digests of ``inputs``. What
    other jobs can use too is kept in ``cache_dir``, unless it is empty.
    """

    job_name: str
    spec: TrainingSpec
    inputs: TrainingInput
    attempt: int
    models_dir: str
    train_file: str
    validation_file: str | None
    code_revision: str
    metrics_to: tuple[MetricsSink, ...] = ()
    cache_dir: str = ""


class TrainingSpeed(Value):
    """How fast this host trains, measured on made-up rows; durations in seconds.

    ``step_duration_s`` is that of a whole step, though ``rows`` may be fewer than a batch has. ``busy``: jobs
    ran meanwhile.
    """

    step_duration_s: float
    load_duration_s: float
    compile_duration_s: float
    rows: int
    steps: int
    measured_duration_s: float
    dtype: str
    device: str
    busy: bool = False


def job_name(job_id: str) -> str:
    """The resource name of a job."""
    return f"trainingJobs/{job_id}"


class JobLine(Value):
    """A numbered event of a job, from 1: the metrics of a step, a line for people or a saved checkpoint."""

    number: int
    metrics: StepMetrics | None = None
    log_line: str | None = None
    checkpoint_step: int | None = None


class TrainingPlan(Value):
    """What a job would do; ``memory_bytes`` is a rough peak of its process by item."""

    spec: TrainingSpec
    train_examples: int
    validation_examples: int
    rows_per_epoch: int
    steps_per_epoch: int
    train_tokens: int
    supervised_tokens: int
    packing_efficiency: float
    trainable_parameters: int
    base_parameters: int
    memory_bytes: Mapping[str, int]

"""What the trainer knows: jobs, specs, metrics, checkpoints, manifests. Plain values, free of transport."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer

AskedDtype = Literal["auto", "bfloat16", "float32"]
Schedule = Literal["constant", "linear", "cosine"]
Method = Literal["lora", "qlora", "full"]
Remat = Literal["none", "dots", "full"]
ExportFormat = Literal["peft", "hugging_face"]
MetricsSink = Literal["tensorboard", "mlflow", "wandb"]
# JSON holds integers up to 2**53 only; a seed has 64 bits.
Seed = Annotated[int, Field(ge=0, lt=1 << 64), PlainSerializer(str, return_type=str, when_used="json")]

TRAIN_SPLIT = "train"
VALIDATION_SPLIT = "validation"


class Value(BaseModel):
    """A value: never changed, unknown fields refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class JobState(StrEnum):
    """Where a job stands."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    CANCELLING = "CANCELLING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def ended(self) -> bool:
        """Whether nothing can follow."""
        return self in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)


class LoraConfig(Value):
    """A low-rank adapter (LoRA, arXiv:2106.09685); its product is scaled by ``alpha / rank``."""

    rank: int
    alpha: float
    target_modules: tuple[str, ...]


class OptimizerConfig(Value):
    """AdamW (arXiv:1711.05101) and its learning rate; ``max_grad_norm`` 0 means no clipping."""

    learning_rate: float
    schedule: Schedule
    warmup_steps: int
    weight_decay: float
    beta1: float
    beta2: float
    epsilon: float
    max_grad_norm: float


class EarlyStopping(Value):
    """Ends training after ``patience`` validations in a row whose loss fell by no more than ``min_delta``."""

    patience: int
    min_delta: float


class MeshShape(Value):
    """How many devices share rows and slices of the weights (fsdp), and each layer's width (tp)."""

    fsdp: int = 1
    tp: int = 1


class TrainingSpec(Value):
    """What to train, with every default filled in.

    ``lora`` is None exactly when ``method`` is "full". ``max_steps`` None means ``epochs`` passes over the
    training split, and is replaced when the worker has counted them; ``dtype`` "auto" is replaced when it has
    chosen. A batch of ``rows_per_batch`` rows is
    computed in ``gradient_accumulation_steps`` parts.
    """

    base_model: str
    dataset: str
    method: Method = "lora"
    lora: LoraConfig | None
    optimizer: OptimizerConfig
    max_steps: int | None
    epochs: float | None = None
    rows_per_batch: int
    gradient_accumulation_steps: int = 1
    max_length: int
    packing: bool
    dtype: AskedDtype
    remat: Remat = "dots"
    seed: Seed
    validation_interval_steps: int
    checkpoint_interval_steps: int = 0
    keep_best_checkpoint: bool = False
    early_stopping: EarlyStopping | None = None
    mesh: MeshShape = MeshShape()


class TrainingSpecDraft(Value):
    """What a caller asks for, unchecked; None where a field was left out.

    ``schedule``, ``dtype``, ``method`` and ``remat`` hold a name of theirs or, for a number that the contract
    does not name, its digits. ``has_lora`` tells whether an adapter was spoken of at all.
    """

    base_model: str = ""
    dataset: str = ""
    method: str = "lora"
    has_lora: bool = False
    rank: int | None = None
    alpha: float | None = None
    target_modules: tuple[str, ...] = ()
    learning_rate: float | None = None
    schedule: str = "linear"
    warmup_steps: int | None = None
    weight_decay: float | None = None
    beta1: float | None = None
    beta2: float | None = None
    epsilon: float | None = None
    max_grad_norm: float | None = None
    max_steps: int | None = None
    epochs: float | None = None
    rows_per_batch: int | None = None
    tokens_per_batch: int | None = None
    gradient_accumulation_steps: int | None = None
    max_length: int | None = None
    packing: bool | None = None
    dtype: str = "auto"
    remat: str = "dots"
    seed: int = 0
    validation_interval_steps: int | None = None
    checkpoint_interval_steps: int | None = None
    keep_best_checkpoint: bool = False
    stops_early: bool = False
    patience: int | None = None
    min_delta: float | None = None
    fsdp: int | None = None
    tp: int | None = None


class Progress(Value):
    """How far a stage has come: ``completed`` of ``total`` (0: unknown) units; ``eta_s`` in seconds."""

    stage: str
    completed: int = 0
    total: int = 0
    unit: str = ""
    eta_s: float | None = None


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
    eta_s: float
    validation_loss: float | None = None


class StageTiming(Value):
    """Wall time of a finished stage in seconds."""

    stage: str
    duration_s: float


class JobError(Value):
    """Why a job failed: the name of a canonical code, the reason, one clear line, further facts."""

    code: str
    reason: str
    message: str
    metadata: Mapping[str, str] = Field(default_factory=dict)


class TrainingAttempt(Value):
    """One start of a job; ``resumed_from_step`` 0 means from the beginning."""

    number: int
    resumed_from_step: int = 0
    start_time: datetime


class TrainingJob(Value):
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


class ChatTemplateFields(Value):
    """A chat template as it is sent and stored; the kit's ``ChatTemplate`` renders it."""

    builtin: str | None = None
    jinja: str | None = None
    bos_token: str = ""
    eos_token: str = ""
    system_instruction: str = ""


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


class TrainingInput(Value):
    """What a job was given when it was admitted, kept so that it can be started again."""

    dataset_digest: str
    chat_template: ChatTemplateFields
    chat_template_digest: str
    turn_markers: tuple[str, ...]
    train: SplitFile
    validation: SplitFile | None


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


class CheckpointFile(Value):
    """One file of a checkpoint; ``uri`` is where the artifact store keeps it."""

    path: str
    size_bytes: int
    digest: str
    uri: str


class Checkpoint(Value):
    """Weights that a job left at a step; ``digest`` covers the weight files alone."""

    job_id: str
    step: int
    digest: str
    files: tuple[CheckpointFile, ...]
    manifest: TrainingManifest
    manifest_file: CheckpointFile
    chat_template: ChatTemplateFields
    create_time: datetime


class BaseModelSummary(Value):
    """A base model; what is unknown until it is on the host is empty or 0.

    ``path`` is its folder, ``chat_template`` its own template, if it has one, with its digest,
    ``tokenizer_file`` its tokenizer.json in the artifact store, ``special_tokens`` those that are no text.
    """

    id: str
    available: bool
    family: str
    parameter_count: int
    context_length: int
    license: str
    weights_digest: str
    tokenizer_digest: str
    path: str
    tokenizer_file: CheckpointFile | None
    chat_template: ChatTemplateFields | None
    chat_template_digest: str
    special_tokens: tuple[str, ...] = ()


class JobLine(Value):
    """A numbered event of a job, from 1: the metrics of a step, a line for people or a saved checkpoint."""

    number: int
    metrics: StepMetrics | None = None
    log_line: str | None = None
    checkpoint_step: int | None = None


class Projection(Value):
    """One linear projection of a model: the last part of its name, its inputs and its outputs."""

    module: str
    inputs: int
    outputs: int


class BaseModelShape(Value):
    """What a plan needs to know of a base model; ``projections`` are those of all layers."""

    parameter_count: int
    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    projections: tuple[Projection, ...]


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

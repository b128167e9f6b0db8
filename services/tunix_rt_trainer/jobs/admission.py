"""Checks what a caller asks for and fills in the defaults."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Final, TypeVar, get_args

from tunix_rt_kit.errors import FailedPrecondition, FieldViolation, InvalidArgument
from tunix_rt_kit.serving.validation import Violations
from tunix_rt_trainer.jobs.model import (
    TRAIN_SPLIT,
    VALIDATION_SPLIT,
    AskedDtype,
    BaseModelSummary,
    DatasetInput,
    EarlyStopping,
    LoraConfig,
    MeshShape,
    Method,
    OptimizerConfig,
    Remat,
    Schedule,
    SplitFindings,
    TrainingInput,
    TrainingSpec,
    TrainingSpecDraft,
)
from tunix_rt_trainer.jobs.plan import planned_steps
from tunix_rt_trainer.jobs.unlearnable import LOST, NO_END, NO_RESPONSE, SPECIAL, refusal, too_long

TARGET_MODULES: Final = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
MAX_RANK: Final = 1_024
MAX_ROWS: Final = 1_024
MIN_LENGTH: Final = 16
MAX_BASE_MODEL: Final = 4_096
MAX_STEPS: Final = 1_000_000_000
MAX_EPOCHS: Final = 10_000
MAX_DEVICES: Final = 65_536
SPEC_INVALID: Final = "TRAINING_SPEC_INVALID"

T = TypeVar("T")

_DATASET: Final = re.compile(r"datasets/[a-z0-9][a-z0-9._-]{0,63}@[a-z0-9][a-z0-9._-]{0,31}")


def checked_spec(draft: TrainingSpecDraft) -> TrainingSpec:
    """The spec with every default filled in.

    Raises:
        InvalidArgument: TRAINING_SPEC_INVALID, naming every wrong field as ``spec...``.
    """
    wrong = Violations()
    _check_texts(draft, wrong)
    lora = _lora(draft, wrong)
    optimizer = _optimizer(draft, wrong)
    length = _value(draft.max_length, 256)
    wrong.check(length >= MIN_LENGTH, "spec.max_length", f"{length} is below {MIN_LENGTH}")
    rows = _rows(draft, length, wrong)
    parts = _parts(draft, rows, wrong)
    epochs = _epochs(draft, optimizer, wrong)
    interval = _interval(draft.validation_interval_steps, 0, "spec.validation_interval_steps", wrong)
    saved = _interval(draft.checkpoint_interval_steps, 50, "spec.checkpoint_interval_steps", wrong)
    stopping = _early_stopping(draft, interval, wrong)
    mesh = _mesh(draft, rows // max(parts, 1), wrong)
    wrong.raise_if_any(SPEC_INVALID)
    return TrainingSpec(
        base_model=draft.base_model,
        dataset=draft.dataset,
        method=_named(draft.method, Method),
        lora=lora,
        optimizer=optimizer,
        max_steps=draft.max_steps,
        epochs=epochs,
        rows_per_batch=rows,
        gradient_accumulation_steps=parts,
        max_length=length,
        packing=draft.packing is not False,
        dtype=_named(draft.dtype, AskedDtype),
        remat=_named(draft.remat, Remat),
        seed=draft.seed,
        validation_interval_steps=interval,
        checkpoint_interval_steps=saved,
        keep_best_checkpoint=draft.keep_best_checkpoint,
        early_stopping=stopping,
        mesh=mesh,
    )


def check_model(spec: TrainingSpec, model: BaseModelSummary) -> None:
    """Raises InvalidArgument(TRAINING_SPEC_INVALID) if rows are longer than what the model takes."""
    if spec.max_length > model.context_length:
        description = (
            f"{spec.max_length} is more than the {model.context_length} tokens that {model.id} takes"
        )
        raise InvalidArgument(
            f"spec.max_length: {description}",
            reason=SPEC_INVALID,
            violations=[FieldViolation("spec.max_length", description)],
        )


def training_input(dataset: DatasetInput) -> TrainingInput:
    """What a job takes of a dataset.

    Raises:
        FailedPrecondition: DATASET_NOT_READY, its build has not succeeded; DATASET_EMPTY, there is nothing
        to learn.
    """
    if dataset.state != "SUCCEEDED":
        raise FailedPrecondition(
            f"spec.dataset: {dataset.name} is {dataset.state}; it must be SUCCEEDED",
            reason="DATASET_NOT_READY",
            metadata={"dataset": dataset.name, "state": dataset.state},
        )
    train, validation = dataset.splits.get(TRAIN_SPLIT), dataset.splits.get(VALIDATION_SPLIT)
    if train is None or not train.row_count:
        found = ", ".join(f"{name} ({split.row_count} rows)" for name, split in dataset.splits.items())
        raise FailedPrecondition(
            f"spec.dataset: {dataset.name} has no rows in a split {TRAIN_SPLIT!r}; "
            f"it has {found or 'no splits'}",
            reason="DATASET_EMPTY",
            metadata={"dataset": dataset.name},
        )
    return TrainingInput(
        dataset_digest=dataset.digest,
        chat_template=dataset.chat_template,
        chat_template_digest=dataset.chat_template_digest,
        turn_markers=dataset.turn_markers,
        train=train,
        validation=validation if validation is not None and validation.row_count else None,
    )


def check_validation(spec: TrainingSpec, inputs: TrainingInput) -> None:
    """Raises InvalidArgument(TRAINING_SPEC_INVALID) if a validation loss is needed and cannot be measured."""
    if inputs.validation is not None:
        return
    wrong = Violations()
    for field, asked in (
        ("spec.keep_best_checkpoint", spec.keep_best_checkpoint),
        ("spec.early_stopping", spec.early_stopping is not None),
    ):
        wrong.check(
            not asked, field, f"needs a split {VALIDATION_SPLIT!r}, which {spec.dataset} does not have"
        )
    wrong.raise_if_any(SPEC_INVALID)


def check_warmup(spec: TrainingSpec, findings: Mapping[str, SplitFindings]) -> None:
    """Raises InvalidArgument(TRAINING_SPEC_INVALID) if the warm-up is as long as the training."""
    steps, warmup = planned_steps(spec, findings[TRAIN_SPLIT]), spec.optimizer.warmup_steps
    wrong = Violations()
    problem = f"{warmup} is not below the {steps} steps that the job would take"
    wrong.check(warmup < steps, "spec.optimizer.warmup_steps", problem)
    wrong.raise_if_any(SPEC_INVALID)


def check_supervision(
    spec: TrainingSpec, inputs: TrainingInput, findings: Mapping[str, SplitFindings]
) -> None:
    """Refuse a dataset with rows that cannot be learned as they are, and name them.

    Raises:
        FailedPrecondition: EXAMPLE_TOO_LONG, EXAMPLE_WITHOUT_RESPONSE, END_NOT_SUPERVISED, TARGET_LOST or
        SPECIAL_TOKEN_IN_TEXT.
    """
    splits = [TRAIN_SPLIT] if inputs.validation is None else [TRAIN_SPLIT, VALIDATION_SPLIT]
    for split in splits:
        found = findings[split]
        for problem, rows in (
            (too_long(spec.max_length), found.truncated),
            (NO_RESPONSE, found.unsupervised),
            (NO_END, found.end_unsupervised),
            (LOST, found.target_lost),
            (SPECIAL, found.special_token),
        ):
            if rows.row_count:
                first = rows.first_ids[0]
                raise refusal(problem, split, rows.row_count, first, rows.first_ids, spec.dataset)


def _check_texts(draft: TrainingSpecDraft, wrong: Violations) -> None:
    name = draft.base_model
    if wrong.check(bool(name), "spec.base_model", "is empty; name a base model, see ListBaseModels"):
        wrong.check(
            len(name) <= MAX_BASE_MODEL and "\0" not in name,
            "spec.base_model",
            f"{name[:40]!r}... is not a base model's id and not a path",
        )
    wrong.check(
        _DATASET.fullmatch(draft.dataset) is not None,
        "spec.dataset",
        f"{draft.dataset[:120]!r} is not of the form datasets/{{dataset_id}}@{{version}}",
    )
    for field, value, known in (
        ("spec.dtype", draft.dtype, get_args(AskedDtype)),
        ("spec.method", draft.method, get_args(Method)),
        ("spec.remat", draft.remat, get_args(Remat)),
        ("spec.optimizer.schedule", draft.schedule, get_args(Schedule)),
    ):
        wrong.check(value in known, field, f"{value} is unknown; one of {', '.join(known)} would be right")


def _rows(draft: TrainingSpecDraft, length: int, wrong: Violations) -> int:
    tokens, rows = draft.tokens_per_batch, _value(draft.rows_per_batch, 8)
    if tokens is None:
        wrong.check(1 <= rows <= MAX_ROWS, "spec.rows_per_batch", f"{rows} is not within 1 and {MAX_ROWS:,}")
        return rows
    field = "spec.tokens_per_batch"
    wrong.check(
        draft.rows_per_batch is None,
        field,
        f"{tokens} is given beside rows_per_batch, which is {rows}; give one of them",
    )
    right = length > 0 and tokens % length == 0 and 1 <= tokens // length <= MAX_ROWS
    wrong.check(
        right, field, f"{tokens} is not a multiple of max_length ({length}), one to {MAX_ROWS:,} times that"
    )
    return tokens // length if right else 1


def _parts(draft: TrainingSpecDraft, rows: int, wrong: Violations) -> int:
    parts = _value(draft.gradient_accumulation_steps, 1)
    wrong.check(
        parts >= 1 and rows % parts == 0,
        "spec.gradient_accumulation_steps",
        f"{parts} does not divide the {rows} rows of a batch",
    )
    return parts


def _epochs(draft: TrainingSpecDraft, optimizer: OptimizerConfig, wrong: Violations) -> float | None:
    steps, epochs = draft.max_steps, draft.epochs
    if epochs is not None:
        wrong.check(
            math.isfinite(epochs) and 0 < epochs <= MAX_EPOCHS,
            "spec.epochs",
            f"{epochs} is not above 0 and at most {MAX_EPOCHS:,}",
        )
        wrong.check(
            steps is None,
            "spec.epochs",
            f"{epochs} is given beside max_steps, which is {steps}; give one of them",
        )
    if steps is None:
        return _value(epochs, 1.0)
    wrong.check(
        1 <= steps <= MAX_STEPS,
        "spec.max_steps",
        f"{steps} is not within 1 and {MAX_STEPS:,}; leave it out for one pass over the training split",
    )
    wrong.check(
        optimizer.warmup_steps < max(steps, 1),
        "spec.optimizer.warmup_steps",
        f"{optimizer.warmup_steps} is not below max_steps, which is {steps}",
    )
    return None


def _interval(value: int | None, default: int, field: str, wrong: Violations) -> int:
    interval = _value(value, default)
    wrong.check(interval >= 0, field, f"{interval} is negative; 0 means only at the end")
    return interval


def _early_stopping(draft: TrainingSpecDraft, interval: int, wrong: Violations) -> EarlyStopping | None:
    for field, asked in (
        ("spec.keep_best_checkpoint", draft.keep_best_checkpoint),
        ("spec.early_stopping", draft.stops_early),
    ):
        wrong.check(
            not asked or interval > 0, field, "needs validation_interval_steps above 0 to measure the loss"
        )
    if not draft.stops_early:
        return None
    patience, delta = _value(draft.patience, 3), _value(draft.min_delta, 0.0)
    wrong.check(patience >= 1, "spec.early_stopping.patience", f"{patience} is below 1")
    wrong.check(
        math.isfinite(delta) and delta >= 0,
        "spec.early_stopping.min_delta",
        f"{delta} is not a number of at least 0",
    )
    return EarlyStopping(patience=patience, min_delta=delta)


def _mesh(draft: TrainingSpecDraft, part_rows: int, wrong: Violations) -> MeshShape:
    mesh = MeshShape(fsdp=_value(draft.fsdp, 1), tp=_value(draft.tp, 1))
    for name, size in (("fsdp", mesh.fsdp), ("tp", mesh.tp)):
        wrong.check(
            1 <= size <= MAX_DEVICES, f"spec.mesh.{name}", f"{size} is not within 1 and {MAX_DEVICES:,}"
        )
    wrong.check(
        mesh.fsdp < 1 or part_rows % mesh.fsdp == 0,
        "spec.mesh.fsdp",
        f"{mesh.fsdp} does not divide the {part_rows} rows that are computed at a time",
    )
    return mesh


def _lora(draft: TrainingSpecDraft, wrong: Violations) -> LoraConfig | None:
    if draft.method == "full":
        wrong.check(
            not draft.has_lora, "spec.lora", "is given, but method full learns all weights, no adapter"
        )
        return None
    rank = _value(draft.rank, 16)
    alpha = _value(draft.alpha, 2.0 * rank)
    wrong.check(1 <= rank <= MAX_RANK, "spec.lora.rank", f"{rank} is not within 1 and {MAX_RANK:,}")
    if draft.alpha is not None:
        wrong.check(math.isfinite(alpha) and alpha > 0, "spec.lora.alpha", f"{alpha} is not above 0")
    seen: set[str] = set()
    for index, name in enumerate(draft.target_modules):
        field = f"spec.lora.target_modules[{index}]"
        known = wrong.check(
            name in TARGET_MODULES, field, f"{name[:40]!r} is none of {', '.join(TARGET_MODULES)}"
        )
        if known:
            wrong.check(name not in seen, field, f"{name!r} is named twice")
        seen.add(name)
    chosen = tuple(name for name in TARGET_MODULES if name in seen or not draft.target_modules)
    return LoraConfig(rank=rank, alpha=alpha, target_modules=chosen)


def _optimizer(draft: TrainingSpecDraft, wrong: Violations) -> OptimizerConfig:
    rate = _value(draft.learning_rate, 1e-3)
    warmup = _value(draft.warmup_steps, 0)
    decay = _value(draft.weight_decay, 0.0)
    epsilon = _value(draft.epsilon, 1e-8)
    norm = _value(draft.max_grad_norm, 1.0)
    betas = {"beta1": _value(draft.beta1, 0.9), "beta2": _value(draft.beta2, 0.999)}
    prefix = "spec.optimizer."
    wrong.check(0 < rate <= 1, f"{prefix}learning_rate", f"{rate} is not above 0 and at most 1")
    wrong.check(warmup >= 0, f"{prefix}warmup_steps", f"{warmup} is negative")
    for name, beta in betas.items():
        wrong.check(0 <= beta < 1, f"{prefix}{name}", f"{beta} is not at least 0 and below 1")
    wrong.check(math.isfinite(epsilon) and epsilon > 0, f"{prefix}epsilon", f"{epsilon} is not above 0")
    for name, value in (("weight_decay", decay), ("max_grad_norm", norm)):
        wrong.check(
            math.isfinite(value) and value >= 0, f"{prefix}{name}", f"{value} is not a number of at least 0"
        )
    return OptimizerConfig(
        learning_rate=rate,
        schedule=_named(draft.schedule, Schedule),
        warmup_steps=warmup,
        weight_decay=decay,
        epsilon=epsilon,
        max_grad_norm=norm,
        **betas,
    )


def _named(name: str, kind: Any) -> Any:
    """``name``, or any of its kind where it is none: that was noted as wrong already."""
    return name if name in get_args(kind) else get_args(kind)[0]


def _value(value: T | None, default: T) -> T:
    return default if value is None else value

"""Checks what a caller asks for and fills in the defaults."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Final, TypeVar, get_args

from tunix_rt_kit.errors import FailedPrecondition, FieldViolation, InvalidArgument
from tunix_rt_kit.serving.validation import Violations
from tunix_rt_trainer.model import (
    TRAIN_SPLIT,
    VALIDATION_SPLIT,
    BaseModelSummary,
    DatasetInput,
    Dtype,
    LoraConfig,
    OptimizerConfig,
    Schedule,
    SplitFindings,
    TrainingInput,
    TrainingSpec,
    TrainingSpecDraft,
)
from tunix_rt_trainer.unlearnable import NO_END, NO_RESPONSE, refusal, too_long

TARGET_MODULES: Final = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
MAX_RANK: Final = 1_024
MAX_ROWS: Final = 1_024
MIN_LENGTH: Final = 16
MAX_BASE_MODEL: Final = 4_096
MAX_STEPS: Final = 1_000_000_000
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
    rows = _value(draft.rows_per_batch, 8)
    length = _value(draft.max_length, 256)
    interval = _value(draft.validation_interval_steps, 0)
    steps = draft.max_steps
    wrong.check(1 <= rows <= MAX_ROWS, "spec.rows_per_batch", f"{rows} is not within 1 and {MAX_ROWS:,}")
    wrong.check(length >= MIN_LENGTH, "spec.max_length", f"{length} is below {MIN_LENGTH}")
    wrong.check(
        interval >= 0, "spec.validation_interval_steps", f"{interval} is negative; 0 means only at the end"
    )
    if steps is not None:
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
    wrong.raise_if_any(SPEC_INVALID)
    return TrainingSpec(
        base_model=draft.base_model,
        dataset=draft.dataset,
        lora=lora,
        optimizer=optimizer,
        max_steps=steps,
        rows_per_batch=rows,
        max_length=length,
        packing=draft.packing is not False,
        dtype=_dtype(draft.dtype),
        seed=draft.seed,
        validation_interval_steps=interval,
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


def check_supervision(
    spec: TrainingSpec, inputs: TrainingInput, findings: Mapping[str, SplitFindings]
) -> None:
    """Refuse a dataset with rows that cannot be learned as they are, and name them.

    Raises:
        FailedPrecondition: EXAMPLE_TOO_LONG, EXAMPLE_WITHOUT_RESPONSE or END_NOT_SUPERVISED.
    """
    splits = [TRAIN_SPLIT] if inputs.validation is None else [TRAIN_SPLIT, VALIDATION_SPLIT]
    for split in splits:
        found = findings[split]
        for problem, rows in (
            (too_long(spec.max_length), found.truncated),
            (NO_RESPONSE, found.unsupervised),
            (NO_END, found.end_unsupervised),
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
        ("spec.dtype", draft.dtype, get_args(Dtype)),
        ("spec.optimizer.schedule", draft.schedule, get_args(Schedule)),
    ):
        wrong.check(value in known, field, f"{value} is unknown; one of {', '.join(known)} would be right")


def _lora(draft: TrainingSpecDraft, wrong: Violations) -> LoraConfig:
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
    schedule: Schedule = next((name for name in get_args(Schedule) if name == draft.schedule), "linear")
    return OptimizerConfig(
        learning_rate=rate,
        schedule=schedule,
        warmup_steps=warmup,
        weight_decay=decay,
        epsilon=epsilon,
        max_grad_norm=norm,
        **betas,
    )


def _dtype(name: str) -> Dtype:
    return "float32" if name == "float32" else "bfloat16"


def _value(value: T | None, default: T) -> T:
    return default if value is None else value

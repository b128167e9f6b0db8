"""What a job would do, worked out from its spec, the dataset's audit and the model's shapes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from tunix_rt_trainer.base_models import BaseModelShape
from tunix_rt_trainer.jobs.model import (
    TRAIN_SPLIT,
    VALIDATION_SPLIT,
    SplitFindings,
    TrainingPlan,
    TrainingSpec,
)

_BYTES: Final = {"bfloat16": 2, "float32": 4}
_FLOAT32: Final = 4
# Of 4 bits a weight, and a float32 scale for each tile of 64.
_NF4_BYTES: Final = 0.5 + _FLOAT32 / 64
_ADAM_MOMENTS: Final = 2
# Python, JAX and the compiled functions, as the worker has them before its first array.
_PROCESS_BYTES: Final = 700_000_000
# Logits, their exponentials and their gradient live at the same time.
_LOGIT_COPIES: Final = 3
_ATTENTION_COPIES: Final = 3


def steps_per_epoch(rows_per_epoch: int, rows_per_batch: int) -> int:
    """Optimizer steps of one pass; the last one may have fewer rows."""
    return -(-rows_per_epoch // min(rows_per_batch, rows_per_epoch))


def step_count(spec: TrainingSpec, per_epoch: int) -> int:
    """Optimizer steps: ``max_steps``, or those of ``epochs`` passes, a begun step counted as a whole."""
    if spec.max_steps is not None:
        return spec.max_steps
    # 0.1 passes of 30 steps are 3 steps, though 0.1 * 30 is a little more than 3.
    return max(1, math.ceil(round((spec.epochs or 1.0) * per_epoch, 9)))


def planned_steps(spec: TrainingSpec, train: SplitFindings) -> int:
    """Optimizer steps of a job on a split that was audited."""
    return step_count(spec, steps_per_epoch(_rows(spec, train), spec.rows_per_batch))


def planned(spec: TrainingSpec, model: BaseModelShape, findings: Mapping[str, SplitFindings]) -> TrainingPlan:
    """The plan of a job that was admitted."""
    train, validation = findings[TRAIN_SPLIT], findings.get(VALIDATION_SPLIT)
    rows = _rows(spec, train)
    per_epoch = steps_per_epoch(rows, spec.rows_per_batch)
    steps = step_count(spec, per_epoch)
    trainable = trainable_parameters(spec, model)
    learned = train.supervised_tokens / (rows * spec.max_length)
    return TrainingPlan(
        spec=spec.model_copy(update={"max_steps": steps}),
        train_examples=train.row_count,
        validation_examples=0 if validation is None else validation.row_count,
        rows_per_epoch=rows,
        steps_per_epoch=per_epoch,
        train_tokens=train.token_count,
        supervised_tokens=train.supervised_tokens,
        packing_efficiency=train.token_count / (rows * spec.max_length),
        trainable_parameters=trainable,
        base_parameters=model.parameter_count,
        memory_bytes=_memory(spec, model, trainable, learned, rows),
    )


def _rows(spec: TrainingSpec, train: SplitFindings) -> int:
    return train.packed_rows if spec.packing else train.row_count


def trainable_parameters(spec: TrainingSpec, model: BaseModelShape) -> int:
    """Parameters that a job learns: all, or rank times (inputs + outputs) for each adapted projection."""
    if spec.lora is None:
        return model.parameter_count
    return sum(
        spec.lora.rank * (projection.inputs + projection.outputs)
        for projection in model.projections
        if projection.module in spec.lora.target_modules
    )


def _memory(
    spec: TrainingSpec, model: BaseModelShape, trainable: int, learned: float, rows: int
) -> dict[str, int]:
    width = _BYTES[spec.dtype]
    projected = sum(entry.inputs * entry.outputs for entry in model.projections)
    microbatch_rows = -(-min(spec.rows_per_batch, rows) // spec.gradient_accumulation_steps)
    tokens = microbatch_rows * spec.max_length
    base = {
        "lora": model.parameter_count * width,
        "qlora": int(projected * _NF4_BYTES) + (model.parameter_count - projected) * width,
        # Masters in float32 stand under "trained weights"; this is the copy that is computed with.
        "full": model.parameter_count * width if spec.dtype != "float32" else 0,
    }[spec.method]
    return {
        "process": _PROCESS_BYTES,
        # A step stacks the weights of all layers for its loop over them.
        "base weights": 2 * base,
        "trained weights, gradients and optimizer": trainable * _FLOAT32 * (2 + _ADAM_MOMENTS),
        "activations": int(tokens * _activation_bytes(spec, model)),
        "logits": int(tokens * min(1.0, learned)) * model.vocab_size * _FLOAT32 * _LOGIT_COPIES,
    }


def _activation_bytes(spec: TrainingSpec, model: BaseModelShape) -> float:
    """Bytes that one token of a batch keeps for the backward pass, and those of the layer at work."""
    width = _BYTES[spec.dtype]
    hidden = model.hidden_size * width
    dots = sum(entry.outputs for entry in model.projections) / model.num_layers * width
    attention = model.num_heads * spec.max_length * _FLOAT32 * _ATTENTION_COPIES
    layer = 2 * (dots + hidden) + attention
    kept = {"full": hidden, "dots": hidden + dots, "none": 2 * (hidden + dots) + attention}[spec.remat]
    return model.num_layers * kept + layer

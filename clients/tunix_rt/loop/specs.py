"""A loop's settings as messages of the contract."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Value

from tunix_rt import v1
from tunix_rt.formats import read_marks
from tunix_rt.loop.config import (
    DatasetConfig,
    EarlyStoppingSettings,
    EvaluationConfig,
    FilterConfig,
    LoraSettings,
    OptimizerSettings,
    TrainingConfig,
)

_STYLES = {"numbered": v1.REASONING_STYLE_NUMBERED, "answer-only": v1.REASONING_STYLE_ANSWER_ONLY}
_TUNING = {
    None: v1.TUNING_METHOD_UNSPECIFIED,
    "lora": v1.TUNING_METHOD_LORA,
    "qlora": v1.TUNING_METHOD_QLORA,
    "full": v1.TUNING_METHOD_FULL,
}
_REMATS = {
    None: v1.REMAT_POLICY_UNSPECIFIED,
    "none": v1.REMAT_POLICY_NONE,
    "dots": v1.REMAT_POLICY_DOTS,
    "full": v1.REMAT_POLICY_FULL,
}
_DEDUPLICATION = {
    "exact": v1.Deduplication.METHOD_EXACT,
    "near": v1.Deduplication.METHOD_NEAR,
    "identical": v1.Deduplication.METHOD_IDENTICAL,
}
_DTYPES = {"auto": v1.DTYPE_AUTO, "bfloat16": v1.DTYPE_BFLOAT16, "float32": v1.DTYPE_FLOAT32}
_UNWRITABLE = {"drop": v1.UNWRITABLE_ROWS_DROP, "refuse": v1.UNWRITABLE_ROWS_REFUSE}
_SCHEDULES = {
    "constant": v1.LEARNING_RATE_SCHEDULE_CONSTANT,
    "linear": v1.LEARNING_RATE_SCHEDULE_LINEAR,
    "cosine": v1.LEARNING_RATE_SCHEDULE_COSINE,
}


def trace_filter(config: FilterConfig) -> v1.TraceFilter:
    """Which traces."""
    message = v1.TraceFilter(
        sources=config.sources,
        prompt_contains=config.prompt_contains,
        metadata=[
            v1.MetadataCondition(key=key, equals=_value(value))
            for key, value in config.metadata_equals.items()
        ]
        + [v1.MetadataCondition(key=key, exists=exists) for key, exists in config.metadata_exists.items()],
        scores=[
            v1.ScoreCondition(criterion=criterion, minimum=minimum)
            for criterion, minimum in config.scores.items()
        ],
    )
    if config.created_from is not None:
        message.created_from.FromDatetime(config.created_from)
    if config.created_before is not None:
        message.created_before.FromDatetime(config.created_before)
    return message


def dataset_spec(
    config: DatasetConfig, template: v1.ChatTemplate, special_tokens: Sequence[str], eval_sets: list[str]
) -> v1.DatasetSpec:
    """What to build; ``eval_sets`` are kept out of it besides those that the config names."""
    return v1.DatasetSpec(
        dataset_id=config.id,
        version=config.version,
        filter=None if config.filter is None else trace_filter(config.filter),
        as_of=config.as_of,
        selection=_selection(config),
        splits=[
            v1.SplitFraction(split=split, fraction=fraction)
            for split, fraction in (config.splits or {}).items()
        ],
        seed=config.seed,
        chat_template=template,
        special_tokens=special_tokens,
        reasoning_style=_STYLES[config.reasoning_style],
        eval_sets=list(dict.fromkeys([*config.eval_sets, *eval_sets])),
        decontamination=v1.Decontamination(ngram_words=config.ngram_words),
        deduplication=v1.Deduplication(method=_DEDUPLICATION[config.duplicates], threshold=config.similarity),
        split_group=_split_group(config),
        parent=config.parent,
        unwritable_rows=_UNWRITABLE[config.unwritable_rows],
        model_answers=v1.MODEL_ANSWERS_KEEP if config.model_answers else v1.MODEL_ANSWERS_UNSPECIFIED,
    )


def training_spec(config: TrainingConfig, dataset: str) -> v1.TrainingSpec:
    """What to train on ``dataset``."""
    return v1.TrainingSpec(
        base_model=config.base_model,
        dataset=dataset,
        method=_TUNING[config.method],
        lora=_lora(config.lora),
        optimizer=_optimizer(config.optimizer),
        epochs=config.epochs,
        max_steps=config.max_steps,
        rows_per_batch=config.rows_per_batch,
        tokens_per_batch=config.tokens_per_batch,
        gradient_accumulation_steps=config.gradient_accumulation_steps,
        max_length=config.max_length,
        packing=config.packing,
        dtype=_dtype(config.dtype),
        remat=_REMATS[config.remat],
        mesh=None if config.mesh is None else v1.MeshShape(fsdp=config.mesh.fsdp, tp=config.mesh.tp),
        seed=config.seed,
        validation_interval_steps=config.validation_interval_steps,
        checkpoint_interval_steps=config.checkpoint_interval_steps,
        keep_best_checkpoint=config.keep_best_checkpoint,
        early_stopping=_early_stopping(config.early_stopping),
    )


def base_evaluation_spec(
    config: EvaluationConfig, eval_set: str, base_model: str, template: v1.ChatTemplate
) -> v1.EvaluationSpec:
    """The evaluation before training: the base model, asked in the template that it will be trained with."""
    return v1.EvaluationSpec(
        eval_set=eval_set,
        base_model=base_model,
        chat_template=template,
        decoding=_decoding(config),
        dtype=_dtype(config.dtype),
        fresh=config.fresh,
        reasoning_marks=_marks(config),
    )


def tuned_evaluation_spec(config: EvaluationConfig, eval_set: str, checkpoint: str) -> v1.EvaluationSpec:
    """The evaluation after training, in the checkpoint's own template."""
    return v1.EvaluationSpec(
        eval_set=eval_set,
        checkpoint=checkpoint,
        decoding=_decoding(config),
        dtype=_dtype(config.dtype),
        fresh=config.fresh,
        reasoning_marks=_marks(config),
    )


def _value(value: Any) -> Value:
    return ParseDict(value, Value())


def _selection(config: DatasetConfig) -> v1.Selection | None:
    if config.latest is not None:
        return v1.Selection(latest=config.latest)
    if config.random is not None:
        return v1.Selection(random=config.random)
    return None


def _split_group(config: DatasetConfig) -> v1.SplitGroup:
    if config.group_by:
        return v1.SplitGroup(metadata_field=config.group_by, near_duplicate_threshold=config.keep_apart)
    return v1.SplitGroup(prompt=True, near_duplicate_threshold=config.keep_apart)


def _early_stopping(config: EarlyStoppingSettings | None) -> v1.EarlyStopping | None:
    if config is None:
        return None
    return v1.EarlyStopping(patience=config.patience, min_delta=config.min_delta)


def _lora(config: LoraSettings) -> v1.LoraConfig:
    return v1.LoraConfig(rank=config.rank, alpha=config.alpha, target_modules=config.target_modules)


def _optimizer(config: OptimizerSettings) -> v1.OptimizerConfig:
    schedule = v1.LEARNING_RATE_SCHEDULE_UNSPECIFIED
    if config.schedule is not None:
        schedule = _SCHEDULES[config.schedule]
    return v1.OptimizerConfig(
        learning_rate=config.learning_rate,
        schedule=schedule,
        warmup_steps=config.warmup_steps,
        weight_decay=config.weight_decay,
        beta1=config.beta1,
        beta2=config.beta2,
        epsilon=config.epsilon,
        max_grad_norm=config.max_grad_norm,
    )


def _decoding(config: EvaluationConfig) -> v1.Decoding:
    return v1.Decoding(**config.model_dump(exclude={"dtype", "fresh", "reasoning_marks"}))


def _marks(config: EvaluationConfig) -> v1.ReasoningMarks | None:
    return None if config.reasoning_marks is None else read_marks(config.reasoning_marks)


def _dtype(name: str | None) -> v1.Dtype.ValueType:
    return v1.DTYPE_UNSPECIFIED if name is None else _DTYPES[name]

"""Checks what a caller wants evaluated and fills in the defaults."""

from __future__ import annotations

from typing import Final, get_args

from tunix_rt_evaluator.model import (
    DEFAULT_BATCH_SIZE,
    DEFAULT_MAX_NEW_TOKENS,
    MAX_BATCH_SIZE,
    MAX_NEW_TOKENS,
    BaseModelFacts,
    CheckpointInput,
    Decoding,
    Dtype,
    EvaluationSpec,
    EvaluationSpecDraft,
)
from tunix_rt_evaluator.names import CHECKPOINT_NAME, EVAL_SET_NAME
from tunix_rt_evaluator.templates import chat_template
from tunix_rt_kit.chat import ChatTemplate
from tunix_rt_kit.errors import FailedPrecondition
from tunix_rt_kit.serving.resources import parse_name, parse_names
from tunix_rt_kit.serving.validation import Violations

SPEC_INVALID: Final = "EVALUATION_SPEC_INVALID"
_MAX_BASE_MODEL: Final = 4_096
_DTYPES: Final[tuple[Dtype, ...]] = get_args(Dtype)


def checked_spec(draft: EvaluationSpecDraft) -> EvaluationSpec:
    """The spec with the defaults that do not depend on the model; ``eval_set`` becomes its id.

    Raises:
        InvalidArgument: RESOURCE_NAME_INVALID, a chat template's own reasons, or EVALUATION_SPEC_INVALID
        that names
            every wrong field.
    """
    eval_set = parse_name(EVAL_SET_NAME, draft.eval_set, "spec.eval_set")
    wrong = Violations()
    if draft.checkpoint is not None:
        parse_names(CHECKPOINT_NAME, draft.checkpoint, "spec.checkpoint")
    else:
        wrong.check(
            bool(draft.base_model) and len(draft.base_model or "") <= _MAX_BASE_MODEL,
            "spec.base_model",
            "is empty or too long; the id of a base model, or a checkpoint, would be right",
        )
    tokens = DEFAULT_MAX_NEW_TOKENS if draft.max_new_tokens is None else draft.max_new_tokens
    rows = DEFAULT_BATCH_SIZE if draft.batch_size is None else draft.batch_size
    for field, value, most in (
        ("max_new_tokens", tokens, MAX_NEW_TOKENS),
        ("batch_size", rows, MAX_BATCH_SIZE),
    ):
        wrong.check(1 <= value <= most, f"spec.decoding.{field}", f"is {value}; 1 to {most:,} would be right")
    dtype = next((known for known in _DTYPES if known == draft.dtype), None)
    wrong.check(
        dtype is not None, "spec.dtype", f"is {draft.dtype}; one of {', '.join(_DTYPES)} would be right"
    )
    wrong.raise_if_any(SPEC_INVALID)
    if draft.chat_template is not None:
        chat_template(draft.chat_template)
    return EvaluationSpec(
        eval_set=eval_set,
        base_model=draft.base_model if draft.checkpoint is None else None,
        checkpoint=draft.checkpoint,
        chat_template=draft.chat_template,
        decoding=Decoding(max_new_tokens=tokens, batch_size=rows),
        dtype=dtype or "bfloat16",
    )


def with_template(
    spec: EvaluationSpec, model: BaseModelFacts, checkpoint: CheckpointInput | None
) -> EvaluationSpec:
    """The spec with its chat template filled in: the checkpoint's, or else the base model's own.

    It stays None where the model is not on this host yet; the worker then takes the model's own.

    Raises:
        FailedPrecondition: CHAT_TEMPLATE_MISMATCH, another one than the checkpoint learned with was asked
        for;
            CHAT_TEMPLATE_MISSING, the base model has none.
    """
    if checkpoint is not None:
        _check_same(spec, checkpoint)
        return spec.model_copy(update={"chat_template": checkpoint.chat_template})
    if spec.chat_template is not None:
        return spec
    if model.available and model.chat_template is None:
        raise FailedPrecondition(
            f"spec.chat_template: base model {model.id!r} has none of its own; name one, such as the "
            "built-in chatml",
            reason="CHAT_TEMPLATE_MISSING",
            metadata={"base_model": model.id},
        )
    return spec.model_copy(update={"chat_template": model.chat_template})


def check_weights(model: BaseModelFacts, checkpoint: CheckpointInput | None) -> None:
    """Raise FailedPrecondition(BASE_MODEL_MISMATCH) if the checkpoint was trained on other weights than are
    here."""
    if checkpoint is None or not model.available or model.weights_digest == checkpoint.base_weights_digest:
        return
    raise FailedPrecondition(
        f"spec.checkpoint: it was trained on weights {checkpoint.base_weights_digest} of "
        f"{checkpoint.base_model!r}, "
        f"and the evaluator has {model.weights_digest}",
        reason="BASE_MODEL_MISMATCH",
        metadata={"base_model": checkpoint.base_model},
    )


def _check_same(spec: EvaluationSpec, checkpoint: CheckpointInput) -> None:
    if spec.chat_template is None:
        return
    asked = ChatTemplate.model_validate(spec.chat_template.model_dump()).digest
    learned = ChatTemplate.model_validate(checkpoint.chat_template.model_dump()).digest
    if asked != learned:
        raise FailedPrecondition(
            f"spec.chat_template: it is {asked}, but {checkpoint.name} learned with {learned}; leave it "
            "out to use "
            "the checkpoint's",
            reason="CHAT_TEMPLATE_MISMATCH",
            metadata={"chat_template": asked, "checkpoint_chat_template": learned},
        )

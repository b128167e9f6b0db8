"""Checks what a caller wants evaluated and fills in the defaults."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, get_args

from tunix_rt_evaluator.eval_sets.model import EVAL_SET_NAME
from tunix_rt_evaluator.evaluations.model import (
    MAX_BATCH_SIZE,
    MAX_LOGGED_TOKENS,
    MAX_NEW_TOKENS,
    MAX_SAMPLES,
    MAX_TEMPERATURE,
    MIN_TEMPERATURE,
    MIN_TOP_P,
    BaseModelFacts,
    CheckpointInput,
    Decoding,
    EvaluationSpec,
    EvaluationSpecDraft,
)
from tunix_rt_evaluator.evaluations.templates import chat_template
from tunix_rt_evaluator.grading.reasoning.marks import checked_marks
from tunix_rt_kit.chat import ChatTemplate
from tunix_rt_kit.errors import FailedPrecondition
from tunix_rt_kit.serving.resources import parse_name, parse_names
from tunix_rt_kit.serving.validation import Violations
from tunix_rt_kit.values import AskedDtype

CHECKPOINT_NAME: Final = "trainingJobs/{training_job}/checkpoints/{checkpoint}"
SPEC_INVALID: Final = "EVALUATION_SPEC_INVALID"
_MAX_BASE_MODEL: Final = 4_096
_MAX_ENDPOINT_MODEL: Final = 256
_DTYPES: Final[tuple[AskedDtype, ...]] = get_args(AskedDtype)


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
    elif draft.endpoint_model is not None:
        _check_endpoint_model(draft, wrong)
    else:
        wrong.check(
            bool(draft.base_model) and len(draft.base_model or "") <= _MAX_BASE_MODEL,
            "spec.base_model",
            "is empty or too long; a base model's id, a checkpoint or an endpoint's model would be right",
        )
    decoding = _decoding(draft.decoding, wrong)
    asked = draft.dtype or _DTYPES[0]
    dtype = next((known for known in _DTYPES if known == asked), None)
    wrong.check(dtype is not None, "spec.dtype", f"is {asked}; one of {', '.join(_DTYPES)} would be right")
    marks = checked_marks(draft.reasoning_marks, wrong, "spec.reasoning_marks")
    wrong.raise_if_any(SPEC_INVALID)
    if draft.chat_template is not None:
        chat_template(draft.chat_template)
    return EvaluationSpec(
        eval_set=eval_set,
        base_model=draft.base_model,
        checkpoint=draft.checkpoint,
        endpoint_model=draft.endpoint_model,
        chat_template=draft.chat_template,
        decoding=decoding,
        dtype=dtype if draft.endpoint_model is None else None,
        fresh=draft.fresh,
        reasoning_marks=marks,
    )


def _check_endpoint_model(draft: EvaluationSpecDraft, wrong: Violations) -> None:
    name = draft.endpoint_model or ""
    wrong.check(
        bool(name.strip()) and len(name) <= _MAX_ENDPOINT_MODEL and name.isprintable(),
        "spec.endpoint_model",
        f"is {name[:_MAX_ENDPOINT_MODEL]!r}; the endpoint's name for a model, of 1 to {_MAX_ENDPOINT_MODEL} "
        "characters, would be right",
    )
    for field, given in (("chat_template", draft.chat_template), ("dtype", draft.dtype)):
        wrong.check(
            given is None,
            f"spec.{field}",
            "is given, but an endpoint has its own for its models; leave it out",
        )


def check_endpoint(spec: EvaluationSpec, *, configured: bool) -> None:
    """Raise FailedPrecondition(ENDPOINT_NOT_CONFIGURED) if an endpoint's model is to be evaluated and the
    evaluator knows no endpoint."""
    if spec.endpoint_model is None or configured:
        return
    raise FailedPrecondition(
        f"spec.endpoint_model: {spec.endpoint_model!r} runs behind an endpoint, and this evaluator has none; "
        "start it with --endpoint-url or TUNIX_RT_EVALUATOR_ENDPOINT_URL, such as http://localhost:8000/v1",
        reason="ENDPOINT_NOT_CONFIGURED",
        metadata={"endpoint_model": spec.endpoint_model, "setting": "endpoint_url"},
    )


def _decoding(given: Mapping[str, Any], wrong: Violations) -> Decoding:
    """The settings with their defaults; of each, the first rule that it breaks goes to ``wrong``."""
    decoding = Decoding(**given)
    named: set[str] = set()
    for field, right, description in _rules(decoding):
        if not right and field not in named:
            named.add(field)
            value = getattr(decoding, field)
            wrong.add(f"spec.decoding.{field}", f"is {value}; {description} would be right")
    return decoding


def _rules(decoding: Decoding) -> Iterator[tuple[str, bool, str]]:
    """Of each rule the field, whether it is kept, and what would be right."""
    tokens, samples = decoding.max_new_tokens, decoding.samples
    yield "max_new_tokens", 1 <= tokens <= MAX_NEW_TOKENS, f"1 to {MAX_NEW_TOKENS:,}"
    yield "batch_size", 1 <= decoding.batch_size <= MAX_BATCH_SIZE, f"1 to {MAX_BATCH_SIZE}"
    drawn = MIN_TEMPERATURE <= decoding.temperature <= MAX_TEMPERATURE
    yield (
        "temperature",
        decoding.temperature == 0 or drawn,
        f"0, or {MIN_TEMPERATURE:g} to {MAX_TEMPERATURE:g},",
    )
    yield "top_p", MIN_TOP_P <= decoding.top_p <= 1, f"{MIN_TOP_P:f} to 1"
    yield "seed", 0 <= decoding.seed < 1 << 32, "0 to 4,294,967,295"
    yield "samples", 1 <= samples <= MAX_SAMPLES, f"1 to {MAX_SAMPLES}"
    if decoding.temperature == 0:
        yield "top_p", decoding.top_p == 1, "1, or a temperature above 0, as nothing is drawn,"
        yield "seed", decoding.seed == 0, "0, or a temperature above 0, as nothing is drawn,"
        yield "samples", samples == 1, "1, or a temperature above 0, as greedy answers are all equal,"
    if decoding.log_probabilities and 1 <= tokens <= MAX_NEW_TOKENS:
        yield (
            "samples",
            samples * tokens <= MAX_LOGGED_TOKENS,
            f"{MAX_LOGGED_TOKENS // tokens} at most with log-probabilities of {tokens:,} tokens, so that an "
            "item fits in a message,",
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
    asked = ChatTemplate.of(spec.chat_template).digest
    learned = ChatTemplate.of(checkpoint.chat_template).digest
    if asked != learned:
        raise FailedPrecondition(
            f"spec.chat_template: it is {asked}, but {checkpoint.name} learned with {learned}; leave it "
            "out to use "
            "the checkpoint's",
            reason="CHAT_TEMPLATE_MISMATCH",
            metadata={"chat_template": asked, "checkpoint_chat_template": learned},
        )

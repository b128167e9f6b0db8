"""Checks what a caller wants evaluated and fills in the defaults."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, get_args

from pydantic import TypeAdapter, ValidationError

from tunix_rt_evaluator.eval_sets.model import EVAL_SET_NAME, EvalItem, EvalSet, eval_set_name
from tunix_rt_evaluator.eval_sets.service import EvalSetRepository, items_digest
from tunix_rt_evaluator.evaluations.model import (
    EVALUATION_NAME,
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
    Evaluation,
    EvaluationSpec,
    Regrade,
    RegradeDraft,
    evaluation_name,
)
from tunix_rt_evaluator.grading.model import Grader, ReasoningMarks, kinds
from tunix_rt_evaluator.grading.reasoning import checked_marks
from tunix_rt_evaluator.grading.service import Grading
from tunix_rt_kit.chat import ChatTemplate
from tunix_rt_kit.errors import FailedPrecondition, FieldViolation, InvalidArgument
from tunix_rt_kit.serving.requests import (
    Violations,
    field_path,
    new_id,
    parse_name,
    parse_names,
)
from tunix_rt_kit.values import AskedDtype, ChatTemplateFields, JobState

CHECKPOINT_NAME: Final = "trainingJobs/{training_job}/checkpoints/{checkpoint}"
SPEC_INVALID: Final = "EVALUATION_SPEC_INVALID"
GRADER_INVALID: Final = "GRADER_INVALID"
_GRADER: Final[TypeAdapter[Grader]] = TypeAdapter(Grader)
_SHOWN: Final = 3
_MAX_SYSTEM_INSTRUCTION: Final = 20_000
_MAX_BASE_MODEL: Final = 4_096
_MAX_ENDPOINT_MODEL: Final = 256
_DTYPES: Final[tuple[AskedDtype, ...]] = get_args(AskedDtype)


def checked_spec(asked: Mapping[str, Any]) -> EvaluationSpec:
    """The spec with the defaults that do not depend on the model; ``eval_set`` becomes its id.

    ``asked`` holds the fields that a caller set, unchecked; its ``eval_set`` is a resource name.

    Raises:
        InvalidArgument: RESOURCE_NAME_INVALID, a chat template's own reasons, or EVALUATION_SPEC_INVALID
            that names every wrong field.
    """
    eval_set = parse_name(EVAL_SET_NAME, asked["eval_set"], "spec.eval_set")
    wrong = Violations()
    endpoint_model = asked.get("endpoint_model")
    if "checkpoint" in asked:
        parse_names(CHECKPOINT_NAME, asked["checkpoint"], "spec.checkpoint")
    elif endpoint_model is not None:
        _check_endpoint_model(asked, wrong)
    else:
        wrong.check(
            1 <= len(asked.get("base_model", "")) <= _MAX_BASE_MODEL,
            "spec.base_model",
            "is empty or too long; a base model's id, a checkpoint or an endpoint's model would be right",
        )
    decoding = _decoding(asked.get("decoding", {}), wrong)
    dtype = asked.get("dtype", _DTYPES[0])
    wrong.check(dtype in _DTYPES, "spec.dtype", f"is {dtype}; one of {', '.join(_DTYPES)} would be right")
    marks = checked_marks(asked.get("reasoning_marks"), wrong, "spec.reasoning_marks")
    wrong.raise_if_any(SPEC_INVALID)
    spec = EvaluationSpec.model_validate(
        {
            **asked,
            "eval_set": eval_set,
            "decoding": decoding,
            "dtype": dtype if endpoint_model is None else None,
            "reasoning_marks": marks,
        }
    )
    if spec.chat_template is not None:
        chat_template(spec.chat_template)
    return spec


def chat_template(fields: ChatTemplateFields) -> ChatTemplate:
    """The template that ``fields`` describe, tried on a small conversation.

    Raises:
        InvalidArgument: CHAT_TEMPLATE_INVALID, CHAT_TEMPLATE_UNKNOWN or CHAT_TEMPLATE_PREFIX.
    """
    if len(fields.system_instruction) > _MAX_SYSTEM_INSTRUCTION:
        description = (
            f"has {len(fields.system_instruction):,} characters; at most {_MAX_SYSTEM_INSTRUCTION:,} would "
            "be right"
        )
        raise InvalidArgument(
            f"chat_template.system_instruction: {description}",
            reason="CHAT_TEMPLATE_INVALID",
            violations=[FieldViolation("spec.chat_template.system_instruction", description)],
        )
    template = ChatTemplate.of(fields)
    template.check()
    return template


def _check_endpoint_model(asked: Mapping[str, Any], wrong: Violations) -> None:
    name = asked["endpoint_model"]
    wrong.check(
        bool(name.strip()) and len(name) <= _MAX_ENDPOINT_MODEL and name.isprintable(),
        "spec.endpoint_model",
        f"is {name[:_MAX_ENDPOINT_MODEL]!r}; the endpoint's name for a model, of 1 to {_MAX_ENDPOINT_MODEL} "
        "characters, would be right",
    )
    for field in ("chat_template", "dtype"):
        wrong.check(
            field not in asked,
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
    sampled = MIN_TEMPERATURE <= decoding.temperature <= MAX_TEMPERATURE
    yield (
        "temperature",
        decoding.temperature == 0 or sampled,
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
            for; CHAT_TEMPLATE_MISSING, the base model has none.
    """
    if checkpoint is not None:
        asked = ChatTemplate.of(spec.chat_template).digest if spec.chat_template else None
        learned = ChatTemplate.of(checkpoint.chat_template).digest
        if asked is not None and asked != learned:
            raise FailedPrecondition(
                f"spec.chat_template: it is {asked}, but {checkpoint.name} learned with {learned}; leave it "
                "out to use the checkpoint's",
                reason="CHAT_TEMPLATE_MISMATCH",
                metadata={"chat_template": asked, "checkpoint_chat_template": learned},
            )
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
        f"{checkpoint.base_model!r}, and the evaluator has {model.weights_digest}",
        reason="BASE_MODEL_MISMATCH",
        metadata={"base_model": checkpoint.base_model},
    )


@dataclass(frozen=True)
class CheckedRegrade:
    """What is to be graded again: the answers of ``source``, by the items of ``eval_set``."""

    source: Evaluation
    eval_set: EvalSet
    grader: Grader | None
    marks: ReasoningMarks | None = None

    @property
    def identity(self) -> Mapping[str, Any]:
        """What makes a request the same one."""
        marks = {"reasoning_marks": self.marks.model_dump(mode="json")} if self.marks else {}
        return {
            "source": self.source.id,
            "eval_set": self.eval_set.id,
            "grader": self.grader.model_dump(mode="json") if self.grader else None,
            **marks,
        }

    def evaluation(self, grading: Grading) -> Evaluation:
        """A new evaluation that only grades; raises as ``checked_regrade`` where the grader does not fit.

        The items' own graders were checked when the set was stored. Where a rule is stricter by now, an item
        is not graded and says why; it does not keep the others from being graded.
        """
        items = regraded_items(self.eval_set, self.grader)
        if self.grader is not None:
            check_grader_fits(items, grading)
        check_judge(items, grading)
        check_python(items, grading)
        source = self.source
        regrade = Regrade(
            source=source.id,
            grader=self.grader,
            source_results_digest=source.manifest.results_digest if source.manifest else "",
        )
        return Evaluation(
            id=new_id(),
            spec=source.spec.model_copy(
                update={
                    "eval_set": self.eval_set.id,
                    "reasoning_marks": self.marks or source.spec.reasoning_marks,
                }
            ),
            inputs=source.inputs.model_copy(
                update={"eval_set_digest": items_digest(items), "regrade": regrade}
            ),
            state=JobState.QUEUED,
            create_time=datetime.now(UTC),
        )


def checked_regrade(
    draft: RegradeDraft,
    evaluation_of: Callable[[str], Evaluation],
    eval_sets: EvalSetRepository,
    grading: Grading,
) -> CheckedRegrade:
    """What a caller asks for, looked up.

    Raises:
        NotFound: the evaluation or the eval set is not there.
        FailedPrecondition: EVALUATION_NOT_SUCCEEDED, EVAL_SET_MISMATCH.
        InvalidArgument: RESOURCE_NAME_INVALID, GRADER_INVALID, REASONING_MARKS_INVALID.
    """
    source = evaluation_of(parse_name(EVALUATION_NAME, draft.evaluation))
    if source.state is not JobState.SUCCEEDED:
        name = evaluation_name(source.id)
        raise FailedPrecondition(
            f"name: {name} is {source.state}; only one that SUCCEEDED can be graded again",
            reason="EVALUATION_NOT_SUCCEEDED",
            metadata={"evaluation": name, "state": source.state},
        )
    grader = checked_grader(draft.grader, grading)
    wrong = Violations()
    marks = checked_marks(draft.reasoning_marks, wrong, "reasoning_marks")
    wrong.raise_if_any("REASONING_MARKS_INVALID")
    answered = eval_sets.get(source.spec.eval_set)
    if not draft.eval_set:
        return CheckedRegrade(source, answered, grader, marks)
    wanted = eval_sets.get(parse_name(EVAL_SET_NAME, draft.eval_set, "eval_set"))
    check_same_questions(answered, wanted)
    return CheckedRegrade(source, wanted, grader, marks)


def checked_grader(fields: Mapping[str, Any] | None, grading: Grading) -> Grader | None:
    """A grader that is to replace those of all items.

    Raises InvalidArgument(GRADER_INVALID), FailedPrecondition where users' own graders are not run.
    """
    if fields is None:
        return None
    wrong = Violations()
    wrong.check(fields["kind"] in kinds(), "grader", grading.unknown_kind)
    wrong.raise_if_any(GRADER_INVALID)
    try:
        grader = _GRADER.validate_python(fields)
    except ValidationError as error:
        wrong.add_problems(error, "grader")
        wrong.raise_if_any(GRADER_INVALID)
        raise
    if grader.kind == "python":
        for path, description in grading.settings_problems(grader, ()):
            wrong.add(field_path(path), description)
        wrong.raise_if_any(GRADER_INVALID)
    [(stored, problem)] = grading.admitted([grader])
    wrong.check(not problem, "grader.python.source", problem)
    wrong.raise_if_any(GRADER_INVALID)
    return stored


def regraded_items(eval_set: EvalSet, grader: Grader | None) -> tuple[EvalItem, ...]:
    """The items of an eval set, with ``grader`` in place of their own if there is one."""
    items = eval_set.items or ()
    return items if grader is None else tuple(item.model_copy(update={"grader": grader}) for item in items)


def check_grader_fits(items: Sequence[EvalItem], grading: Grading) -> None:
    """Raise InvalidArgument(GRADER_INVALID) where items cannot be graded by the grader they were given."""
    wrong = Violations()
    for item in items:
        for path, description in grading.problems(item):
            place = field_path(path)
            if path[0] == "grader":
                wrong.add(place, description)
                wrong.raise_if_any(GRADER_INVALID)
            wrong.add("grader", f"does not fit item {item.id!r}: its {place} {description}")
    wrong.raise_if_any(GRADER_INVALID)


def check_same_questions(answered: EvalSet, wanted: EvalSet) -> None:
    """Raise FailedPrecondition(EVAL_SET_MISMATCH) unless both ask the same questions under the same ids."""
    before = {item.id: item.question for item in answered.items or ()}
    after = {item.id: item.question for item in wanted.items or ()}
    other = sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
    if not other:
        return
    shown = ", ".join(repr(key) for key in other[:_SHOWN])
    raise FailedPrecondition(
        f"eval_set: {eval_set_name(wanted.id)} asks other questions than {eval_set_name(answered.id)}, whose "
        f"answers are there: {len(other)} items differ in id or prompt, such as {shown}",
        reason="EVAL_SET_MISMATCH",
        metadata={"eval_set": eval_set_name(wanted.id), "answered": eval_set_name(answered.id)},
    )


def check_judge(items: Sequence[EvalItem], grading: Grading) -> None:
    """Raise FailedPrecondition(JUDGE_NOT_CONFIGURED) if items need a judge and the evaluator knows none."""
    first = next((item for item in items if item.grader.kind == "judge"), None)
    if grading.has_judge or first is None:
        return
    raise FailedPrecondition(
        f"item {first.id!r} is graded by a judge, and this evaluator has none; start it with --judge-url or "
        "TUNIX_RT_EVALUATOR_JUDGE_URL, such as http://localhost:8000/v1",
        reason="JUDGE_NOT_CONFIGURED",
        metadata={"item": first.id, "setting": "judge_url"},
    )


def check_python(items: Sequence[EvalItem], grading: Grading) -> None:
    """Raise FailedPrecondition(PYTHON_GRADERS_OFF) if items have graders of users' own, and none is run."""
    if any(item.grader.kind == "python" for item in items):
        grading.python.require_allowed()

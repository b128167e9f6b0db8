"""What may be trained: checks what a caller asks for and fills in the defaults.

The errors about rows, and about memory, are put into words here for the worker too, so that they are the same
wherever they are found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tunix_rt_kit.errors import FailedPrecondition, InvalidArgument
from tunix_rt_kit.serving.requests import Violations, validated
from tunix_rt_trainer.base_models import BaseModelSummary
from tunix_rt_trainer.jobs.model import (
    MAX_ROWS,
    TRAIN_SPLIT,
    VALIDATION_SPLIT,
    DatasetInput,
    SplitFindings,
    TrainingInput,
    TrainingSpec,
)
from tunix_rt_trainer.jobs.plan import planned_steps

SPEC_INVALID: Final = "TRAINING_SPEC_INVALID"

# What a caller gets who leaves the field out; jobs before the field saved at the end alone.
_CHECKPOINT_INTERVAL: Final = 50


def checked_spec(asked: Mapping[str, Any]) -> TrainingSpec:
    """The spec with every default filled in.

    Args:
        asked: the fields that a caller set, by their names in the contract.

    Raises:
        InvalidArgument: TRAINING_SPEC_INVALID, naming every wrong field as ``spec...``.
    """
    wrong = Violations()
    fields = {"checkpoint_interval_steps": _CHECKPOINT_INTERVAL, **asked}
    if fields.get("method") == "full":
        given = fields.pop("lora", None)
        wrong.check(not given, "spec.lora", "is given, but method full learns all weights, no adapter")
        fields["lora"] = None
    else:
        fields.setdefault("lora", {})
    tokens = fields.pop("tokens_per_batch", None)
    if fields.get("max_steps") is None:
        fields.setdefault("epochs", 1.0)
    spec = validated(TrainingSpec, fields, "spec", wrong)
    spec = _with_tokens(spec, tokens, "rows_per_batch" in asked, wrong)
    _check_length(spec, asked, wrong)
    _check_batch(spec, wrong)
    _check_measured(spec, asked, wrong)
    wrong.raise_if_any(SPEC_INVALID)
    return spec


def check_model(spec: TrainingSpec, model: BaseModelSummary) -> None:
    """Raises InvalidArgument(TRAINING_SPEC_INVALID) if rows are longer than what the model takes."""
    if spec.max_length > model.context_length:
        description = (
            f"{spec.max_length} is more than the {model.context_length} tokens that {model.id} takes"
        )
        raise InvalidArgument.of_field("spec.max_length", description, reason=SPEC_INVALID)


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


def check_rows(spec: TrainingSpec, inputs: TrainingInput, findings: Mapping[str, SplitFindings]) -> None:
    """Refuse a dataset with rows that cannot be learned as they are, and name them.

    Raises:
        FailedPrecondition: EXAMPLE_TOO_LONG, EXAMPLE_WITHOUT_RESPONSE, END_NOT_SUPERVISED, TARGET_LOST,
        SPECIAL_TOKEN_IN_TEXT or SUPERVISED_ELSEWHERE.
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
            (NO_END, found.end_mark_masked),
            (ELSEWHERE, found.supervised_elsewhere),
        ):
            if rows.row_count:
                first = rows.first_ids[0]
                raise refusal(problem, split, rows.row_count, first, rows.first_ids, spec.dataset)


def _with_tokens(spec: TrainingSpec, tokens: int | None, rows_given: bool, wrong: Violations) -> TrainingSpec:
    """The spec with as many rows in a batch as ``tokens`` fill."""
    if tokens is None:
        return spec
    field, length = "spec.tokens_per_batch", spec.max_length
    wrong.check(
        not rows_given,
        field,
        f"{tokens} is given beside rows_per_batch, which is {spec.rows_per_batch}; give one of them",
    )
    if wrong.names("spec.max_length"):
        return spec
    right = tokens % length == 0 and 1 <= tokens // length <= MAX_ROWS
    wrong.check(
        right, field, f"{tokens} is not a multiple of max_length ({length}), one to {MAX_ROWS:,} times that"
    )
    return spec.model_copy(update={"rows_per_batch": tokens // length}) if right else spec


def _check_length(spec: TrainingSpec, asked: Mapping[str, Any], wrong: Violations) -> None:
    """How long the training is."""
    steps, warmup = spec.max_steps, spec.optimizer.warmup_steps
    if "max_steps" in asked and "epochs" in asked:
        problem = f"{asked['epochs']} is given beside max_steps, which is {asked['max_steps']}"
        wrong.add("spec.epochs", f"{problem}; give one of them")
    if steps is not None and not wrong.names("spec.max_steps", "spec.optimizer"):
        wrong.check(
            warmup < steps,
            "spec.optimizer.warmup_steps",
            f"{warmup} is not below max_steps, which is {steps}",
        )


def _check_batch(spec: TrainingSpec, wrong: Violations) -> None:
    """How a batch is divided into microbatches, and those among devices."""
    rows, microbatches, shared = spec.rows_per_batch, spec.gradient_accumulation_steps, spec.mesh.fsdp
    divided = "spec.gradient_accumulation_steps"
    if wrong.names("spec.rows_per_batch", "spec.tokens_per_batch", divided):
        return
    if not wrong.check(
        rows % microbatches == 0, divided, f"{microbatches} does not divide the {rows} rows of a batch"
    ):
        return
    if not wrong.names("spec.mesh"):
        wrong.check(
            rows // microbatches % shared == 0,
            "spec.mesh.fsdp",
            f"{shared} does not divide the {rows // microbatches} rows that are computed at a time",
        )


def _check_measured(spec: TrainingSpec, asked: Mapping[str, Any], wrong: Violations) -> None:
    """Whether what is decided by the validation loss has one."""
    if not spec.validation_interval_steps:
        problem = "needs validation_interval_steps above 0 to measure the loss"
        wrong.check(not spec.keep_best_checkpoint, "spec.keep_best_checkpoint", problem)
        wrong.check("early_stopping" not in asked, "spec.early_stopping", problem)


NAMED: Final = 5
"""How many of the rows are named."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with rows: the error's reason, what follows "N examples are", and what would be right."""

    reason: str
    text: str
    remedy: str


def too_long(max_length: int) -> Problem:
    """They have more tokens than a row of a batch."""
    return Problem(
        "EXAMPLE_TOO_LONG",
        f"longer than max_length of {max_length} tokens",
        "set a larger max_length, or leave these traces out of the dataset",
    )


NO_RESPONSE: Final = Problem(
    "EXAMPLE_WITHOUT_RESPONSE", "without a response to learn", "leave these traces out of the dataset"
)
NO_END: Final = Problem(
    "END_NOT_SUPERVISED",
    "without the token that ends a turn in what is learned, so the model would not learn to stop",
    "build the dataset for this model (tunix-rt dataset build --base-model), with its own chat template",
)

LOST: Final = Problem(
    "TARGET_LOST",
    "no longer what they were once they are tokens: the tokenizer writes another response, or there is none",
    "leave these traces out of the dataset, or train a model whose tokenizer can write them",
)
SPECIAL: Final = Problem(
    "SPECIAL_TOKEN_IN_TEXT",
    "with a special token of the model in a text, which would be read as a command",
    "build the dataset for this model (tunix-rt dataset build --base-model), which leaves these traces out",
)


ELSEWHERE: Final = Problem(
    "SUPERVISED_ELSEWHERE",
    "such that the model would learn what another says, or a turn that is not to be learned",
    "build the dataset again: what built it set a wrong loss mask",
)


def refusal(
    problem: Problem, split: str, count: int, first_id: str, labels: Sequence[str], dataset: str = ""
) -> FailedPrecondition:
    """The error for ``count`` rows, of which ``labels`` names at least the first ``NAMED``.

    With ``dataset`` it is an error about the field ``spec.dataset``.
    """
    named = labels[:NAMED]
    about = f"{count} examples of split {split!r}"
    if dataset:
        about = f"spec.dataset: {about} of {dataset}"
    more = f" and {count - len(named)} more" if count > len(named) else ""
    return FailedPrecondition(
        f"{about} are {problem.text}: {', '.join(named)}{more}; {problem.remedy}",
        reason=problem.reason,
        metadata={"split": split, "count": str(count), "first_id": first_id},
    )


def advice(spec: TrainingSpec) -> str:
    """The settings that take less memory, of those that can still be changed."""
    settings = ["a smaller rows_per_batch"]
    if spec.gradient_accumulation_steps < spec.rows_per_batch:
        settings.append("more gradient_accumulation_steps")
    if spec.remat != "full":
        settings.append('remat "full"')
    settings.append("a shorter max_length")
    return f"{', '.join(settings[:-1])} or {settings[-1]} takes less"


def rows_at_a_time(spec: TrainingSpec) -> str:
    """How many rows of which length are computed at a time."""
    rows = spec.rows_per_batch // spec.gradient_accumulation_steps
    return f"{rows} rows of {spec.max_length} tokens at a time"

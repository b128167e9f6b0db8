"""An error names the option that a person typed, not the field of the contract behind it."""

from __future__ import annotations

from typing import Any

import pytest
import typer

from tunix_rt import v1
from tunix_rt.cli.datasets import app as datasets
from tunix_rt.cli.errors import TypedNames, failure_of
from tunix_rt.cli.evaluate import evaluate_app
from tunix_rt.cli.training_start import app as training
from tunix_rt.errors import FieldViolation, FormatError, InvalidArgumentError, JobFailedError


def names(app: typer.Typer, command: str = "") -> TypedNames:
    found: Any = typer.main.get_command(app)
    return TypedNames((found.commands[command] if command else found).params)


TRAIN, BUILD, EVALUATE = names(training, "start"), names(datasets, "build"), names(evaluate_app)


@pytest.mark.parametrize(
    ("command", "field", "typed"),
    [
        (TRAIN, "spec.lora.rank", "--rank"),
        (TRAIN, "spec.gradient_accumulation_steps", "--gradient-accumulation"),
        (TRAIN, "spec.early_stopping.patience", "--early-stopping"),
        (TRAIN, "spec.lora.target_modules[2]", "--target-module"),
        (TRAIN, "spec.optimizer.learning_rate", "--learning-rate"),
        (BUILD, "spec.dataset_id", "ID"),
        (BUILD, "spec.splits[0].fraction", "--split"),
        (BUILD, "spec.filter.metadata[1].key", "--where"),
        (BUILD, "spec.deduplication.threshold", "--similarity"),
        (BUILD, "spec.split_group.near_duplicate_threshold", "--keep-apart"),
        (BUILD, "spec.chat_template.system_instruction", "--system"),
        (BUILD, "spec.chat_template.jinja", "--template"),
        (BUILD, "items[3].seed", "items[3].seed"),
        (EVALUATE, "eval_set.items[3].accepted_answers[0]", "eval_set.items[3].accepted_answers[0]"),
        (EVALUATE, "spec.decoding.log_probabilities", "--logprobs"),
        (EVALUATE, "spec.no_option", "spec.no_option"),
    ],
)
def test_a_field_is_called_by_its_option(command: TypedNames, field: str, typed: str) -> None:
    assert command.of_field(field) == typed


@pytest.mark.parametrize(
    ("command", "message"),
    [(TRAIN, v1.TrainingSpec), (BUILD, v1.DatasetSpec), (EVALUATE, v1.EvaluationSpec)],
)
def test_every_field_that_a_command_fills_has_its_option(command: TypedNames, message: Any) -> None:
    # No option of `dataset build` chooses all traces: that is what it does without one.
    unnamed = {
        field.name
        for field in message.DESCRIPTOR.fields
        if command.of_field(f"spec.{field.name}").startswith("spec.")
    }
    inner = {"lora", "optimizer", "mesh", "early_stopping", "decoding", "filter", "deduplication"}
    assert unnamed <= inner | {"selection", "split_group", "decontamination", "version"}


def test_a_number_that_does_not_fit_is_named_by_its_option() -> None:
    with pytest.raises(ValueError, match="out of range") as caught:
        v1.LoraConfig(rank=2**32)
    command: Any = typer.main.get_command(training)
    typed = TypedNames(command.commands["start"].params, {"rank": 2**32, "seed": 7})
    found = failure_of(caught.value, typed)
    assert found.message == "--rank: is 4294967296, more than its field can hold"
    assert [violation["option"] for violation in found.violations] == ["--rank"]


def test_every_line_of_an_error_says_what_was_typed() -> None:
    error = InvalidArgumentError(
        "spec.epochs: is 2, beside max_steps (and 1 more)",
        field_violations=[
            FieldViolation("spec.epochs", "is 2, beside max_steps"),
            FieldViolation("spec.lora.rank", "is 'target_modules'; rank is a number"),
        ],
    )
    assert failure_of(error, TRAIN).lines() == [
        "--epochs: is 2, beside --max-steps (and 1 more)",
        "  --rank: is 'target_modules'; rank is a number",
    ]
    assert failure_of(error).message == "spec.epochs: is 2, beside max_steps (and 1 more)"


def test_the_error_of_a_job_that_failed_says_what_was_typed() -> None:
    message = "datasets/d@1 failed: spec.split_group.metadata_field: is 'spec.seed', which none has"
    error = JobFailedError(message, resource=v1.Dataset())
    assert failure_of(error, BUILD).lines() == [
        "datasets/d@1 failed: --group-by: is 'spec.seed', which none has"
    ]


@pytest.mark.parametrize(
    ("message", "fields", "others"),
    [
        (
            "x.jsonl, line 5: prompt: is empty (and 2 more)",
            ["line 5: prompt", "line 7: prompt", "line 9: id"],
            [1, 2],
        ),
        ("a: is empty (and 1 more)", ["a", "b"], [1]),
        ("spec.a: is empty (and 1 more)", ["spec.a", "a"], [1]),
        ("checked: items[1].b: is empty (and 1 more)", ["items[1].b", "items[11].b"], [1]),
        ("2 fields are wrong", ["a", "b"], [0, 1]),
        ("the plan was refused: is empty", ["a"], []),
    ],
)
def test_what_the_first_line_names_is_not_said_again(
    message: str, fields: list[str], others: list[int]
) -> None:
    violations = [FieldViolation(field, "is empty") for field in fields]
    failure = failure_of(InvalidArgumentError(message, field_violations=violations))
    assert failure.lines() == [message, *(f"  {fields[index]}: is empty" for index in others)]
    assert [violation["field"] for violation in failure.document()["violations"]] == fields


def test_a_field_of_a_line_is_not_taken_for_an_option() -> None:
    error = FormatError(3, "split: is missing", field_violations=[FieldViolation("split", "is missing")])
    assert failure_of(error, BUILD).lines() == ["line 3: split: is missing"]
    assert failure_of(error, BUILD).document()["violations"][0]["option"] is None

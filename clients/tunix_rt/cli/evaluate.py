"""`tunix-rt evaluate` and `evaluation regrade`: let a model answer an eval set, and grade answers again.

What these need, options read off the contract and graders, is loaded for them alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import typer

from tunix_rt import Client, v1
from tunix_rt.cli.command import command, single
from tunix_rt.cli.evaluation_view import print_evaluation
from tunix_rt.cli.evaluations import EvaluationArgument, app, followed
from tunix_rt.cli.grading import GraderFileOption, errors_of, grader_of_file
from tunix_rt.cli.labels import LabelOptions
from tunix_rt.cli.lookup import checkpoint_name, completes, named
from tunix_rt.cli.options import (
    DTYPE_HELP,
    BosTokenOption,
    DetachOption,
    EosTokenOption,
    ReasoningMarksOption,
    Shown,
    SpecOptions,
    chat_template,
    marks_of,
    resource_name,
    spec_options,
)
from tunix_rt.cli.session import Session
from tunix_rt.formats import read_grader_text
from tunix_rt.loop.settings import DecodingSettings
from tunix_rt.loop.specs import filled

evaluate_app = single()

_SAMPLING = "Sampling"
_SHOWN = {
    "max_new_tokens": Shown("Tokens of an answer, at most. \\[default: 128]"),
    "batch_size": Shown("Answers generated together. \\[default: 16]"),
    "temperature": Shown(
        "Sampling temperature, 0.001 to 5; 0 takes the most probable tokens. \\[default: 0]",
        _SAMPLING,
    ),
    "top_p": Shown(
        "Sample from the most probable tokens that sum to this, 0.000001 to 1. \\[default: 1]", _SAMPLING
    ),
    "seed": Shown("Seed of the sampling. \\[default: 0]", _SAMPLING),
    "samples": Shown(
        "Answers for each item, up to 64; more than 1 needs a temperature. \\[default: 1]", _SAMPLING
    ),
    "log_probabilities": Shown("Keep the log-probability of each token.", flags=("--logprobs",)),
}


@spec_options(DecodingSettings, _SHOWN)
class DecodingOptions(SpecOptions):
    """How answers are generated."""


@dataclass(frozen=True)
class ModelOptions:
    """What is asked, and in which chat template."""

    base_model: Annotated[
        str | None,
        typer.Option(
            "--base-model",
            "-m",
            help="A base model's id, or a Hugging Face folder on the evaluator's host.",
            autocompletion=completes("baseModels"),
        ),
    ] = None
    checkpoint: Annotated[
        str | None,
        typer.Option(
            "--checkpoint",
            "-c",
            help="A checkpoint; or a training job, for its best or else its latest one.",
            autocompletion=completes("trainingJobs"),
        ),
    ] = None
    endpoint_model: Annotated[
        str | None,
        typer.Option(
            "--endpoint-model",
            help="A model of an OpenAI-compatible server, such as llama.cpp, vLLM or Ollama, by its name "
            "there. The evaluator finds the server by its TUNIX_RT_EVALUATOR_ENDPOINT_URL.",
        ),
    ] = None
    template: Annotated[
        str | None,
        typer.Option(
            "--template",
            help="Chat template: gemma-it, chatml, llama-3, model:NAME or file:PATH. "
            "\\[default: the checkpoint's, or the model's own]",
        ),
    ] = None
    system: Annotated[str, typer.Option("--system", help="With --template: its system instruction.")] = ""
    bos_token: BosTokenOption = ""
    eos_token: EosTokenOption = ""

    def check(self) -> None:
        """Raise typer.BadParameter unless one model is given, and a system instruction with its template."""
        given = (self.base_model, self.checkpoint, self.endpoint_model)
        if sum(model is not None for model in given) != 1:
            raise typer.BadParameter("give --base-model, --checkpoint or --endpoint-model, one of the three")
        if self.system and self.template is None:
            raise typer.BadParameter("--system goes with --template")

    def fill(self, session: Session, client: Client, spec: v1.EvaluationSpec) -> None:
        """Say in the spec which model is asked, and in which template."""
        if self.base_model is not None:
            spec.base_model = self.base_model
        elif self.endpoint_model is not None:
            spec.endpoint_model = self.endpoint_model
        elif self.checkpoint is not None:
            spec.checkpoint = checkpoint_name(session, client, self.checkpoint)
        if self.template is not None:
            spec.chat_template.CopyFrom(
                chat_template(
                    client,
                    self.template,
                    system_instruction=self.system,
                    bos_token=self.bos_token,
                    eos_token=self.eos_token,
                )
            )


@command(
    evaluate_app,
    "evaluate",
    example=(
        "tunix-rt evaluate --eval-set arithmetic-test --base-model smollm2-135m-instruct",
        "tunix-rt evaluate --eval-set arithmetic-test --checkpoint $JOB",
        "tunix-rt evaluate --eval-set arithmetic-test --checkpoint $JOB --temperature 0.7 --samples 8",
        "tunix-rt evaluate --eval-set arithmetic-test --endpoint-model qwen3-8b",
        "tunix-rt evaluate --eval-set arithmetic-test --endpoint-model magistral --reasoning-marks THINK",
    ),
    prints=v1.Evaluation,
)
def evaluate(
    session: Session,
    eval_set: Annotated[
        str,
        typer.Option(
            "--eval-set",
            "-e",
            help="The eval set's id or name.",
            show_default=False,
            autocompletion=completes("evalSets"),
        ),
    ],
    model: ModelOptions,
    decoding: DecodingOptions,
    labels: LabelOptions,
    reasoning_marks: ReasoningMarksOption = None,
    fresh: Annotated[
        bool,
        typer.Option("--fresh", help="Generate all answers anew, even those kept from earlier evaluations."),
    ] = False,
    dtype: Annotated[
        Literal["auto", "bfloat16", "float32"] | None,
        typer.Option("--dtype", help=DTYPE_HELP + " \\[default: auto]"),
    ] = None,
    detach: DetachOption = False,
) -> None:
    """Let a model answer an eval set, grade its answers and say how many were right.

    The eval set says how each answer is graded. `evaluation regrade` grades the same answers by another
    grader, such as a function of your own (`--grader-file`).
    """
    model.check()
    session.check_detached(detach)
    spec = v1.EvaluationSpec(reasoning_marks=marks_of(reasoning_marks))
    with session.connect() as client:
        name = named(session, client, resource_name("evalSets", eval_set))
        values = {"eval_set": name, "decoding": decoding.values(), "fresh": fresh, "dtype": dtype}
        model.fill(session, client, filled(spec, values))
        made = client.evaluator.create_evaluation(spec=spec, **labels.given())
        evaluation = followed(session, client, made, detach)
    session.show(evaluation, print_evaluation)


@command(
    app,
    "regrade",
    example=(
        "tunix-rt evaluation regrade $EVALUATION",
        "tunix-rt evaluation regrade $EVALUATION --eval-set arithmetic-test-corrected",
        """tunix-rt evaluation regrade $EVALUATION --grader '{"kind": "numeric", "tolerance": 0.5}'""",
        "tunix-rt evaluation regrade $EVALUATION --grader-file my.py:grade",
        "tunix-rt evaluation regrade $EVALUATION --reasoning-marks reasoning",
    ),
    prints=v1.Evaluation,
)
def regrade(
    session: Session,
    evaluation: EvaluationArgument,
    labels: LabelOptions,
    eval_set: Annotated[
        str,
        typer.Option(
            "--eval-set",
            "-e",
            help="Grade by this eval set instead; it needs the same ids and prompts.",
            autocompletion=completes("evalSets"),
        ),
    ] = "",
    grader: Annotated[
        str | None,
        typer.Option(
            "--grader", help="Grade every item by this: the name of a kind, or JSON with its settings."
        ),
    ] = None,
    grader_file: GraderFileOption = None,
    reasoning_marks: ReasoningMarksOption = None,
    detach: DetachOption = False,
) -> None:
    """Grade the answers of a finished evaluation again, without generating any.

    The result is a new evaluation, which can be shown and compared like any other.
    """
    session.check_detached(detach)
    if grader is not None and grader_file is not None:
        raise typer.BadParameter("give --grader or --grader-file, one of the two")
    try:
        wanted = None if grader is None else read_grader_text(grader)
    except ValueError as error:
        raise typer.BadParameter(f"--grader: {error}") from None
    wanted = wanted or grader_of_file(grader_file)
    name = resource_name("evaluations", evaluation)
    with session.connect() as client:
        name = named(session, client, name)
        other = named(session, client, resource_name("evalSets", eval_set)) if eval_set else ""
        with errors_of(grader_file):
            made = client.evaluator.regrade_evaluation(
                name,
                eval_set=other,
                grader=wanted,
                reasoning_marks=marks_of(reasoning_marks),
                **labels.given(),
            )
        made = followed(session, client, made, detach)
    session.show(made, print_evaluation)

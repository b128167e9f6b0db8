"""`tunix-rt evaluate` and `tunix-rt evaluation`: let a model answer an eval set, and look at its answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, Literal

import typer
from rich.text import Text

from tunix_rt import Client, jobs, v1
from tunix_rt.cli import tables, text
from tunix_rt.cli.command import command, group, single
from tunix_rt.cli.deleting import ForceOption, YesOption, delete_resources
from tunix_rt.cli.evaluation_view import model_label, print_evaluation
from tunix_rt.cli.grading import GraderFileOption, errors_of, grader_of_file
from tunix_rt.cli.options import (
    DTYPE_HELP,
    BosTokenOption,
    DetachOption,
    EosTokenOption,
    LimitOption,
    ReasoningMarksOption,
    Shown,
    SpecOptions,
    chat_template,
    checkpoint_name,
    marks_of,
    resource_name,
    short_name,
    spec_options,
)
from tunix_rt.cli.progress import evaluation_progress
from tunix_rt.cli.session import Session
from tunix_rt.formats import GRADER_KINDS, read_grader_text
from tunix_rt.loop.settings import DecodingSettings
from tunix_rt.loop.specs import filled
from tunix_rt.schema import nearest

app = group("Look at evaluations, item by item.")
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

EvaluationArgument = Annotated[str, typer.Argument(metavar="EVALUATION", help="The evaluation's name or id.")]


@spec_options(DecodingSettings, _SHOWN)
class DecodingOptions(SpecOptions):
    """How answers are generated."""


@dataclass(frozen=True)
class ModelOptions:
    """What is asked, and in which chat template."""

    base_model: Annotated[
        str | None,
        typer.Option(
            "--base-model", "-m", help="A base model's id, or a Hugging Face folder on the evaluator's host."
        ),
    ] = None
    checkpoint: Annotated[
        str | None,
        typer.Option(
            "--checkpoint", "-c", help="A checkpoint; or a training job, for its best or else its latest one."
        ),
    ] = None
    endpoint_model: Annotated[
        str | None,
        typer.Option(
            "--endpoint-model",
            help="A model of an OpenAI-compatible server, such as llama.cpp, vLLM or Ollama, by its name "
            "there; TUNIX_RT_EVALUATOR_ENDPOINT_URL says to the evaluator where that is.",
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

    def fill(self, client: Client, spec: v1.EvaluationSpec) -> None:
        """Say in the spec which model is asked, and in which template."""
        if self.base_model is not None:
            spec.base_model = self.base_model
        elif self.endpoint_model is not None:
            spec.endpoint_model = self.endpoint_model
        elif self.checkpoint is not None:
            spec.checkpoint = checkpoint_name(client, self.checkpoint)
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
    eval_set: Annotated[str, typer.Option("--eval-set", "-e", help="The eval set's id.", show_default=False)],
    model: ModelOptions,
    decoding: DecodingOptions,
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
    """Let a model answer an eval set, grade its answers and say how many were right."""
    model.check()
    session.check_detached(detach)
    spec = v1.EvaluationSpec(reasoning_marks=marks_of(reasoning_marks))
    with session.connect() as client:
        name = resource_name("evalSets", eval_set)
        values = {"eval_set": name, "decoding": decoding.values(), "fresh": fresh, "dtype": dtype}
        model.fill(client, filled(spec, values))
        evaluation = _followed(session, client, client.evaluator.create_evaluation(spec=spec), detach)
    session.show(evaluation, print_evaluation)


@command(app, "list", example="tunix-rt evaluation list", prints=list[v1.Evaluation])
def list_(session: Session, limit: LimitOption = 20) -> None:
    """List evaluations, newest first."""
    columns = ("EVALUATION", "!STATE", "EVAL SET", "MODEL", ">CORRECT", ">ACCURACY", ">AGE")
    with session.connect() as client:
        found = islice(client.evaluator.list_evaluations(page_size=min(limit, 1000)), limit)
        session.show_all(found, columns, _row, "no evaluations")


def _row(evaluation: v1.Evaluation) -> tables.Row:
    overall = evaluation.summary.overall
    done = evaluation.HasField("summary")
    return (
        short_name(evaluation.name),
        tables.state(v1.Evaluation.State.Name(evaluation.state)),
        short_name(evaluation.spec.eval_set),
        model_label(evaluation.spec),
        f"{overall.correct_count}/{overall.item_count}" if done else "-",
        text.percent(overall.accuracy) if done else "-",
        tables.age(evaluation.create_time),
    )


@command(app, "show", example="tunix-rt evaluation show $EVALUATION", prints=v1.Evaluation)
def show(session: Session, evaluation: EvaluationArgument) -> None:
    """Show one evaluation: accuracy, categories and what it was made from."""
    name = resource_name("evaluations", evaluation)
    with session.connect() as client:
        found = client.evaluator.get_evaluation(name)
    session.show(found, print_evaluation)


@command(
    app,
    "watch",
    example="tunix-rt evaluation watch $EVALUATION --server localhost:50050",
    prints=v1.Evaluation,
)
def watch(session: Session, evaluation: EvaluationArgument) -> None:
    """Follow an evaluation until it ends."""
    name = resource_name("evaluations", evaluation)
    with session.connect() as client:
        session.check_runs(lambda: client.evaluator.get_evaluation(name))
        ended = _wait(session, client, name)
    session.show(ended, print_evaluation)


@command(app, "resume", example="tunix-rt evaluation resume $EVALUATION", prints=v1.Evaluation)
def resume(session: Session, evaluation: EvaluationArgument) -> None:
    """Go on with an evaluation that was interrupted, and wait for it."""
    name = resource_name("evaluations", evaluation)
    with session.connect() as client:
        ended = _wait(session, client, name)
    session.show(ended, print_evaluation)


@command(
    app,
    "cancel",
    example="tunix-rt evaluation cancel $EVALUATION --server localhost:50050",
    prints=v1.Evaluation,
)
def cancel(session: Session, evaluation: EvaluationArgument) -> None:
    """Ask an evaluation to stop; its answers so far are kept."""
    name = resource_name("evaluations", evaluation)
    with session.connect() as client:
        found = client.evaluator.cancel_evaluation(name)
        found = session.settled(found, lambda: client.evaluator.get_evaluation(name))
    session.show(found, print_evaluation)


@command(
    app,
    "delete",
    example=(
        "tunix-rt evaluation delete $EVALUATION",
        "tunix-rt evaluation delete $EVALUATION --force --yes",
    ),
)
def delete(
    session: Session,
    evaluations: Annotated[list[str], typer.Argument(metavar="EVALUATION", help="Ids of evaluations.")],
    force: ForceOption = False,
    yes: YesOption = False,
) -> None:
    """Delete evaluations with their answers. What they were, and their summaries, stay on record."""
    names = [resource_name("evaluations", name) for name in evaluations]
    delete_resources(
        session,
        names,
        "evaluation",
        lambda client, name: client.evaluator.get_evaluation(name),
        force=force,
        yes=yes,
    )


@dataclass(frozen=True)
class ItemOptions:
    """Which items of an evaluation are shown."""

    wrong: Annotated[bool, typer.Option("--wrong", help="Only answers that are wrong.")] = False
    right: Annotated[bool, typer.Option("--right", help="Only answers that are right.")] = False
    category: Annotated[
        str | None, typer.Option("--category", help="Only items of this category ('' for none).")
    ] = None
    grader: Annotated[
        str, typer.Option("--grader", help="Only items of this kind of grader, such as numeric.")
    ] = ""
    cut_short: Annotated[
        bool, typer.Option("--cut-short", help="Only items with an answer that reached --max-new-tokens.")
    ] = False
    failed: Annotated[
        bool, typer.Option("--failed", help="Only items for which no answer was generated.")
    ] = False
    unclosed: Annotated[
        bool, typer.Option("--unclosed", help="Only items with reasoning that was never closed.")
    ] = False
    ungraded: Annotated[
        bool, typer.Option("--ungraded", help="Only answers that could not be graded, and why.")
    ] = False

    def filter(self) -> v1.EvaluationItemFilter:
        """The filter; raises typer.BadParameter for options that exclude each other."""
        if self.wrong and self.right:
            raise typer.BadParameter("give --wrong or --right, not both")
        if self.cut_short and self.failed:
            raise typer.BadParameter("give --cut-short or --failed, not both")
        if self.grader and self.grader not in GRADER_KINDS:
            known = nearest(self.grader, GRADER_KINDS)
            raise typer.BadParameter(f"--grader: {self.grader!r} is no kind of grader; {known}")
        wanted = v1.EvaluationItemFilter(category=self.category, grader=self.grader)
        if self.wrong or self.right:
            wanted.correct = self.right
        if self.ungraded:
            wanted.ungraded = True
        if self.unclosed:
            wanted.unclosed_reasoning = True
        if self.cut_short or self.failed:
            wanted.finish_reason = v1.FINISH_REASON_LENGTH if self.cut_short else v1.FINISH_REASON_FAILED
        return wanted


@command(
    app,
    "items",
    example=(
        "tunix-rt evaluation items $EVALUATION --wrong --limit 5",
        "tunix-rt evaluation items $EVALUATION --category units --cut-short",
        "tunix-rt evaluation items $EVALUATION --ungraded --json",
        "tunix-rt evaluation items $EVALUATION --wrong --samples",
    ),
    prints=list[v1.EvaluationResult],
)
def items(
    session: Session,
    evaluation: EvaluationArgument,
    wanted: ItemOptions,
    samples: Annotated[
        bool,
        typer.Option("--samples", help="Show every sample below its item; JSON always has them."),
    ] = False,
    limit: LimitOption = 20,
) -> None:
    """Show what the model answered, and the grades."""
    chosen = wanted.filter()
    name = resource_name("evaluations", evaluation)
    with session.connect() as client:
        results = client.evaluator.list_evaluation_items(name, filter=chosen, page_size=min(limit, 1000))
        found = islice(results, limit)
        if session.as_json:
            session.print_messages(found)
            return
        _print_items(session, list(found), samples=samples)


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
    eval_set: Annotated[
        str,
        typer.Option(
            "--eval-set", "-e", help="Grade by this eval set instead; it needs the same ids and prompts."
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

    The result is an evaluation of its own, which can be looked at and compared like any other.
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
        with errors_of(grader_file):
            made = client.evaluator.regrade_evaluation(
                name,
                eval_set=resource_name("evalSets", eval_set) if eval_set else "",
                grader=wanted,
                reasoning_marks=marks_of(reasoning_marks),
            )
        made = _followed(session, client, made, detach)
    session.show(made, print_evaluation)


def _print_items(session: Session, found: Sequence[v1.EvaluationResult], *, samples: bool) -> None:
    rows = tables.table("ITEM", "!GRADE", "~PROMPT", "~OUTPUT", "~ANSWER", "ACCEPTED")
    for result in found:
        tables.add_row(
            rows,
            result.item_id,
            _grade(result),
            text.one_line(result.prompt, 160),
            _output(result),
            text.one_line(result.grade_error or result.error or result.extracted_answer, 160) or "-",
            text.one_line(" | ".join(result.accepted_answers), 24),
        )
        for number, sample in enumerate(result.samples if samples else ()):
            tables.add_row(
                rows,
                f"  sample {number}",
                _grade(sample),
                "",
                _output(sample),
                text.one_line(sample.grade_error or sample.extracted_answer, 160) or "-",
                "",
            )
    tables.print_table(session.out, rows, "no items")


def _output(answer: v1.EvaluationResult | v1.Sample) -> str:
    """The text of an answer, with the amount of reasoning in the place of the reasoning."""
    if answer.reasoning_state not in (v1.REASONING_STATE_CLOSED, v1.REASONING_STATE_UNCLOSED):
        return text.one_line(answer.output, 240)
    told = f"{answer.reasoning_tokens:,} tokens of " if answer.HasField("reasoning_tokens") else ""
    if answer.reasoning_state == v1.REASONING_STATE_UNCLOSED:
        return text.one_line(f"({told}reasoning, never closed) {answer.reasoning or answer.output}", 240)
    return text.one_line(f"({told}reasoning) {answer.answer}", 240)


def _grade(answer: v1.EvaluationResult | v1.Sample) -> Text:
    if answer.grade_error:
        return Text("ungraded", style="yellow")
    score = "" if answer.score in (0.0, 1.0) else f" {answer.score:.2f}"
    return Text(f"right{score}", style="green") if answer.correct else Text(f"wrong{score}", style="red")


def _followed(session: Session, client: Client, evaluation: v1.Evaluation, detach: bool) -> v1.Evaluation:
    """Print the evaluation's name; return it once it has ended or, with ``detach``, as it is."""
    if detach:
        return evaluation
    session.say(f"evaluation {short_name(evaluation.name)}")
    return _wait(session, client, evaluation.name)


def _wait(session: Session, client: Client, name: str) -> v1.Evaluation:
    look = f"tunix-rt evaluation {'show' if session.embedded else 'watch'} {short_name(name)}"
    evaluation = v1.Evaluation(name=name)
    with session.progress() as progress, session.waiting_for("evaluation", evaluation, look):
        return jobs.wait_for_evaluation(client, name, on_update=evaluation_progress(progress))

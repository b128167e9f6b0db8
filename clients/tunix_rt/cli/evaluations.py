"""`tunix-rt evaluate` and `tunix-rt evaluation`: let a model answer an eval set, and look at its answers."""

from __future__ import annotations

from itertools import islice
from typing import Annotated, Literal

import typer

from tunix_rt import Client, jobs, v1
from tunix_rt.cli import tables, text
from tunix_rt.cli.command import command, group, single
from tunix_rt.cli.deleting import DeletedResources, ForceOption, YesOption, delete_resources
from tunix_rt.cli.evaluation_options import DecodingOptions, ItemOptions, ModelOptions
from tunix_rt.cli.evaluation_view import (
    briefly_answered,
    dtype_text,
    how_answered,
    model_label,
    print_evaluation,
    print_items,
)
from tunix_rt.cli.grading import GraderFileOption, errors_of, grader_of_file
from tunix_rt.cli.labels import (
    ChangeOptions,
    DatasetOption,
    EvalSetOption,
    LabelOptions,
    Listed,
    ListOptions,
    ModelOption,
    StateOption,
    change_labels,
    dataset_names,
    model_names,
    numbered,
    show_list,
    sort_option,
)
from tunix_rt.cli.lookup import cancelled, completes, look_up, named
from tunix_rt.cli.options import (
    DTYPE_HELP,
    DetachOption,
    LimitOption,
    ReasoningMarksOption,
    marks_of,
    resource_name,
    short_name,
)
from tunix_rt.cli.progress import evaluation_progress
from tunix_rt.cli.session import Session
from tunix_rt.formats import read_grader_text
from tunix_rt.loop.specs import filled

app = group("Look at evaluations, item by item.")
evaluate_app = single()

EvaluationArgument = Annotated[
    str,
    typer.Argument(
        metavar="EVALUATION",
        help="The evaluation's id, the beginning of it, or its name.",
        autocompletion=completes("evaluations"),
    ),
]


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
        evaluation = _followed(session, client, made, detach)
    session.show(evaluation, print_evaluation)


@command(
    app,
    "list",
    example=(
        "tunix-rt evaluation list",
        "tunix-rt evaluation list --eval-set arithmetic-test --model smollm2-135m-instruct",
        "tunix-rt evaluation list --tag sweep --state succeeded --sort name",
    ),
    prints=list[v1.Evaluation],
)
def list_(
    session: Session,
    wanted: ListOptions,
    state: StateOption = None,
    model: ModelOption = None,
    dataset: DatasetOption = None,
    eval_set: EvalSetOption = None,
    sort: Annotated[str, sort_option("created", "name", "state", "eval-set", "model", "dataset")] = "",
    limit: LimitOption = 20,
) -> None:
    """List evaluations, the newest first unless they are sorted.

    ANSWERS begins the digest of all answers and grades: evaluations that differ in it had other results.
    In a narrow window `t=0.7 s=12` is a temperature of 0.7 with seed 12.
    """
    condition = v1.EvaluationFilter(
        **wanted.conditions(),
        states=numbered(v1.Evaluation.State, state),
        models=model_names(model),
        datasets=dataset_names(dataset),
        eval_sets=[resource_name("evalSets", given) for given in eval_set or ()],
    )
    table = Listed(_COLUMNS, _row, "no evaluations", _IMPORTANT)
    show_list(session, "evaluations", condition, wanted, sort, limit, table)


_COLUMNS = (
    "EVALUATION",
    "!STATE",
    "?NAME",
    "EVAL SET",
    "MODEL",
    "!DTYPE",
    "DECODING",
    ">CORRECT",
    ">ACCURACY",
    "?!ANSWERS",
    "?TAGS",
    "?DELETED",
    ">AGE",
)
# The digest of the answers tells results apart, then what they come from.
_IMPORTANT = ("ACCURACY", "ANSWERS", "DTYPE", "DECODING", "NAME", "MODEL", "STATE", "EVAL SET", "DELETED")


def _row(evaluation: v1.Evaluation) -> tables.Row:
    overall = evaluation.summary.overall
    done = evaluation.HasField("summary")
    state = tables.state(v1.Evaluation.State.Name(evaluation.state))
    return (
        short_name(evaluation.name),
        state,
        evaluation.display_name,
        short_name(evaluation.spec.eval_set),
        model_label(evaluation.spec),
        dtype_text(evaluation.spec),
        tables.Brief(how_answered(evaluation), briefly_answered(evaluation)),
        f"{overall.correct_count}/{overall.item_count}" if done else "-",
        text.percent(overall.accuracy) if done else tables.Brief("-", state.plain),
        tables.digest(evaluation.manifest.results_digest) if done else "",
        ", ".join(evaluation.tags),
        tables.deleted(evaluation),
        tables.age(evaluation.create_time),
    )


@command(app, "show", example="tunix-rt evaluation show $EVALUATION", prints=v1.Evaluation)
def show(session: Session, evaluation: EvaluationArgument) -> None:
    """Show one evaluation: accuracy, categories and what it was made from."""
    session.show(look_up(session, resource_name("evaluations", evaluation)), print_evaluation)


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
        name = named(session, client, name, patience_s=jobs.PATIENCE)
        session.check_runs(lambda: client.evaluator.get_evaluation(name))
        ended = _wait(session, client, name)
    session.show(ended, print_evaluation)


@command(app, "resume", example="tunix-rt evaluation resume $EVALUATION", prints=v1.Evaluation)
def resume(session: Session, evaluation: EvaluationArgument) -> None:
    """Go on with an evaluation that was interrupted, and wait for it."""
    name = resource_name("evaluations", evaluation)
    with session.connect() as client:
        ended = _wait(session, client, named(session, client, name))
    session.show(ended, print_evaluation)


@command(
    app,
    "update",
    example=(
        "tunix-rt evaluation update $EVALUATION --name 'base, greedy'",
        "tunix-rt evaluation update $EVALUATION --tag base --note 'with the old prompt'",
    ),
    prints=v1.Evaluation,
)
def update(session: Session, evaluation: EvaluationArgument, labels: ChangeOptions) -> None:
    """Rename an evaluation, tag it, or note something about it."""
    change_labels(session, resource_name("evaluations", evaluation), labels)


@command(
    app,
    "cancel",
    example="tunix-rt evaluation cancel $EVALUATION --server localhost:50050",
    prints=v1.Evaluation,
)
def cancel(session: Session, evaluation: EvaluationArgument) -> None:
    """Ask an evaluation to stop; its answers so far are kept."""
    session.show(cancelled(session, resource_name("evaluations", evaluation)), print_evaluation)


@command(
    app,
    "delete",
    prints=DeletedResources,
    example=(
        "tunix-rt evaluation delete $EVALUATION",
        "tunix-rt evaluation delete $EVALUATION --force --yes",
    ),
)
def delete(
    session: Session,
    evaluations: Annotated[
        list[str],
        typer.Argument(
            metavar="EVALUATION", help="Ids of evaluations.", autocompletion=completes("evaluations")
        ),
    ],
    force: ForceOption = False,
    yes: YesOption = False,
) -> None:
    """Delete evaluations with their answers. What they were, and their summaries, stay on record."""
    names = [resource_name("evaluations", name) for name in evaluations]
    delete_resources(session, names, "evaluation", force=force, yes=yes)


@command(
    app,
    "items",
    example=(
        "tunix-rt evaluation items $EVALUATION --wrong --limit 5",
        "tunix-rt evaluation items $EVALUATION --category units --cut-short",
        "tunix-rt evaluation items $EVALUATION --ungraded --json",
        "tunix-rt evaluation items $EVALUATION --sort score,-tokens",
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
    sort: Annotated[str, sort_option("item", "category", "score", "tokens")] = "",
    limit: LimitOption = 20,
) -> None:
    """Show what the model answered, and the grades."""
    chosen = wanted.filter()
    name = resource_name("evaluations", evaluation)
    with session.connect() as client:
        name = named(session, client, name)
        results = client.evaluator.list_evaluation_items(
            name, filter=chosen, order_by=sort, page_size=min(limit, 1000)
        )
        found = islice(results, limit)
        if session.as_json:
            session.print_messages(found)
            return
        print_items(session.out, list(found), samples=samples)


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
        made = _followed(session, client, made, detach)
    session.show(made, print_evaluation)


def _followed(session: Session, client: Client, evaluation: v1.Evaluation, detach: bool) -> v1.Evaluation:
    """Print the evaluation's name; return it once it has ended or, with ``detach``, as it is."""
    if detach:
        return evaluation
    session.say(f"evaluation {short_name(evaluation.name)}")
    session.say_what_goes_on_too(evaluation, client.evaluator.list_evaluations)
    return _wait(session, client, evaluation.name)


def _wait(session: Session, client: Client, name: str) -> v1.Evaluation:
    look = f"tunix-rt evaluation {'show' if session.embedded else 'watch'} {short_name(name)}"
    evaluation = v1.Evaluation(name=name)
    with session.progress() as progress, session.waiting_for("evaluation", evaluation, look):
        return jobs.wait_for_evaluation(client, name, on_update=evaluation_progress(progress))

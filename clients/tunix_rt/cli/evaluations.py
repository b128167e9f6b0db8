"""`tunix-rt evaluation`: look at evaluations and their answers, and look after them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import Annotated

import typer

from tunix_rt import Client, jobs, v1
from tunix_rt.cli import tables, text
from tunix_rt.cli.command import command, group
from tunix_rt.cli.deleting import DeletedResources, ForceOption, YesOption, delete_resources
from tunix_rt.cli.evaluation_view import (
    briefly_answered,
    dtype_text,
    how_answered,
    model_label,
    print_evaluation,
    print_items,
)
from tunix_rt.cli.labels import (
    ChangeOptions,
    DatasetOption,
    EvalSetOption,
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
    LimitOption,
    resource_name,
    short_name,
)
from tunix_rt.cli.progress import evaluation_progress
from tunix_rt.cli.session import Session

app = group("Look at evaluations, item by item.")

EvaluationArgument = Annotated[
    str,
    typer.Argument(
        metavar="EVALUATION",
        help="The evaluation's id, the beginning of it, or its name.",
        autocompletion=completes("evaluations"),
    ),
]


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
    sort: Annotated[
        str, sort_option("created", "name", "state", "eval-set", "model", "dataset", "accuracy")
    ] = "",
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
    """Continue an interrupted evaluation, and wait for it."""
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
        self._check_grader()
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

    def _check_grader(self) -> None:
        if not self.grader:
            return
        # What reads files and graders takes long to load.
        from tunix_rt.formats import GRADER_KINDS
        from tunix_rt.schema import nearest

        if self.grader not in GRADER_KINDS:
            known = nearest(self.grader, GRADER_KINDS)
            raise typer.BadParameter(f"--grader: {self.grader!r} is no kind of grader; {known}")


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


def followed(session: Session, client: Client, evaluation: v1.Evaluation, detach: bool) -> v1.Evaluation:
    """Print the evaluation's name; return it once it has ended or, with ``detach``, as it is."""
    if detach:
        look = f"tunix-rt evaluation watch {short_name(evaluation.name)}"
        session.say_how_to_watch(evaluation, look)
        return evaluation
    session.say(f"evaluation {short_name(evaluation.name)}")
    session.say_what_goes_on_too(evaluation, client.evaluator.list_evaluations)
    return _wait(session, client, evaluation.name)


def _wait(session: Session, client: Client, name: str) -> v1.Evaluation:
    look = f"tunix-rt evaluation {'show' if session.embedded else 'watch'} {short_name(name)}"
    evaluation = v1.Evaluation(name=name)
    with session.progress() as progress, session.waiting_for("evaluation", evaluation, look):
        return jobs.wait_for_evaluation(client, name, on_update=evaluation_progress(progress))

"""`tunix-rt evaluation items` and `regrade`: answers with their grades, and other grades for them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Annotated

import typer
from rich.text import Text

from tunix_rt import v1
from tunix_rt.cli import tables, text
from tunix_rt.cli.command import command
from tunix_rt.cli.evaluations import EvaluationArgument, app, show_evaluation, wait
from tunix_rt.cli.resources import resource_name, short_name
from tunix_rt.cli.session import Session
from tunix_rt.cli.spec_options import ReasoningMarksOption, marks_of
from tunix_rt.formats import GRADER_KINDS, read_grader_text
from tunix_rt.schema import nearest

__all__ = ["app"]


@command(
    app,
    "items",
    example=(
        "tunix-rt evaluation items $EVALUATION --wrong --limit 5",
        "tunix-rt evaluation items $EVALUATION --category units --cut-short",
        "tunix-rt evaluation items $EVALUATION --ungraded --json",
        "tunix-rt evaluation items $EVALUATION --wrong --samples",
    ),
)
def items(
    session: Session,
    evaluation: EvaluationArgument,
    wrong: Annotated[bool, typer.Option("--wrong", help="Only answers that are wrong.")] = False,
    right: Annotated[bool, typer.Option("--right", help="Only answers that are right.")] = False,
    category: Annotated[
        str | None, typer.Option("--category", help="Only items of this category ('' for none).")
    ] = None,
    grader: Annotated[
        str, typer.Option("--grader", help="Only items of this kind of grader, such as numeric.")
    ] = "",
    cut_short: Annotated[
        bool, typer.Option("--cut-short", help="Only items with an answer that reached --max-new-tokens.")
    ] = False,
    failed: Annotated[
        bool, typer.Option("--failed", help="Only items that nothing was generated for.")
    ] = False,
    unclosed: Annotated[
        bool, typer.Option("--unclosed", help="Only items with reasoning that was never closed.")
    ] = False,
    ungraded: Annotated[
        bool, typer.Option("--ungraded", help="Only answers that could not be graded, and why.")
    ] = False,
    samples: Annotated[
        bool,
        typer.Option("--samples", help="Show every sample of an item, below it; JSON always holds them."),
    ] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Most items shown.")] = 20,
) -> None:
    """Show what the model answered, and the grades."""
    if wrong and right:
        raise typer.BadParameter("give --wrong or --right, not both")
    if cut_short and failed:
        raise typer.BadParameter("give --cut-short or --failed, not both")
    if grader and grader not in GRADER_KINDS:
        raise typer.BadParameter(
            f"--grader: {grader!r} is no kind of grader; {nearest(grader, GRADER_KINDS)}"
        )
    wanted = v1.EvaluationItemFilter(category=category, grader=grader)
    if wrong or right:
        wanted.correct = right
    if ungraded:
        wanted.ungraded = True
    if unclosed:
        wanted.unclosed_reasoning = True
    if cut_short or failed:
        wanted.finish_reason = v1.FINISH_REASON_LENGTH if cut_short else v1.FINISH_REASON_FAILED
    name = resource_name("evaluations", evaluation)
    with session.connect() as client:
        results = client.evaluator.list_evaluation_items(name, filter=wanted, page_size=min(limit, 1000))
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
        "tunix-rt evaluation regrade $EVALUATION --reasoning-marks reasoning",
    ),
)
def regrade(
    session: Session,
    evaluation: EvaluationArgument,
    eval_set: Annotated[
        str,
        typer.Option(
            "--eval-set", "-e", help="Grade by this eval set, which has the same ids and prompts, instead."
        ),
    ] = "",
    grader: Annotated[
        str | None,
        typer.Option("--grader", help="Grade every item so: the name of a kind, or JSON with its settings."),
    ] = None,
    reasoning_marks: ReasoningMarksOption = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Do not wait for it (with a server only).")
    ] = False,
) -> None:
    """Grade the answers of a finished evaluation again, without generating any.

    The result is an evaluation of its own, which can be looked at and compared like any other.
    """
    if detach and session.embedded:
        raise typer.BadParameter("--detach needs a server: the embedded one ends with this command")
    try:
        wanted = None if grader is None else read_grader_text(grader)
    except ValueError as error:
        raise typer.BadParameter(f"--grader: {error}") from None
    name = resource_name("evaluations", evaluation)
    with session.connect() as client:
        made = client.evaluator.regrade_evaluation(
            name,
            eval_set=resource_name("evalSets", eval_set) if eval_set else "",
            grader=wanted,
            reasoning_marks=marks_of(reasoning_marks),
        )
        if not detach:
            session.say(f"evaluation {short_name(made.name)}")
            made = wait(session, client, made.name)
    show_evaluation(session, made)


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
    """What was written: the answer, and in its place how much reasoning there is."""
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

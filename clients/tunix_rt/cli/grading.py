"""`tunix-rt grade`, and how a grader is given on the command line."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from tunix_rt import Client, v1
from tunix_rt.cli import tables
from tunix_rt.cli.command import command, single
from tunix_rt.cli.lookup import completes, named
from tunix_rt.cli.options import resource_name
from tunix_rt.cli.session import Session
from tunix_rt.errors import FormatError, InvalidArgumentError
from tunix_rt.formats import read_grader_file, read_grader_text
from tunix_rt.formats.grading import grader_file_parts

app = single()

GraderFileOption = Annotated[
    str | None,
    typer.Option(
        "--grader-file",
        metavar="FILE[:FUNCTION]",
        help="Grade every item by a Python function of your own, such as my.py:grade. It is called as "
        "grade(output, item), and returns True, False or a number from 0 to 1.",
    ),
]


def grader_of_file(given: str | None) -> v1.Grader | None:
    """The grader of `--grader-file`; raises typer.BadParameter."""
    try:
        return None if given is None else read_grader_file(given)
    except ValueError as error:
        raise typer.BadParameter(f"--grader-file: {error}") from None


@contextmanager
def errors_of(grader_file: str | None) -> Iterator[None]:
    """Around calls with the grader of `--grader-file`: what is wrong with its source names the file."""
    try:
        yield
    except InvalidArgumentError as error:
        for wrong in error.field_violations if grader_file is not None else ():
            if ".python.source" in wrong.field or wrong.field.endswith(".python.function"):
                path, _ = grader_file_parts(grader_file or "")
                told = wrong.description
                if "its functions are" in told:
                    told += f"; --grader-file {path}:FUNCTION names one of them"
                raise FormatError(0, told, file=path) from error
        raise


@dataclass(frozen=True)
class ItemOptions:
    """The question that is answered."""

    accepted: Annotated[
        list[str] | None, typer.Option("--accepted", "-a", help="An accepted answer (may be repeated).")
    ] = None
    prompt: Annotated[str, typer.Option("--prompt", help="The question.")] = ""
    metadata: Annotated[
        str, typer.Option("--metadata", help="The item's metadata, a JSON object, for a grader of your own.")
    ] = ""
    eval_set: Annotated[
        str,
        typer.Option(
            "--eval-set",
            "-e",
            help="Take the question of --item from this eval set.",
            autocompletion=completes("evalSets"),
        ),
    ] = ""
    evaluation: Annotated[
        str,
        typer.Option(
            "--evaluation",
            help="Take question and answer of --item from this evaluation.",
            autocompletion=completes("evaluations"),
        ),
    ] = ""
    item: Annotated[str, typer.Option("--item", help="The id of an item of that set or evaluation.")] = ""

    def check(self, output: str | None) -> None:
        """Raise typer.BadParameter unless there is one answer, and one question."""
        if (output is None) != bool(self.evaluation):
            raise typer.BadParameter("give an OUTPUT or --evaluation, one of the two")
        if bool(self.item) != bool(self.eval_set or self.evaluation):
            raise typer.BadParameter("--item goes with --eval-set or --evaluation")
        if self.item and (self.accepted or self.prompt or self.metadata):
            raise typer.BadParameter("--item has its own prompt, accepted answers and metadata")

    def read(self, session: Session, client: Client) -> tuple[v1.EvalItem, v1.EvaluationResult | None]:
        """The question, and what was answered to it if an evaluation was given."""
        if not self.item:
            item = v1.EvalItem(prompt=self.prompt, accepted_answers=self.accepted or [])
            item.metadata.update(_object(self.metadata))
            return item, None
        result = None
        eval_set = ""
        if self.eval_set:
            eval_set = named(session, client, resource_name("evalSets", self.eval_set))
        if self.evaluation:
            name = named(session, client, resource_name("evaluations", self.evaluation))
            eval_set = eval_set or client.evaluator.get_evaluation(name).spec.eval_set
            results = client.evaluator.list_evaluation_items(name, page_size=1000)
            result = next((found for found in results if found.item_id == self.item), None)
        items = client.evaluator.get_eval_set(eval_set).items
        known = next((found for found in items if found.id == self.item), None)
        if known is None or (self.evaluation and result is None):
            raise typer.BadParameter(f"--item: {self.item!r} is no item of {self.evaluation or eval_set}")
        return known, result


@command(
    app,
    "grade",
    example=(
        'tunix-rt grade "The total is 56." --accepted 56',
        'tunix-rt grade "Answer: 56" --accepted 56 --grader-file my.py:grade',
        "tunix-rt grade --evaluation $EVALUATION --item q1 --grader-file my.py:grade",
    ),
    prints=v1.GradeAnswerResponse,
)
def grade(
    session: Session,
    output: Annotated[
        str | None, typer.Argument(metavar="[OUTPUT]", help="The answer of a model; - reads standard input.")
    ] = None,
    question: ItemOptions = ItemOptions(),
    grader: Annotated[
        str | None,
        typer.Option("--grader", help="The name of a kind of grader, or JSON with its settings."),
    ] = None,
    grader_file: GraderFileOption = None,
) -> None:
    """Grade one answer and store nothing, to try a grader.

    Without --grader and --grader-file the item's own grader is tried, or else the one that fits the accepted
    answers. Exit code 1 if it gives no grade.
    """
    question.check(output)
    if grader is not None and grader_file is not None:
        raise typer.BadParameter("give --grader or --grader-file, one of the two")
    wanted = grader_of_file(grader_file)
    try:
        wanted = wanted if grader is None else read_grader_text(grader)
    except ValueError as error:
        raise typer.BadParameter(f"--grader: {error}") from None
    with session.connect() as client, errors_of(grader_file):
        item, result = question.read(session, client)
        if wanted is not None:
            item.grader.CopyFrom(wanted)
        given = sys.stdin.read() if output == "-" else output or ""
        truncated = False
        if result is not None:
            given = result.answer or result.output
            truncated = result.finish_reason == v1.FINISH_REASON_LENGTH
        graded = client.evaluator.grade_answer(item, given, truncated=truncated)
    session.show(graded, _print)
    if graded.grade_error:
        raise typer.Exit(1)


def _print(console: Console, graded: v1.GradeAnswerResponse) -> None:
    right = Text("right", style="green") if graded.correct else Text("wrong", style="red")
    facts: list[tuple[str, str | Text]] = [
        ("grade", Text("none", style="yellow") if graded.grade_error else right),
        ("error", graded.grade_error),
        ("score", "" if graded.grade_error else f"{graded.score:g}"),
        ("answer", graded.extracted_answer),
        ("explanation", graded.explanation),
        ("unmarked", "nothing marks this answer" if graded.unmarked else ""),
        ("grader", graded.grader),
        ("warning", "; ".join(graded.warnings)),
    ]
    console.print(tables.facts(facts))


def _object(written: str) -> dict[str, Any]:
    if not written:
        return {}
    try:
        found = json.loads(written)
    except ValueError as error:
        raise typer.BadParameter(f"--metadata: is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise typer.BadParameter('--metadata: is no JSON object, such as {"level": 3}')
    return found

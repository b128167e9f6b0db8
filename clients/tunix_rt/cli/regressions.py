"""`tunix-rt reports regressions` and `improvements`: the items whose verdict changed, and rows near them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final, TypedDict

import typer

from tunix_rt import Client, v1
from tunix_rt.cli import text
from tunix_rt.cli.changes import change_sheet, changed_count, pattern_label, worst_first
from tunix_rt.cli.command import command
from tunix_rt.cli.documents import Extended, as_document
from tunix_rt.cli.lookup import named
from tunix_rt.cli.options import resource_name, short_name
from tunix_rt.cli.reports import ReportArgument, app
from tunix_rt.cli.session import Session

_TEXTS_A_CALL: Final = 100
_SHOWN: Final = 10


class NearRows(TypedDict):
    """What is added to an item whose verdict changed."""

    training_rows: Annotated[
        list[v1.NearRow] | None,
        "The rows of the candidate's training split that are nearest to the question, or of the base's where "
        "only the base was trained here; null where --training-rows did not ask for them.",
    ]


CHANGED_ITEM: Final = Extended("ChangedItem", v1.Flip, NearRows)

CategoryOption = Annotated[
    str | None, typer.Option("--category", help="Only items of this category ('' for none).")
]
PatternOption = Annotated[
    str | None,
    typer.Option(
        "--pattern", help="Only items whose wrong answer shows this by rule, such as cut or other-value."
    ),
]
RowsOption = Annotated[
    int,
    typer.Option(
        "--training-rows",
        min=0,
        max=10,
        metavar="N",
        help="Also show the candidate's N training rows with the nearest questions; the base's rows if only "
        "the base was trained here.",
    ),
]
MostOption = Annotated[
    int | None,
    typer.Option("--limit", "-n", min=1, help="Show at most this many. \\[default: 10; with --json all]"),
]


@command(
    app,
    "regressions",
    example=(
        "tunix-rt reports regressions $REPORT --limit 3",
        "tunix-rt reports regressions $REPORT --limit 3 --training-rows 3",
        "tunix-rt reports regressions $REPORT --category addition --json",
    ),
    prints=list[CHANGED_ITEM],  # type: ignore[valid-type]
)
def regressions(
    session: Session,
    report: ReportArgument,
    category: CategoryOption = None,
    pattern: PatternOption = None,
    training_rows: RowsOption = 0,
    limit: MostOption = None,
) -> None:
    """Show the items that the base answered right and the candidate wrong, the worst first.

    The worst are those whose score fell most; of equal ones, those of the category whose accuracy fell most.
    How near a row is to a question is the share of their runs of three words that both have, from 0 to 1.00.
    """
    _show(session, report, category, pattern, training_rows, limit, regressed=True)


@command(
    app,
    "improvements",
    example=(
        "tunix-rt reports improvements $REPORT",
        "tunix-rt reports improvements $REPORT --pattern no-answer --training-rows 1",
    ),
    prints=list[CHANGED_ITEM],  # type: ignore[valid-type]
)
def improvements(
    session: Session,
    report: ReportArgument,
    category: CategoryOption = None,
    pattern: PatternOption = None,
    training_rows: RowsOption = 0,
    limit: MostOption = None,
) -> None:
    """Show the items that the candidate answered right and the base wrong, the best first."""
    _show(session, report, category, pattern, training_rows, limit, regressed=False)


def _show(
    session: Session,
    report: str,
    category: str | None,
    pattern: str | None,
    training_rows: int,
    limit: int | None,
    *,
    regressed: bool,
) -> None:
    wanted = None if pattern is None else _pattern(pattern)
    with session.connect() as client:
        name = named(session, client, resource_name("comparisonReports", report))
        found = client.evaluator.get_comparison_report(name)
        every = worst_first(found, regressed=regressed)
        flips = [
            flip
            for flip in every
            if category in (None, flip.base.category) and wanted in (None, flip.pattern)
        ]
        shown = flips[: limit or (len(flips) if session.as_json else _SHOWN)]
        rows = _near(session, client, found, shown, training_rows) if training_rows else [None] * len(shown)
    if missing := changed_count(found, regressed=regressed) - len(every):
        session.notify(
            f"{text.counted(missing, 'more item')} did not fit into one answer: report.json has all"
        )
    if session.as_json:
        session.print_json([_document(*pair) for pair in zip(shown, rows, strict=True)])
        return
    if not shown and not missing:
        session.out.print(
            f"no item went from {'right to wrong' if regressed else 'wrong to right'}", highlight=False
        )
    for pair in zip(shown, rows, strict=True):
        session.out.print(change_sheet(*pair))
        session.out.print()
    if len(shown) < len(flips):
        session.say(f"{text.counted(len(flips) - len(shown), 'more item')}: --limit {len(flips)} shows all")


def _pattern(given: str) -> v1.AnswerPattern.ValueType:
    known = {pattern_label(number): number for number in v1.AnswerPattern.values() if number}
    chosen = known.get(given.strip().lower().replace("-", " ").replace("_", " "))
    if chosen is None:
        names = ", ".join(name.replace(" ", "-") for name in known)
        raise typer.BadParameter(f"--pattern {given!r} is none of {names}")
    return chosen


def _near(
    session: Session, client: Client, report: v1.ComparisonReport, flips: Sequence[v1.Flip], count: int
) -> list[Sequence[v1.NearRow] | None]:
    """The training rows nearest to each item; raises typer.BadParameter if no side was trained here."""
    dataset = _learned(client, report.candidate_training, report.candidate.spec.checkpoint)
    if not dataset:
        dataset = _learned(client, report.base_training, report.base.spec.checkpoint)
        if not dataset:
            raise typer.BadParameter(
                "--training-rows needs a side that was trained here, and neither is a checkpoint; "
                "leave it out to see the items alone"
            )
        session.notify(
            "the candidate was not trained here: the training rows are those of the base, "
            f"{short_name(dataset)}"
        )
    found: list[Sequence[v1.NearRow] | None] = []
    for start in range(0, len(flips), _TEXTS_A_CALL):
        texts = [flip.base.prompt for flip in flips[start : start + _TEXTS_A_CALL]]
        answer = client.exporter.find_nearest_rows(dataset, texts, row_count=count, or_by_characters=True)
        found += [nearest.rows for nearest in answer.nearest]
    return found


def _learned(client: Client, facts: v1.TrainingFacts, checkpoint: str) -> str:
    """The dataset that a side learned from; empty for a side that was not trained here."""
    if facts.dataset or not checkpoint:
        return facts.dataset
    return client.trainer.get_checkpoint(checkpoint).manifest.spec.dataset


def _document(flip: v1.Flip, rows: Sequence[v1.NearRow] | None) -> dict[str, Any]:
    return as_document(flip) | {"training_rows": None if rows is None else [as_document(row) for row in rows]}

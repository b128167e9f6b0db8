"""`tunix-rt compare`: say whether one evaluation is better than another."""

from __future__ import annotations

import tempfile
import webbrowser
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.text import Text

from tunix_rt import Client, v1
from tunix_rt.cli import tables, text
from tunix_rt.cli.command import command, single
from tunix_rt.cli.evaluations import model_label
from tunix_rt.cli.resources import resource_name
from tunix_rt.cli.session import Session

app = single()

_FILES = {
    "report.md": v1.REPORT_FORMAT_MARKDOWN,
    "report.json": v1.REPORT_FORMAT_JSON,
    "report.html": v1.REPORT_FORMAT_HTML,
}
_VERDICTS = {
    v1.ComparisonReport.VERDICT_IMPROVED: ("improved", "bold green"),
    v1.ComparisonReport.VERDICT_REGRESSED: ("regressed", "bold red"),
    v1.ComparisonReport.VERDICT_NO_EVIDENCE: ("no evidence of a difference", "bold yellow"),
}


@command(
    app,
    "compare",
    example=(
        "tunix-rt compare $BEFORE $AFTER -o report --open",
        "tunix-rt compare evaluations/$BEFORE evaluations/$AFTER --json",
    ),
)
def compare(
    session: Session,
    base: Annotated[str, typer.Argument(metavar="BASE", help="The evaluation compared against.")],
    candidate: Annotated[str, typer.Argument(metavar="CANDIDATE", help="The evaluation compared.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="DIR", help="Write report.md, report.json and report.html here."
        ),
    ] = None,
    open_report: Annotated[bool, typer.Option("--open", help="Open the report in a browser.")] = False,
    flips: Annotated[
        int, typer.Option("--flips", min=0, help="Items shown whose verdict changed, each way.")
    ] = 3,
) -> None:
    """Compare two evaluations of one eval set, item by item."""
    names = resource_name("evaluations", base), resource_name("evaluations", candidate)
    with session.connect() as client:
        report = client.evaluator.compare_evaluations(*names)
        folder = output
        if folder is None and open_report:
            folder = Path(tempfile.mkdtemp(prefix="tunix-rt-report-"))
        if folder is not None:
            write_report(client, report.name, folder)
    if session.as_json:
        session.print_message(report)
    else:
        print_comparison(session.out, report, flips=flips)
    if folder is not None:
        session.say(f"report written to {folder / 'report.html'}")
        if open_report:
            webbrowser.open((folder / "report.html").absolute().as_uri())


def write_report(client: Client, name: str, folder: Path) -> None:
    """Writes a comparison report as Markdown, JSON and HTML into a folder."""
    for file, format in _FILES.items():
        client.evaluator.download_comparison_report(name, folder / file, format=format)


def print_comparison(console: Console, report: v1.ComparisonReport, *, flips: int = 3) -> None:
    """The headline, the categories and some of the flips of a comparison."""
    console.print(headline(report))
    if len(report.categories) > 1:
        console.print(_categories(report))
    for line in _flips(report, flips):
        console.print(line)


def headline(report: v1.ComparisonReport) -> Panel:
    """Accuracy before and after with intervals, the difference, its p-value and the verdict, in a frame."""
    overall = report.overall
    verdict, style = _VERDICTS.get(report.verdict, ("unknown", ""))
    rows = tables.facts(
        [
            (
                label,
                Text.assemble(
                    (text.percent(accuracy.accuracy), "bold"), (_accuracy_tail(accuracy, spec), "dim")
                ),
            )
            for label, accuracy, spec in (
                ("before", overall.base, report.base.spec),
                ("after", overall.candidate, report.candidate.spec),
            )
        ]
        + [
            (
                "difference",
                Text.assemble(
                    (text.signed_points(overall.difference), "bold"),
                    (
                        f"  95% interval {text.signed_points(overall.interval.lower)} to "
                        f"{text.signed_points(overall.interval.upper)}",
                        "dim",
                    ),
                ),
            ),
            (
                "evidence",
                f"{text.p_value(overall.p_value)} (exact McNemar): {overall.gained_count} went right, "
                f"{overall.lost_count} went wrong",
            ),
        ]
    )
    return Panel(
        Group(Text(f"Verdict: {verdict}", style=style), Text(), rows),
        title=Text(report.name),
        title_align="left",
        border_style=style.removeprefix("bold "),
        padding=(1, 2),
        expand=False,
    )


def _accuracy_tail(accuracy: v1.Accuracy, spec: v1.EvaluationSpec) -> str:
    bounds = text.interval(accuracy.interval.lower, accuracy.interval.upper)
    return (
        f"  {accuracy.correct_count}/{accuracy.item_count} right, 95% interval {bounds}, {model_label(spec)}"
    )


def _categories(report: v1.ComparisonReport) -> RenderableType:
    rows = tables.table("CATEGORY", ">ITEMS", ">BEFORE", ">AFTER", ">DIFFERENCE", ">P")
    for entry in report.categories:
        difference = entry.difference
        tables.add_row(
            rows,
            entry.category or "none",
            text.count(difference.base.item_count),
            text.percent(difference.base.accuracy),
            text.percent(difference.candidate.accuracy),
            text.signed_points(difference.difference),
            text.p_value(difference.p_value).removeprefix("p = "),
        )
    return rows


def _flips(report: v1.ComparisonReport, most: int) -> Iterator[RenderableType]:
    for heading, style, went_right in (("went right", "green", True), ("went wrong", "red", False)):
        found = [flip for flip in report.flips if flip.candidate.correct is went_right]
        if not found or not most:
            continue
        shown = f"{heading}: {len(found)}" + (f", the first {most}" if len(found) > most else "")
        yield Text(shown, style=f"bold {style}")
        for flip in found[:most]:
            yield tables.facts(
                [
                    (flip.base.item_id, text.one_line(flip.base.prompt, 300)),
                    ("  accepted", " | ".join(flip.base.accepted_answers)),
                    ("  before", text.one_line(flip.base.output, 300) or "(nothing)"),
                    ("  after", text.one_line(flip.candidate.output, 300) or "(nothing)"),
                ]
            )
            yield Text()

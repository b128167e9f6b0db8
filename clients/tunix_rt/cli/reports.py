"""`tunix-rt reports`: the comparison reports that are stored."""

from __future__ import annotations

from itertools import islice
from typing import Annotated

import typer

from tunix_rt import v1
from tunix_rt.cli import tables, text
from tunix_rt.cli.command import command, group
from tunix_rt.cli.deleting import YesOption, delete_resources
from tunix_rt.cli.options import LimitOption, resource_name, short_name
from tunix_rt.cli.session import Session

app = group("List and delete comparison reports.")


@command(app, "list", example=("tunix-rt reports list", "tunix-rt reports list --json"))
def list_(session: Session, limit: LimitOption = 20) -> None:
    """List the reports of comparisons, which `compare` makes."""
    columns = ("REPORT", "VERDICT", "BASE", "CANDIDATE", ">CREATED")
    with session.connect() as client:
        found = islice(client.evaluator.list_comparison_reports(), limit)
        session.show_all(found, columns, _row, "no reports")


def _row(report: v1.ComparisonReport) -> tables.Row:
    verdict = text.enum_label(v1.ComparisonReport.Verdict.Name(report.verdict), "VERDICT_")
    return (
        short_name(report.name),
        verdict,
        short_name(report.base.name),
        short_name(report.candidate.name),
        tables.age(report.create_time),
    )


@command(app, "delete", example=("tunix-rt reports delete $REPORT", "tunix-rt reports delete $REPORT --yes"))
def delete(
    session: Session,
    reports: Annotated[list[str], typer.Argument(metavar="REPORT", help="Ids of reports.")],
    yes: YesOption = False,
) -> None:
    """Delete reports and their documents. To compare again makes them again."""
    delete_resources(
        session,
        [resource_name("comparisonReports", name) for name in reports],
        "report",
        lambda client, name: client.evaluator.get_comparison_report(name),
        force=False,
        yes=yes,
    )

"""`tunix-rt reports`: the comparison reports that are stored."""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from typing import Annotated

import typer

from tunix_rt import v1
from tunix_rt.cli import tables, text
from tunix_rt.cli.command import command, group
from tunix_rt.cli.comparisons import VERDICTS, print_comparison
from tunix_rt.cli.deleting import DeletedResources, YesOption, delete_resources
from tunix_rt.cli.evaluation_view import model_label
from tunix_rt.cli.labels import (
    ChangeOptions,
    DatasetOption,
    EvalSetOption,
    Listed,
    ListOptions,
    ModelOption,
    change_labels,
    dataset_names,
    list_option,
    model_names,
    numbered,
    show_list,
    sort_option,
)
from tunix_rt.cli.lookup import completes, look_up
from tunix_rt.cli.options import FlipsOption, LimitOption, resource_name, short_name
from tunix_rt.cli.session import Session

app = group("List, show, rename and delete comparison reports, and look at what went wrong.")

ReportArgument = Annotated[
    str,
    typer.Argument(
        metavar="REPORT",
        help="The report's id, the beginning of it, or its name.",
        autocompletion=completes("comparisonReports"),
    ),
]


class Verdict(StrEnum):
    """What the evidence of a report says."""

    IMPROVED = "improved"
    REGRESSED = "regressed"
    NO_EVIDENCE = "no-evidence"
    INCONCLUSIVE = "inconclusive"


@command(
    app,
    "list",
    example=(
        "tunix-rt reports list",
        "tunix-rt reports list --verdict regressed --since 7d --sort=-created",
    ),
    prints=list[v1.ComparisonReport],
)
def list_(
    session: Session,
    wanted: ListOptions,
    verdict: Annotated[
        list[Verdict] | None,
        list_option(
            "--verdict",
            help="Only with this verdict (may be repeated for any of several).",
        ),
    ] = None,
    model: ModelOption = None,
    dataset: DatasetOption = None,
    eval_set: EvalSetOption = None,
    evaluation: Annotated[
        list[str] | None,
        list_option(
            "--evaluation",
            help="Only of this evaluation, on either side (may be repeated).",
            autocompletion=completes("evaluations"),
        ),
    ] = None,
    sort: Annotated[
        str, sort_option("created", "name", "id", "verdict", "eval-set", "model", "dataset")
    ] = "-created",
    limit: LimitOption = 20,
) -> None:
    """List comparison reports, the newest first unless they are sorted otherwise."""
    condition = v1.ComparisonReportFilter(
        **wanted.conditions(),
        verdicts=numbered(v1.ComparisonReport.Verdict, verdict),
        models=model_names(model),
        datasets=dataset_names(dataset),
        eval_sets=[resource_name("evalSets", given) for given in eval_set or ()],
        evaluations=[resource_name("evaluations", given) for given in evaluation or ()],
    )
    columns = ("REPORT", "?NAME", "!VERDICT", "EVAL SET", "BASE", "CANDIDATE", ">DIFFERENCE")
    table = Listed(
        (*columns, "?TAGS", "?DELETED", ">AGE"),
        _row,
        "no reports",
        ("DIFFERENCE", "VERDICT", "NAME", "CANDIDATE", "BASE", "DELETED"),
    )
    show_list(session, "comparisonReports", condition, wanted, sort, limit, table, page_size=100)


def _row(report: v1.ComparisonReport) -> tables.Row:
    # A report of the first version tells a list nothing.
    known = report.HasField("overall")
    sides = [side.display_name or model_label(side.spec) for side in (report.base, report.candidate)]
    return (
        short_name(report.name),
        report.display_name,
        VERDICTS[report.verdict][0].removesuffix(" of a difference") if report.verdict in VERDICTS else "-",
        short_name(report.base.spec.eval_set) or "-",
        *sides,
        text.signed_points(report.overall.difference) if known else "-",
        ", ".join(report.tags),
        tables.deleted(report),
        tables.age(report.create_time),
    )


@command(app, "show", example="tunix-rt reports show $REPORT --flips 10", prints=v1.ComparisonReport)
def show(session: Session, report: ReportArgument, flips: FlipsOption = 3) -> None:
    """Show one comparison report as `compare` does."""
    shown = look_up(session, resource_name("comparisonReports", report))
    session.show(shown, partial(print_comparison, flips=flips))


@command(
    app,
    "update",
    example="tunix-rt reports update $REPORT --name 'rank 8 against base' --tag paper",
    prints=v1.ComparisonReport,
)
def update(session: Session, report: ReportArgument, labels: ChangeOptions) -> None:
    """Rename a comparison report, tag it, or note something about it."""
    change_labels(session, resource_name("comparisonReports", report), labels)


@command(
    app,
    "delete",
    prints=DeletedResources,
    example=("tunix-rt reports delete $REPORT", "tunix-rt reports delete $REPORT --yes"),
)
def delete(
    session: Session,
    reports: Annotated[
        list[str],
        typer.Argument(
            metavar="REPORT", help="Ids of reports.", autocompletion=completes("comparisonReports")
        ),
    ],
    yes: YesOption = False,
) -> None:
    """Delete reports and their documents. Comparing again makes them again."""
    names = [resource_name("comparisonReports", name) for name in reports]
    delete_resources(session, names, "report", force=False, yes=yes)

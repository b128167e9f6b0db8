"""`tunix-rt reports`: the comparison reports that are stored."""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from itertools import islice
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
    ListOptions,
    ModelOption,
    dataset_names,
    list_option,
    model_names,
    numbered,
    print_labels,
    sort_option,
    updated,
)
from tunix_rt.cli.lookup import completes, named, whole_names
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
    columns = (
        "REPORT",
        "?NAME",
        "!VERDICT",
        "EVAL SET",
        "BASE",
        "CANDIDATE",
        ">DIFFERENCE",
        "?TAGS",
        "?DELETED",
        ">AGE",
    )
    with session.connect() as client:
        whole_names(session, client, condition)
        found = client.evaluator.list_comparison_reports(
            show_deleted=wanted.show_deleted, filter=condition, order_by=sort, page_size=min(limit, 100)
        )
        session.show_all(
            islice(found, limit),
            columns,
            _row,
            "no reports",
            ("DIFFERENCE", "VERDICT", "NAME", "CANDIDATE", "BASE", "DELETED"),
            filtered=bool(condition.ByteSize()),
        )


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
    name = resource_name("comparisonReports", report)
    with session.connect() as client:
        found = client.evaluator.get_comparison_report(named(session, client, name))
    session.show(found, partial(print_comparison, flips=flips))


@command(
    app,
    "update",
    example="tunix-rt reports update $REPORT --name 'rank 8 against base' --tag paper",
    prints=v1.ComparisonReport,
)
def update(session: Session, report: ReportArgument, labels: ChangeOptions) -> None:
    """Rename a comparison report, tag it, or note something about it."""
    labels.check()
    name = resource_name("comparisonReports", report)
    with session.connect() as client:
        found = client.evaluator.get_comparison_report(named(session, client, name))
        changed = updated(labels, found, client.evaluator.update_comparison_report)
    session.show(changed, print_labels)


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
    """Delete reports and their documents. To compare again makes them again."""
    delete_resources(
        session,
        [resource_name("comparisonReports", name) for name in reports],
        "report",
        lambda client, name: client.evaluator.get_comparison_report(name),
        force=False,
        yes=yes,
    )

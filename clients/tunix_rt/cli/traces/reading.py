"""`tunix-rt traces list` and `show`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.text import Text

from tunix_rt import Client, v1
from tunix_rt.cli import tables, text
from tunix_rt.cli.command import command
from tunix_rt.cli.console import visible
from tunix_rt.cli.filter_options import FilterOptions
from tunix_rt.cli.resources import short_name, trace_name
from tunix_rt.cli.session import Session, as_document
from tunix_rt.cli.traces.app import app

_LARGEST_PAGE = 1000
_SCORES_READ = 200


class _Listing:
    """The first ``limit`` traces of a listing, and the token that the next ones begin with."""

    def __init__(self, client: Client, wanted: v1.TraceFilter | None, limit: int, page_token: str) -> None:
        self._client = client
        self._wanted = wanted
        self._limit = limit
        self.next_page_token = page_token

    def __iter__(self) -> Iterator[v1.Trace]:
        left = self._limit
        while left:
            pages = self._client.trace_store.list_traces(
                filter=self._wanted, page_size=min(left, _LARGEST_PAGE), page_token=self.next_page_token
            ).pages()
            page = next(pages)
            self.next_page_token = page.next_page_token
            yield from page.traces
            left -= len(page.traces)
            if not self.next_page_token:
                return


@command(
    app,
    "list",
    example=(
        "tunix-rt traces list --limit 5",
        "tunix-rt traces list --source gsm8k --contains apples --json",
        "tunix-rt traces list --created-after 2d --min-score structure=60 --without reference_answer",
    ),
)
def list_(
    session: Session,
    wanted: FilterOptions,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Most traces shown.")] = 20,
    page_token: Annotated[
        str, typer.Option("--page-token", help="Go on where an earlier list ended, under the same filter.")
    ] = "",
) -> None:
    """List traces, newest first."""
    condition = wanted.filter()
    with session.connect() as client:
        found = _Listing(client, condition, limit, page_token)
        if session.as_json:
            session.print_messages(found)
        else:
            rows = tables.table("TRACE", "SOURCE", ">STEPS", "PROMPT", "ANSWER", ">AGE")
            for trace in found:
                tables.add_row(
                    rows,
                    short_name(trace.name),
                    trace.source or "-",
                    str(len(trace.steps)),
                    text.one_line(trace.prompt, 60),
                    text.one_line(trace.final_answer, 24),
                    tables.age(trace.create_time),
                )
            tables.print_table(session.out, rows, "no traces")
        if found.next_page_token:
            session.err.print(
                f"there are more: --page-token {found.next_page_token}", markup=False, soft_wrap=True
            )


@command(
    app,
    "show",
    example=(
        "tunix-rt traces show traces/$TRACE",
        "tunix-rt traces show 3f1b0c6a9d52",
    ),
)
def show(
    session: Session,
    name: Annotated[
        str, typer.Argument(metavar="TRACE", help="Its name or id, or the id of a dataset's row.")
    ],
) -> None:
    """Show one trace with its steps and its latest scores."""
    wanted = trace_name(name)
    with session.connect() as client:
        trace = client.trace_store.get_trace(wanted)
        page = next(client.trace_store.list_scores(trace.name, page_size=_SCORES_READ).pages())
    # The newest come first.
    latest: dict[str, v1.TraceScore] = {}
    for score in page.scores:
        latest.setdefault(score.criterion, score)
    scores = [latest[criterion] for criterion in sorted(latest)]
    if session.as_json:
        session.print_json(as_document(trace) | {"scores": [as_document(score) for score in scores]})
    else:
        session.out.print(trace_panel(trace, scores))
    if page.next_page_token:
        session.err.print(f"there are more scores; these are the latest of the newest {len(page.scores)}")


def trace_panel(trace: v1.Trace, scores: Sequence[v1.TraceScore] = ()) -> Panel:
    """A trace as it is read: prompt, numbered steps, answer, and its facts and scores below."""
    steps = tables.facts(
        (f"{step.i}", Text.assemble((f"{visible(step.type)}  ", "dim"), visible(step.content)))
        for step in trace.steps
    )
    metadata = as_document(trace.metadata)
    sheet = tables.facts(
        [
            ("source", trace.source),
            ("version", trace.trace_version),
            ("stored", tables.moment(trace.create_time)),
            ("sequence", str(trace.sequence)),
            ("digest", trace.content_digest),
            *((f"metadata {key}", str(metadata[key])) for key in sorted(metadata)),
            *((f"score {score.criterion}", _score(score)) for score in scores),
        ]
    )
    return Panel(
        Group(
            Text(visible(trace.prompt)),
            Text(),
            steps,
            Text(),
            Text.assemble(("Answer  ", "bold"), visible(trace.final_answer)),
            Text(),
            sheet,
        ),
        title=Text(trace.name),
        title_align="left",
        padding=(1, 2),
    )


def _score(score: v1.TraceScore) -> RenderableType:
    return Text.assemble(f"{score.value:g}", (f"  {tables.age(score.create_time)} ago", "dim"))

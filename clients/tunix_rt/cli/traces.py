"""`tunix-rt traces`: list, show, delete and export traces."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated, Final, NamedTuple, TypedDict

import typer

from tunix_rt import Client, v1
from tunix_rt.cli import tables, text
from tunix_rt.cli.command import command, group
from tunix_rt.cli.console import output_stream
from tunix_rt.cli.deleting import DeletedResources, YesOption, confirm, delete_each
from tunix_rt.cli.documents import Extended, Lines, as_document
from tunix_rt.cli.effects import Effect
from tunix_rt.cli.filter_options import FilterOptions
from tunix_rt.cli.labels import sort_option
from tunix_rt.cli.lookup import completes, named, say_unknown_keys
from tunix_rt.cli.options import LimitOption, short_name, trace_name
from tunix_rt.cli.session import Session
from tunix_rt.cli.trace_lines import ConversationLine, TraceLine
from tunix_rt.cli.trace_view import trace_panel
from tunix_rt.deleting import after_deleting
from tunix_rt.errors import TunixRtError, UnimplementedError
from tunix_rt.leaks import LEARNED_SPLIT
from tunix_rt.turns import answer, assistant_turns, question

app = group("Import, generate, score, compare and export reasoning traces.")

_JOBS_SHOWN = 20


class TraceFacts(TypedDict):
    """What else is known of a trace."""

    scores: Annotated[
        list[v1.TraceScore], "The latest score by each criterion, in the order of the criteria."
    ]
    datasets: Annotated[
        list[v1.TraceUse] | None,
        "What became of it in each dataset; null where the server cannot tell, and stderr says why.",
    ]
    training_jobs: Annotated[
        list[v1.TrainingJob] | None,
        f"The newest {_JOBS_SHOWN} jobs that learned from it; null where the server cannot tell.",
    ]


SHOWN_TRACE: Final = Extended("ShownTrace", v1.Trace, TraceFacts)


class ExportedTraces(TypedDict):
    """What was written into a file."""

    as_of: Annotated[int, "The snapshot that was written."]
    traces: Annotated[int, "How many traces were written."]
    file: Annotated[str, "The file, as it was given."]


_LARGEST_PAGE = 1000
_SCORES_READ = 200
# A filter takes so many.
_MOST_DATASETS = 100


class _Listing:
    """The first ``limit`` traces of a listing, and the token that the next ones begin with."""

    def __init__(
        self, client: Client, wanted: v1.TraceFilter | None, order_by: str, limit: int, page_token: str
    ) -> None:
        self._client = client
        self._wanted = wanted
        self._order_by = order_by
        self._limit = limit
        self.next_page_token = page_token
        self.is_empty = True

    def __iter__(self) -> Iterator[v1.Trace]:
        left = self._limit
        while left:
            pages = self._client.trace_store.list_traces(
                filter=self._wanted,
                order_by=self._order_by,
                page_size=min(left, _LARGEST_PAGE),
                page_token=self.next_page_token,
            ).pages()
            page = next(pages)
            self.next_page_token = page.next_page_token
            self.is_empty = self.is_empty and not page.traces
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
        "tunix-rt traces list --sort source,-created",
        "tunix-rt traces list --created-after 2d --min-score structure=60 --without reference_answer",
        "tunix-rt traces list --tool-calls --min-turns 2",
    ),
    prints=list[v1.Trace],
)
def list_(
    session: Session,
    wanted: FilterOptions,
    sort: Annotated[str, sort_option("created", "sequence", "source")] = "",
    limit: LimitOption = 20,
    page_token: Annotated[
        str,
        typer.Option(
            "--page-token", help="Continue where an earlier list ended; use the same filter and order."
        ),
    ] = "",
) -> None:
    """List traces, the newest first unless they are sorted."""
    condition = wanted.filter()
    with session.connect() as client:
        found = _Listing(client, condition, sort, limit, page_token)
        if session.as_json:
            session.print_messages(found)
        else:
            rows = _table(list(found))
            filtered = condition is not None and bool(condition.ByteSize())
            tables.print_table(session.out, rows, tables.none_of("no traces", filtered=filtered))
        if found.is_empty:
            say_unknown_keys(session, client, condition)
        if found.next_page_token:
            session.notify("there are more", next_page_token=found.next_page_token)


def _table(traces: Sequence[v1.Trace]) -> tables.Listing:
    """A row for each trace; how often the assistant speaks is told where one is a conversation."""
    talks = any(trace.messages for trace in traces)
    columns = ("TRACE", "SOURCE", *[">TURNS"] * talks, ">STEPS", "PROMPT", "ANSWER", ">AGE")
    rows = tables.table(*columns, important=("PROMPT", "ANSWER"))
    for trace in traces:
        tables.add_row(
            rows,
            short_name(trace.name),
            trace.source or "-",
            *[str(assistant_turns(trace))] * talks,
            "-" if trace.messages else str(len(trace.steps)),
            text.one_line(question(trace), 60),
            text.one_line(answer(trace), 24),
            tables.age(trace.create_time),
        )
    return rows


@command(
    app,
    "show",
    example=(
        "tunix-rt traces show traces/$TRACE",
        "tunix-rt traces show 3f1b0c6a9d52",
    ),
    prints=SHOWN_TRACE,
)
def show(
    session: Session,
    name: Annotated[
        str,
        typer.Argument(
            metavar="TRACE",
            help="Its id or the beginning of it, or the id of a dataset's row.",
            autocompletion=completes("traces"),
        ),
    ],
) -> None:
    """Show one trace with its steps or its turns, its latest scores, and the datasets that hold it or left it
    out."""
    wanted = trace_name(name)
    with session.connect() as client:
        trace = client.trace_store.get_trace(named(session, client, wanted))
        page = next(client.trace_store.list_scores(trace.name, page_size=_SCORES_READ).pages())
        uses = _uses(session, client, trace)
        jobs = None if uses is None else _learned(session, client, uses)
    # The newest come first.
    latest: dict[str, v1.TraceScore] = {}
    for score in page.scores:
        latest.setdefault(score.criterion, score)
    scores = [latest[criterion] for criterion in sorted(latest)]
    if session.as_json:
        datasets = None if uses is None else [as_document(use) for use in uses]
        learned = None if jobs is None else [as_document(job) for job in jobs]
        shown = [as_document(score) for score in scores]
        session.print_json(
            as_document(trace) | {"scores": shown, "datasets": datasets, "training_jobs": learned}
        )
    else:
        session.out.print(trace_panel(trace, scores))
        if uses is not None:
            _print_uses(session, uses)
        if jobs:
            _print_jobs(session, jobs)
    if page.next_page_token:
        session.notify(f"there are more scores; these are the latest of the newest {len(page.scores)}")


def _uses(session: Session, client: Client, trace: v1.Trace) -> list[v1.TraceUse] | None:
    """What became of a trace in each dataset; None where that cannot be told, and stderr says why."""
    found: list[v1.TraceUse] = []
    unreadable: dict[str, None] = {}
    try:
        for page in client.exporter.list_trace_uses(trace.content_digest).pages():
            found += page.trace_uses
            unreadable |= dict.fromkeys(page.unreadable_datasets)
    except UnimplementedError:
        # A trace store alone, or a server of an earlier version.
        return None
    except TunixRtError as error:
        told = f"which datasets hold the trace is not known: {error.message}"
        session.notify(told)
        return None
    for name in unreadable:
        told = f"{short_name(name)} may hold the trace, but its files are missing or damaged"
        session.notify(told)
    return found


def _learned(session: Session, client: Client, uses: Sequence[v1.TraceUse]) -> list[v1.TrainingJob] | None:
    """The newest training jobs on datasets that have the trace in the split that is learned; None where that
    cannot be told, and stderr says why."""
    digests = {use.dataset: use.dataset_digest for use in uses if use.split == LEARNED_SPLIT}
    datasets, found = list(digests), list[v1.TrainingJob]()
    try:
        for start in range(0, len(datasets), _MOST_DATASETS):
            wanted = v1.TrainingJobFilter(datasets=datasets[start : start + _MOST_DATASETS])
            listed = client.trainer.list_training_jobs(filter=wanted, page_size=_JOBS_SHOWN + 1)
            # A server of an earlier version lists all jobs, and a dataset may have been deleted and made
            # anew.
            own = (job for job in listed if digests.get(job.spec.dataset) == job.dataset_digest)
            found += islice(own, _JOBS_SHOWN + 1)
    except UnimplementedError:
        return None
    except TunixRtError as error:
        told = f"which training jobs learned from the trace is not known: {error.message}"
        session.notify(told)
        return None
    # Ids are in the order in which they were made.
    found.sort(key=lambda job: job.name, reverse=True)
    if len(found) > _JOBS_SHOWN:
        session.notify(f"more training jobs learned from the trace; these are the newest {_JOBS_SHOWN}")
    return found[:_JOBS_SHOWN]


def _print_jobs(session: Session, jobs: Sequence[v1.TrainingJob]) -> None:
    rows = tables.table("LEARNED BY", "NAME", "!STATE", "DATASET", "CHECKPOINT")
    for job in jobs:
        state = tables.state(v1.TrainingJob.State.Name(job.state))
        checkpoint = short_name(job.best_checkpoint or job.checkpoint).rpartition("/")[2]
        tables.add_row(
            rows,
            short_name(job.name),
            job.display_name,
            state,
            short_name(job.spec.dataset),
            checkpoint or "-",
        )
    session.out.print(rows)
    hint = f"their evaluations: tunix-rt evaluation list --model {short_name(jobs[0].name)}"
    session.out.print(hint, style="dim", highlight=False, soft_wrap=True)


def _print_uses(session: Session, uses: Sequence[v1.TraceUse]) -> None:
    rows = tables.table("DATASET", "SPLIT", ">ROW", "~WHY NOT")
    for use in uses:
        where = (use.split, text.count(use.row_number)) if use.split else (use.stage or "left out", "-")
        tables.add_row(rows, short_name(use.dataset), *where, use.reason or "-")
    tables.print_table(session.out, rows, "in no dataset")


_SHOWN = 5
_DELETED_AT_ONCE = 500


class FoundTraces(TypedDict):
    """What would be deleted."""

    found: Annotated[list[str], "Resource names; nothing was deleted."]


@command(
    app,
    "delete",
    example=(
        "tunix-rt traces delete $TRACE",
        "tunix-rt traces delete $TRACE $OTHER --yes",
        "tunix-rt traces delete --source mine --created-after 10min --dry-run",
    ),
    prints=(DeletedResources, FoundTraces),
)
def delete(
    session: Session,
    wanted: FilterOptions,
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="TRACE", help="Ids of traces.", autocompletion=completes("traces")),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be deleted, and stop.")] = False,
    yes: YesOption = False,
) -> None:
    """Delete traces, named or chosen by a filter. Their ids and digests stay on record. Snapshots that hold
    them can no longer be streamed.

    It says how many there are, shows some and asks. What is stored after that question stays.
    """
    condition = wanted.filter()
    if bool(names) == (condition is not None):
        raise typer.BadParameter("say which traces: by their names, or by a filter such as --source")
    with session.connect(Effect.READS if dry_run else None) as client:
        found = _named(session, client, names or ()) if condition is None else _matching(client, condition)
        question = f"Delete {text.counted(len(found.names), 'trace')} for good?"
        if not found.names:
            say_unknown_keys(session, client, condition)
        if dry_run:
            _print_found(session, found)
            return
        if found.names:
            confirm(session, question, found.lines(), yes=yes)
        deleted = _delete(session, client, found.names)
    if session.as_json:
        session.print_json({"deleted": deleted})
    else:
        none = tables.none_of("no traces", filtered=condition is not None)
        session.out.print(f"{text.counted(len(deleted), 'trace')} deleted" if found.names else none)


class _Found(NamedTuple):
    """Traces by name, and the first of them."""

    names: list[str]
    first: list[v1.Trace]

    def lines(self) -> list[str]:
        """The first traces, each on a line, and how many more there are."""
        shown = [f"{short_name(trace.name)}  {text.one_line(question(trace), 60)}" for trace in self.first]
        more = len(self.names) - len(shown)
        return [*shown, f"and {text.counted(more, 'more', 'more')}"] if more else shown


def _named(session: Session, client: Client, names: Sequence[str]) -> _Found:
    # All names are looked up before the first trace is gone, so that a wrong one deletes nothing.
    typed = dict.fromkeys(trace_name(name) for name in names)
    whole = dict.fromkeys([named(session, client, name) for name in typed])
    traces = {trace.name: trace for trace in map(client.trace_store.get_trace, whole)}
    return _Found(list(traces), list(traces.values())[:_SHOWN])


def _matching(client: Client, condition: v1.TraceFilter) -> _Found:
    found = _Found([], [])
    for trace in client.trace_store.stream_traces(filter=condition):
        found.names.append(trace.name)
        if len(found.first) < _SHOWN:
            found.first.append(trace)
    return found


def _print_found(session: Session, found: _Found) -> None:
    if session.as_json:
        session.print_json({"found": found.names})
        return
    for line in found.lines():
        session.out.print(line, markup=False, highlight=False, soft_wrap=True)
    session.out.print(f"{text.counted(len(found.names), 'trace')} would be deleted")


def _delete(session: Session, client: Client, names: Sequence[str]) -> list[str]:
    """Delete traces, some at once; an error tells what was deleted before."""
    deleted: list[str] = []
    with session.progress() as progress:
        bar = progress.bar("deleting traces", len(names), "traces")
        for start in range(0, len(names), _DELETED_AT_ONCE):
            part = names[start : start + _DELETED_AT_ONCE]
            try:
                deleted += client.trace_store.batch_delete_traces(part).names
            except UnimplementedError:
                # A server of an earlier version.
                deleted += delete_each(part, client.trace_store.delete_trace)
            except TunixRtError as error:
                raise after_deleting(error, deleted) from error.__cause__
            bar.update(start + len(part))
        bar.finish()
    return deleted


_EVERY = 500


@command(
    app,
    "export",
    example=(
        "tunix-rt traces export -o traces.jsonl.zst",
        "tunix-rt traces export --source gsm8k --as-of 7473 -o gsm8k.jsonl.gz",
        "tunix-rt traces export | wc -l",
    ),
    prints=(ExportedTraces, Lines(TraceLine), Lines(ConversationLine)),
)
def export(
    session: Session,
    wanted: FilterOptions,
    as_of: Annotated[int, typer.Option("--as-of", min=0, help="A snapshot; 0: the newest.")] = 0,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Output file; .gz and .zst are compressed, - is stdout."),
    ] = Path("-"),
) -> None:
    """Write the traces of a snapshot as JSON lines, in the order in which they were stored.

    Imported again, the traces have the same content digests. A file appears only when it is complete.
    """
    from tunix_rt.formats import compressing, trace_to_json

    condition = wanted.filter()
    to_stdout = str(output) == "-"
    with session.connect() as client, session.progress() as progress:
        with output_stream(output) as stream, compressing(stream, output) as file:
            found = client.trace_store.stream_traces(filter=condition, as_of=as_of)
            snapshot = found.as_of
            bar = progress.bar("writing traces", None, "traces")
            written = 0
            for trace in found:
                file.write(trace_to_json(trace).encode() + b"\n")
                written += 1
                if written % _EVERY == 0:
                    bar.update(written)
        bar.update(written)
        bar.finish()
        if not written:
            say_unknown_keys(session, client, condition)
    if to_stdout:
        return
    if session.as_json:
        session.print_json({"as_of": snapshot, "traces": written, "file": str(output)})
    else:
        line = f"{text.counted(written, 'trace')} of snapshot {snapshot} written to {output}"
        session.out.print(line, markup=False, soft_wrap=True)


@command(
    app,
    "spans",
    example=("tunix-rt traces spans", "tunix-rt traces spans --server localhost:50050 --json"),
    prints=list[v1.RefusedSpans],
)
def spans(session: Session, limit: LimitOption = 1000) -> None:
    """List why spans of OpenTelemetry became no traces in the last seven days, and what to do about it."""
    with session.connect() as client:
        pages = client.trace_store.list_refused_spans(page_size=min(limit, _LARGEST_PAGE))
        found = list(islice(pages, limit + 1))
    more, found = len(found) > limit, found[:limit]
    if session.as_json:
        session.print_messages(found)
    else:
        tables.print_table(session.out, _reasons(found), "no spans were refused")
    if more:
        session.notify(f"these are of the newest {text.counted(limit, 'trace')}; there are more (--limit)")


def _reasons(found: Sequence[v1.RefusedSpans]) -> tables.Listing:
    """A row for each reason, the newest first: how many spans it is about, and the newest trace of them."""
    reasons: dict[str, list[tuple[v1.RefusedSpans, int]]] = {}
    for entry in found:
        for given in entry.reasons:
            reasons.setdefault(given.reason, []).append((entry, given.span_count))
    rows = tables.table("~REASON", ">SPANS", ">TRACES", "NEWEST TRACE", ">AGE", important=("SPANS", "AGE"))
    for reason, entries in reasons.items():
        newest = entries[0][0]
        spans = sum(count for _, count in entries)
        tables.add_row(
            rows,
            reason,
            text.count(spans) if spans else "all",
            text.count(len(entries)),
            newest.otel_trace_id,
            tables.age(newest.refuse_time),
        )
    return rows

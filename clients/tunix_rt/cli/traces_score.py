"""`tunix-rt traces score` and `compare`: how good traces are, and what tells two of them apart."""

from __future__ import annotations

import difflib
import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import islice
from typing import Annotated, Final

import typer
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tunix_rt import Client, v1
from tunix_rt.cli import tables, text
from tunix_rt.cli.command import command
from tunix_rt.cli.documents import as_document
from tunix_rt.cli.filter_options import FilterOptions
from tunix_rt.cli.lookup import completes, named, say_unknown_keys
from tunix_rt.cli.options import short_name, trace_name
from tunix_rt.cli.progress import Bar
from tunix_rt.cli.session import Session
from tunix_rt.cli.trace_view import turn_text
from tunix_rt.cli.traces import app
from tunix_rt.errors import FailedPreconditionError
from tunix_rt.escapes import visible
from tunix_rt.turns import turn_role

_BATCH: Final = 500
_IN_FLIGHT: Final = 2
_NO_REFERENCE: Final = "REFERENCE_ANSWER_MISSING"
# Of a trace that was deleted since the stream of names began.
_GONE: Final = {"TRACE_NOT_FOUND", "TRACE_DELETED"}


class Criterion(StrEnum):
    """What the trace store can judge by itself."""

    STRUCTURE = "structure"
    ANSWER = "answer"


@command(
    app,
    "score",
    example=(
        "tunix-rt traces score $TRACE --by structure --by answer",
        "tunix-rt traces score --source gsm8k",
        "tunix-rt traces score --all --by answer --json",
    ),
    prints=list[v1.TraceScore],
)
def score(
    session: Session,
    wanted: FilterOptions,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="TRACE", help="Names or ids of traces.")
    ] = None,
    by: Annotated[
        list[Criterion] | None,
        typer.Option(
            "--by",
            help="structure: by number and length of the steps; answer: against the metadata's "
            "reference_answer (may be repeated). \\[default: structure]",
            show_default=False,
        ),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Score all traces.")] = False,
) -> None:
    """Score traces by built-in criteria, from 0 to 100, and store the scores.

    Name the traces, or choose them by a filter. With a filter, `answer` skips traces without a reference
    answer.
    """
    criteria = [criterion.value for criterion in by or [Criterion.STRUCTURE]]
    condition = wanted.filter()
    if [bool(names), condition is not None, every].count(True) != 1:
        raise typer.BadParameter("say which traces: by their names, by a filter such as --source, or --all")
    if names:
        _score_named(session, [trace_name(name) for name in names], criteria)
    else:
        _score_many(session, condition, criteria)


def _score_named(session: Session, names: Sequence[str], criteria: Sequence[str]) -> None:
    with session.connect() as client:
        whole = [named(session, client, name) for name in names]
        scores = [score for name in whole for score in _scores_of(client, name, criteria)]
    if session.as_json:
        session.print_messages(scores)
        return
    rows = tables.table("TRACE", "CRITERION", ">SCORE", "MADE FROM")
    for given in scores:
        details = as_document(given.details)
        tables.add_row(
            rows,
            short_name(given.trace),
            given.criterion,
            f"{given.value:g}",
            text.one_line(", ".join(f"{key} {_figure(details[key])}" for key in sorted(details)), 90),
        )
    tables.print_table(session.out, rows, "no scores")


def _scores_of(client: Client, name: str, criteria: Sequence[str]) -> Sequence[v1.TraceScore]:
    try:
        return client.trace_store.score_trace(name, criteria=criteria).scores
    except FailedPreconditionError as error:
        error.message = f"{name}: {error.message}"
        raise


def _score_many(session: Session, condition: v1.TraceFilter | None, criteria: Sequence[str]) -> None:
    with session.connect() as client, session.progress() as progress:
        bar = progress.bar("scoring traces", None, "traces")
        run = _Run(client, list(criteria), bar)
        names = (trace.name for trace in client.trace_store.stream_traces(filter=condition))
        scores = run.scores(names)
        if session.as_json:
            session.print_messages(scores)
        else:
            summaries = _summaries(scores)
        bar.finish()
        if not run.done:
            say_unknown_keys(session, client, condition)
    if not session.as_json:
        rows = tables.table("CRITERION", ">TRACES", ">MEAN", ">LOWEST", ">HIGHEST")
        for criterion in criteria:
            if criterion in summaries:
                tables.add_row(rows, criterion, *summaries[criterion].cells())
        tables.print_table(session.out, rows, "no traces were scored")
    if run.without_reference:
        session.say(
            f"{text.counted(run.without_reference, 'trace')} without reference_answer in the metadata: "
            "not scored by answer"
        )


@dataclass(slots=True)
class _Summary:
    """What the scores of one criterion come to."""

    count: int = 0
    total: float = 0.0
    lowest: float = field(default=float("inf"))
    highest: float = field(default=float("-inf"))

    def add(self, value: float) -> None:
        self.count += 1
        self.total += value
        self.lowest, self.highest = min(self.lowest, value), max(self.highest, value)

    def cells(self) -> tuple[str, str, str, str]:
        mean = self.total / self.count
        return text.count(self.count), f"{mean:.1f}", f"{self.lowest:.1f}", f"{self.highest:.1f}"


def _summaries(scores: Iterable[v1.TraceScore]) -> dict[str, _Summary]:
    found: dict[str, _Summary] = {}
    for given in scores:
        found.setdefault(given.criterion, _Summary()).add(given.value)
    return found


class _Run:
    """Scores any number of traces, some batches at once, in bounded memory."""

    def __init__(self, client: Client, criteria: list[str], bar: Bar) -> None:
        self._client = client
        self._criteria = criteria
        self._bar = bar
        self.done = 0
        self.without_reference = 0

    def scores(self, names: Iterable[str]) -> Iterator[v1.TraceScore]:
        """The scores, in the order of the names."""
        left = iter(names)
        waiting: deque[Future[list[v1.BatchScoreTracesResult]]] = deque()
        pool = ThreadPoolExecutor(_IN_FLIGHT, thread_name_prefix="tunix-rt-score")
        try:
            while batch := list(islice(left, _BATCH)):
                if len(waiting) >= _IN_FLIGHT:
                    yield from self._take(waiting.popleft())
                waiting.append(pool.submit(self._score, batch))
            while waiting:
                yield from self._take(waiting.popleft())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _take(self, future: Future[list[v1.BatchScoreTracesResult]]) -> Iterator[v1.TraceScore]:
        results = future.result()
        self.done += len(results)
        self._bar.update(self.done)
        for result in results:
            self.without_reference += result.reason == _NO_REFERENCE
            yield from result.scores

    def _score(self, names: Sequence[str]) -> list[v1.BatchScoreTracesResult]:
        """One result for each trace; one without a reference answer has the scores of the other criteria."""
        results = self._ask(names, self._criteria)
        without = [index for index, result in enumerate(results) if result.reason == _NO_REFERENCE]
        others = [criterion for criterion in self._criteria if criterion != Criterion.ANSWER]
        if without and others:
            again = self._ask([names[index] for index in without], others)
            for index, result in zip(without, again, strict=True):
                results[index].scores.extend(result.scores)
        return results

    def _ask(self, names: Sequence[str], criteria: Sequence[str]) -> list[v1.BatchScoreTracesResult]:
        results: list[v1.BatchScoreTracesResult] = []
        while len(results) < len(names):
            answer = self._client.trace_store.batch_score_traces(names[len(results) :], criteria=criteria)
            results += answer.results
        for result in results:
            if result.reason and result.reason != _NO_REFERENCE and result.reason not in _GONE:
                raise FailedPreconditionError(result.message, reason=result.reason)
        return results


def _figure(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


_RELATIONS: Final = {
    v1.StepAlignment.RELATION_SAME: ("=", "dim", "the same"),
    v1.StepAlignment.RELATION_CHANGED: ("~", "yellow", "changed"),
    v1.StepAlignment.RELATION_ONLY_BASE: ("-", "red", "only in the base"),
    v1.StepAlignment.RELATION_ONLY_OTHER: ("+", "green", "only in the other"),
}
_WORDS: Final = re.compile(r"\s+|\w+|[^\w\s]")
# Word by word, longer texts take too long to be told apart.
_MOST_PAIRS: Final = 4_000_000


@command(
    app,
    "compare",
    example=(
        "tunix-rt traces compare $BASE $OTHER",
        "tunix-rt traces compare traces/$BASE traces/$OTHER --json",
    ),
    prints=v1.CompareTracesResponse,
)
def compare(
    session: Session,
    base: Annotated[
        str,
        typer.Argument(
            metavar="BASE", help="The trace compared against.", autocompletion=completes("traces")
        ),
    ],
    other: Annotated[
        str,
        typer.Argument(metavar="OTHER", help="The trace compared.", autocompletion=completes("traces")),
    ],
) -> None:
    """Set two traces side by side: their scores, and their steps or turns aligned, with the differences
    marked."""
    names = trace_name(base), trace_name(other)
    with session.connect() as client:
        compared = client.trace_store.compare_traces(*(named(session, client, name) for name in names))
    if session.as_json:
        session.print_message(compared)
    else:
        session.out.print(comparison_view(compared))


def comparison_view(compared: v1.CompareTracesResponse) -> RenderableType:
    """The two traces in two columns: `=` marks what both have, `~` what changed, `-` and `+` what one has."""
    parts: list[RenderableType] = [_side_by_side(compared)]
    if compared.base.scores or compared.other.scores:
        parts.append(_scores(compared))
    parts.append(Text(_summary(compared)))
    return Group(*parts)


def _side_by_side(compared: v1.CompareTracesResponse) -> Table:
    base, other = compared.base.trace, compared.other.trace
    sheet = _columns(base, other)
    if compared.turns:
        for row in compared.turns:
            _add(sheet, row.relation, _roles(base, other, row), *_turns(base, other, row), quiet=True)
        return sheet
    same_prompt, same_answer = base.prompt == other.prompt, compared.same_final_answer
    _add(sheet, _same(same_prompt), "prompt", Text(visible(base.prompt)), Text(visible(other.prompt)))
    sheet.add_section()
    for row in compared.alignment:
        steps = _step(base, row, "base_index"), _step(other, row, "other_index")
        _add(sheet, row.relation, "step", *steps, quiet=True)
    sheet.add_section()
    answers = Text(visible(base.final_answer)), Text(visible(other.final_answer))
    _add(sheet, _same(same_answer), "answer", *answers)
    return sheet


def _columns(base: v1.Trace, other: v1.Trace) -> Table:
    sheet = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False, expand=True)
    sheet.add_column("", width=1)
    sheet.add_column("", no_wrap=True)
    for name in (base.name, other.name):
        sheet.add_column(Text(short_name(name)), ratio=1, overflow="fold")
    return sheet


def _turns(base: v1.Trace, other: v1.Trace, row: v1.StepAlignment) -> tuple[Text | None, Text | None]:
    return (
        turn_text(base, row.base_index) if row.HasField("base_index") else None,
        turn_text(other, row.other_index) if row.HasField("other_index") else None,
    )


def _roles(base: v1.Trace, other: v1.Trace, row: v1.StepAlignment) -> str:
    roles = [turn_role(base, row.base_index)] if row.HasField("base_index") else []
    roles += [turn_role(other, row.other_index)] if row.HasField("other_index") else []
    return "/".join(dict.fromkeys(roles))


def _same(same: bool) -> v1.StepAlignment.Relation.ValueType:
    return v1.StepAlignment.RELATION_SAME if same else v1.StepAlignment.RELATION_CHANGED


def _step(trace: v1.Trace, row: v1.StepAlignment, side: str) -> Text | None:
    if not row.HasField(side):  # type: ignore[arg-type]
        return None
    step = trace.steps[getattr(row, side)]
    return Text.assemble((f"{step.i} {visible(step.type)}  ", "dim"), visible(step.content))


def _add(
    sheet: Table,
    relation: v1.StepAlignment.Relation.ValueType,
    label: str,
    base: Text | None,
    other: Text | None,
    *,
    quiet: bool = False,
) -> None:
    """A row of both; where they are the same, ``quiet`` takes their colour away."""
    mark, style, _ = _RELATIONS.get(relation, ("?", "", ""))
    if relation == v1.StepAlignment.RELATION_CHANGED and base is not None and other is not None:
        _mark_words(base, other)
    elif relation == v1.StepAlignment.RELATION_SAME and quiet:
        for cell in (base, other):
            if cell is not None:
                cell.stylize("dim")
    else:
        for cell in (base, other):
            if cell is not None and relation != v1.StepAlignment.RELATION_SAME:
                cell.stylize(style)
    sheet.add_row(Text(mark, style=style), Text(label, style="dim"), base or "", other or "")


def _mark_words(base: Text, other: Text) -> None:
    """Marks the words that the two texts do not share."""
    words: list[list[str]] = [_WORDS.findall(cell.plain) for cell in (base, other)]
    if len(words[0]) * len(words[1]) > _MOST_PAIRS:
        return
    matcher = difflib.SequenceMatcher(None, words[0], words[1], autojunk=False)
    starts = [[0], [0]]
    for place, side in zip(starts, words, strict=True):
        for word in side:
            place.append(place[-1] + len(word))
    for kind, a, b, c, d in matcher.get_opcodes():
        if kind != "equal":
            base.stylize("bold red", starts[0][a], starts[0][b])
            other.stylize("bold green", starts[1][c], starts[1][d])


def _scores(compared: v1.CompareTracesResponse) -> tables.Listing:
    values = [
        {score.criterion: score.value for score in side.scores} for side in (compared.base, compared.other)
    ]
    rows = tables.table("CRITERION", ">BASE", ">OTHER", ">DIFFERENCE")
    for criterion in sorted(values[0].keys() | values[1].keys()):
        base, other = (side.get(criterion) for side in values)
        tables.add_row(
            rows,
            criterion,
            "-" if base is None else f"{base:.1f}",
            "-" if other is None else f"{other:.1f}",
            "-" if base is None or other is None else f"{other - base:+.1f}",
        )
    return rows


def _summary(compared: v1.CompareTracesResponse) -> str:
    counts = Counter(row.relation for row in compared.turns or compared.alignment)
    parts = ", ".join(
        f"{counts[relation]} {words}" for relation, (_, _, words) in _RELATIONS.items() if counts[relation]
    )
    answers = "the same" if compared.same_final_answer else "different"
    what = "turns" if compared.turns else "steps"
    return f"{what}: {parts}; final answers: {answers}"

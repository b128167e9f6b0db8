"""`tunix-rt compare`: say whether one evaluation is better than another."""

from __future__ import annotations

import shlex
import tempfile
import webbrowser
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.text import Text

from tunix_rt import Client, v1
from tunix_rt.answers import answer_traces
from tunix_rt.cli import tables, text
from tunix_rt.cli.changes import shown_changes
from tunix_rt.cli.command import command, single
from tunix_rt.cli.errors import Failure
from tunix_rt.cli.evaluation_view import GREEDY, decoding_text, model_label
from tunix_rt.cli.labels import LabelOptions, label_facts
from tunix_rt.cli.lookup import completes, named
from tunix_rt.cli.options import FlipsOption, resource_name, short_name
from tunix_rt.cli.session import Session
from tunix_rt.cli.traces_import import store
from tunix_rt.gate import gate_failure

app = single()

GATE_FAILED = 3
"""Exit code of a comparison that was made, but whose gate rejects the candidate."""

_FILES = {
    "report.md": v1.REPORT_FORMAT_MARKDOWN,
    "report.json": v1.REPORT_FORMAT_JSON,
    "report.html": v1.REPORT_FORMAT_HTML,
}


class Waivable(StrEnum):
    """Differences between the sides, besides the model, that can be waived."""

    EVAL_SET = "eval_set"
    ITEMS = "items"
    PROMPT_TOKENS = "prompt_tokens"
    CHAT_TEMPLATE = "chat_template"
    DECODING = "decoding"
    DTYPE = "dtype"
    REASONING = "reasoning"
    GRADERS = "graders"
    ENGINE = "engine"


_sound = partial(typer.Option, rich_help_panel="What is compared")
_gate = partial(typer.Option, rich_help_panel="Gate, for CI")


@dataclass(frozen=True)
class SideOptions:
    """What the sides consist of, and what they may differ in."""

    more_bases: Annotated[
        list[str] | None,
        _sound(
            "--more-base",
            metavar="EVALUATION",
            help="A further training seed of BASE (may be repeated).",
            autocompletion=completes("evaluations"),
        ),
    ] = None
    more_candidates: Annotated[
        list[str] | None,
        _sound(
            "--more-candidate",
            metavar="EVALUATION",
            help="A further training seed of CANDIDATE (may be repeated).",
            autocompletion=completes("evaluations"),
        ),
    ] = None
    waive: Annotated[
        list[Waivable] | None,
        _sound(
            "--waive",
            help="Compare even though the sides differ in this; the report says so (may be repeated).",
        ),
    ] = None


@dataclass(frozen=True)
class GateOptions:
    """Which outcomes end the command with code 3."""

    fail_on: Annotated[
        Literal["regressed", "not-improved"] | None,
        _gate(
            "--fail-on",
            help=f"Exit with code {GATE_FAILED} on this outcome. An inconclusive drop counts as regressed.",
        ),
    ] = None
    max_drop: Annotated[
        float | None,
        _gate(
            "--max-drop",
            min=0.0,
            max=1.0,
            help=f"Exit with code {GATE_FAILED} if the accuracy fell by more than this: 0.02 is two points.",
        ),
    ] = None


_BaseArgument = Annotated[
    str,
    typer.Argument(
        metavar="BASE", help="The evaluation to compare against.", autocompletion=completes("evaluations")
    ),
]
_CandidateArgument = Annotated[
    str,
    typer.Argument(
        metavar="CANDIDATE",
        help="The evaluation that may be better.",
        autocompletion=completes("evaluations"),
    ),
]
_OutputOption = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="DIR", help="Write report.md, report.json and report.html here."),
]


@command(
    app,
    "compare",
    example=(
        "tunix-rt compare $BASE $CANDIDATE -o report --open",
        "tunix-rt compare $BASE $SEED1 --more-candidate $SEED2 --more-candidate $SEED3",
        "tunix-rt compare $BASE $CANDIDATE --waive dtype --json",
        "tunix-rt compare $BASE $CANDIDATE --fail-on regressed --max-drop 0.02",
    ),
    prints=v1.ComparisonReport,
)
def compare(
    session: Session,
    base: _BaseArgument,
    candidate: _CandidateArgument,
    *,
    output: _OutputOption = None,
    open_report: Annotated[bool, typer.Option("--open", help="Open the report in a browser.")] = False,
    flips: FlipsOption = 3,
    store_traces: Annotated[
        bool,
        typer.Option(
            "--store-traces",
            help='Store the answers, each once, as traces of source "evaluation", for `traces compare`.',
        ),
    ] = False,
    labels: LabelOptions,
    sides: SideOptions,
    gate: GateOptions,
) -> None:
    """Compare two evaluations of one eval set, item by item, or several training seeds of each.

    A comparison is refused unless both sides were asked the same questions in the same way.
    """
    if output is not None and output.exists() and not output.is_dir():
        raise typer.BadParameter(f"--output: {output} is a file; a folder would be right")
    bases, candidates = (
        [resource_name("evaluations", given) for given in [first, *(more or [])]]
        for first, more in ((base, sides.more_bases), (candidate, sides.more_candidates))
    )
    with session.connect() as client:
        bases = [named(session, client, name) for name in bases]
        candidates = [named(session, client, name) for name in candidates]
        report = client.evaluator.compare_evaluations(
            bases[0],
            candidates[0],
            more_bases=bases[1:],
            more_candidates=candidates[1:],
            waivers=[*map(str, sides.waive or [])],
            **labels.given(),
        )
        folder = _written(client, report, output, anywhere=open_report)
        if store_traces:
            _store_traces(session, client, bases + candidates)
    session.show(report, partial(print_comparison, flips=flips))
    if report.flips:
        session.say(f"each of them: {_look_closer(session, report)}")
    if folder is not None:
        session.say(f"report written to {folder / 'report.html'}")
        if open_report:
            webbrowser.open((folder / "report.html").absolute().as_uri())
    failure = gate_failure(report, fail_on=gate.fail_on, max_drop=gate.max_drop)
    if failure is not None:
        session.leave(
            Failure(f"gate: {failure}", "FAILED_PRECONDITION", "GATE_FAILED", exit_code=GATE_FAILED)
        )


def _written(
    client: Client, report: v1.ComparisonReport, output: Path | None, *, anywhere: bool
) -> Path | None:
    """The folder that the report's documents were written to; None if none was wanted."""
    folder = output
    if folder is None and anywhere:
        folder = Path(tempfile.mkdtemp(prefix="tunix-rt-report-"))
    if folder is not None:
        write_report(client, report.name, folder)
    return folder


def _look_closer(session: Session, report: v1.ComparisonReport) -> str:
    """The command that shows what went wrong, the worst first."""
    rows = " --training-rows 3" if report.candidate.spec.checkpoint or report.base.spec.checkpoint else ""
    folder = (
        "" if session.given.data_dir is None else f" --data-dir {shlex.quote(str(session.given.data_dir))}"
    )
    return f"tunix-rt reports regressions {short_name(report.name)}{rows}{folder}"


def write_report(client: Client, name: str, folder: Path) -> None:
    """Write a comparison report as Markdown, JSON and HTML into a folder."""
    for file, format in _FILES.items():
        client.evaluator.download_comparison_report(name, folder / file, format=format)


def _store_traces(session: Session, client: Client, evaluations: list[str]) -> None:
    for name in evaluations:
        result = store(session, client, answer_traces(client, name), None, "skip")
        session.say(
            f"answers of {name}: {text.counted(result.created, 'trace')} stored, "
            f"{text.count(result.skipped)} stored already"
        )


VERDICTS = {
    v1.ComparisonReport.VERDICT_IMPROVED: ("improved", "bold green"),
    v1.ComparisonReport.VERDICT_REGRESSED: ("regressed", "bold red"),
    v1.ComparisonReport.VERDICT_NO_EVIDENCE: ("no evidence of a difference", "bold yellow"),
    v1.ComparisonReport.VERDICT_INCONCLUSIVE: ("inconclusive", "bold yellow"),
}


def print_comparison(console: Console, report: v1.ComparisonReport, *, flips: int = 3) -> None:
    """The headline, the categories, and the worst and the best of the items that changed."""
    console.print(headline(report))
    for notice in _notices(report):
        console.print(notice, style="yellow", markup=False, soft_wrap=True)
    if len(report.categories) > 1:
        console.print(_categories(report))
    for line in shown_changes(report, flips):
        console.print(line)


def headline(report: v1.ComparisonReport) -> Panel:
    """Both accuracies with intervals, the difference, its p-value and the verdict, in a frame."""
    overall = report.overall
    verdict, style = VERDICTS.get(report.verdict, ("unknown", ""))
    lower, upper = map(text.signed_points, (overall.interval.lower, overall.interval.upper))
    difference = Text.assemble(
        (text.signed_points(overall.difference), "bold"), (f"  95% interval {lower} to {upper}", "dim")
    )
    test = f"{text.p_value(overall.p_value)} ({overall.test or 'exact McNemar'})"
    changed = f"{overall.gained_count} went right, {overall.lost_count} went wrong{_averaged(report)}"
    rows = tables.facts(
        [
            *label_facts(report),
            ("base", _accuracy(overall.base, report.base)),
            ("candidate", _accuracy(overall.candidate, report.candidate)),
            ("difference", difference),
            ("evidence", f"{test}: {changed}"),
            *_further(report),
        ]
    )
    why = [Text(f"{reason[:1].upper()}{reason[1:]}.") for reason in report.verdict_reasons]
    return Panel(
        Group(Text(f"Verdict: {verdict}", style=style), *why, Text(), rows),
        title=Text(report.name),
        title_align="left",
        border_style=style.removeprefix("bold "),
        padding=(1, 2),
        expand=False,
    )


def _further(report: v1.ComparisonReport) -> Iterator[tuple[str, str]]:
    """What else the evidence says: power, seeds, the clean subset, answers that are not settled."""
    overall, bounds, seeds = report.overall, report.bounds, report.seeds
    mine, theirs = (decoding_text(side.spec.decoding) for side in (report.base, report.candidate))
    if mine != theirs or not mine.startswith(GREEDY):
        yield "decoding", mine if mine == theirs else f"base {mine}; candidate {theirs}"
    if overall.HasField("minimum_detectable_effect"):
        effect = 100 * overall.minimum_detectable_effect
        yield "power", f"a true difference of {effect:.1f} points would be shown four times in five"
    if overall.cluster_count:
        yield "clusters", text.count(overall.cluster_count)
    if report.HasField("seeds"):
        tested = text.p_value(seeds.p_value) if seeds.HasField("p_value") else "no variation to test by"
        mine = text.percent(seeds.base_mean) + _spread(seeds.base_spread, seeds.base)
        theirs = text.percent(seeds.candidate_mean) + _spread(seeds.candidate_spread, seeds.candidate)
        yield "seeds", f"base {mine}, candidate {theirs}; {tested} ({seeds.test})"
    if report.contamination.HasField("clean"):
        clean = report.contamination.clean
        yield (
            "clean items",
            f"{text.signed_points(clean.difference)} over {text.count(clean.base.item_count)}, "
            f"{text.p_value(clean.p_value)}",
        )
    if bounds.unsettled_count:
        yield (
            "not settled",
            f"{text.counted(bounds.unsettled_count, 'item')} failed, not graded or missing: "
            f"{text.signed_points(bounds.worst)} at worst, {text.signed_points(bounds.best)} at best",
        )
    if report.base.summary.reasoning_count or report.candidate.summary.reasoning_count:
        yield (
            "reasoning",
            f"base {_reasoned(report.base.summary)}; candidate {_reasoned(report.candidate.summary)}",
        )
    if report.HasField("unmarked"):
        unmarked = report.unmarked
        verdict, _ = VERDICTS.get(unmarked.verdict, ("unknown", ""))
        yield (
            "unmarked",
            f"on answers that nothing marks rest {text.counted(unmarked.base_count, 'verdict')} of the base "
            f"({unmarked.base_correct_count:,} right) and {unmarked.candidate_count:,} of the candidate "
            f"({unmarked.candidate_correct_count:,} right); were those wrong: "
            f"{text.signed_points(unmarked.without.difference)}, "
            f"{text.p_value(unmarked.without.p_value)}, {verdict}",
        )


def _reasoned(summary: v1.EvaluationSummary) -> str:
    """How many tokens an answer's reasoning took, and how many were never closed."""
    tokens = "unknown tokens"
    if summary.HasField("reasoning_tokens") and summary.reasoning_count:
        tokens = f"{summary.reasoning_tokens / summary.reasoning_count:,.0f} tokens"
    if not summary.reasoning_count:
        return "none"
    return (
        f"{tokens} in each of {summary.reasoning_count:,} ({summary.unclosed_reasoning_count:,} never closed)"
    )


def _averaged(report: v1.ComparisonReport) -> str:
    samples = max(side.spec.decoding.samples for side in (report.base, report.candidate))
    return ", on average over the samples of an item" if samples > 1 else ""


def _spread(spread: float, accuracies: Sequence[float]) -> str:
    return f" (sd {100 * spread:.1f} of {len(accuracies)})" if len(accuracies) > 1 else ""


def _notices(report: v1.ComparisonReport) -> Iterator[str]:
    for warning in report.warnings:
        yield f"warning: {warning.description}"
    for waiver in report.waivers:
        yield f"waived: {waiver.description}"
    contamination = report.contamination
    if contamination.state == v1.Contamination.STATE_NOT_LOOKED_UP:
        yield f"not checked whether the training data leaks items: {contamination.reason}"
    if contamination.item_count:
        items = text.counted(contamination.item_count, "item")
        yield f"the training data ({', '.join(contamination.datasets)}) leaks {items}"


def _accuracy(accuracy: v1.Accuracy, side: v1.Evaluation) -> Text:
    bounds = text.interval(accuracy.interval.lower, accuracy.interval.upper)
    counts = f"{accuracy.correct_count}/{accuracy.item_count} right"
    named = f"{side.display_name}, " if side.display_name else ""
    tail = f"  {counts}, 95% interval {bounds}, {named}{model_label(side.spec)}"
    return Text.assemble((text.percent(accuracy.accuracy), "bold"), (tail, "dim"))


def _categories(report: v1.ComparisonReport) -> RenderableType:
    rows = tables.table("CATEGORY", ">ITEMS", ">BASE", ">CANDIDATE", ">DIFFERENCE", ">P", ">P (HOLM)")
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
            text.p_value(entry.adjusted_p_value).removeprefix("p = ")
            if entry.HasField("adjusted_p_value")
            else "-",
        )
    return rows

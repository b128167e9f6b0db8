"""`tunix-rt compare`: say whether one evaluation is better than another."""

from __future__ import annotations

import tempfile
import webbrowser
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from tunix_rt import Client, v1
from tunix_rt.answers import answer_traces
from tunix_rt.cli import text
from tunix_rt.cli.command import command, single
from tunix_rt.cli.comparison_view import print_comparison
from tunix_rt.cli.resources import resource_name
from tunix_rt.cli.session import Session
from tunix_rt.cli.traces.storing import Duplicates, store
from tunix_rt.gate import gate_failure

app = single()

GATE_FAILED = 3
"""Exit code where the comparison was made and its gate does not let the candidate through."""

_FILES = {
    "report.md": v1.REPORT_FORMAT_MARKDOWN,
    "report.json": v1.REPORT_FORMAT_JSON,
    "report.html": v1.REPORT_FORMAT_HTML,
}
_GATE = "Gate, for CI"
_SOUND = "What is compared"


class Waivable(StrEnum):
    """Differences between the sides, besides the model, that can be let pass."""

    EVAL_SET = "eval_set"
    ITEMS = "items"
    PROMPT_TOKENS = "prompt_tokens"
    CHAT_TEMPLATE = "chat_template"
    DECODING = "decoding"
    DTYPE = "dtype"
    REASONING = "reasoning"
    GRADERS = "graders"
    ENGINE = "engine"


class FailOn(StrEnum):
    """Verdicts that a gate does not let through."""

    REGRESSED = "regressed"
    NOT_IMPROVED = "not-improved"


@command(
    app,
    "compare",
    example=(
        "tunix-rt compare $BEFORE $AFTER -o report --open",
        "tunix-rt compare $BEFORE $SEED1 --more-candidate $SEED2 --more-candidate $SEED3",
        "tunix-rt compare $BEFORE $AFTER --waive dtype --json",
        "tunix-rt compare $BEFORE $AFTER --fail-on regressed --max-drop 0.02",
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
    store_traces: Annotated[
        bool,
        typer.Option(
            "--store-traces",
            help='Store what was answered as traces of source "evaluation", each once, for `traces compare`.',
        ),
    ] = False,
    more_bases: Annotated[
        list[str] | None,
        typer.Option(
            "--more-base",
            metavar="EVALUATION",
            help="A further training seed of BASE (may be repeated).",
            rich_help_panel=_SOUND,
        ),
    ] = None,
    more_candidates: Annotated[
        list[str] | None,
        typer.Option(
            "--more-candidate",
            metavar="EVALUATION",
            help="A further training seed of CANDIDATE (may be repeated).",
            rich_help_panel=_SOUND,
        ),
    ] = None,
    waive: Annotated[
        list[Waivable] | None,
        typer.Option(
            "--waive",
            help="Compare although the sides differ in this; it stands on the report (may be repeated).",
            rich_help_panel=_SOUND,
        ),
    ] = None,
    fail_on: Annotated[
        FailOn | None,
        typer.Option(
            "--fail-on",
            help=f"Exit with code {GATE_FAILED} on this outcome; inconclusive below 0 counts as regressed.",
            rich_help_panel=_GATE,
        ),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            "--max-drop",
            min=0.0,
            max=1.0,
            help=f"Exit with code {GATE_FAILED} if the accuracy fell by more: 0.02 is two points.",
            rich_help_panel=_GATE,
        ),
    ] = None,
) -> None:
    """Compare two evaluations of one eval set, item by item, or several training seeds of each.

    A comparison is refused where the sides were not asked the same questions in the same way.
    """
    if output is not None and output.exists() and not output.is_dir():
        raise typer.BadParameter(f"--output: {output} is a file; a folder would be right")
    first, second = resource_name("evaluations", base), resource_name("evaluations", candidate)
    bases = [resource_name("evaluations", given) for given in more_bases or []]
    candidates = [resource_name("evaluations", given) for given in more_candidates or []]
    with session.connect() as client:
        report = client.evaluator.compare_evaluations(
            first, second, more_bases=bases, more_candidates=candidates, waivers=[*map(str, waive or [])]
        )
        folder = output
        if folder is None and open_report:
            folder = Path(tempfile.mkdtemp(prefix="tunix-rt-report-"))
        if folder is not None:
            write_report(client, report.name, folder)
        if store_traces:
            _store_traces(session, client, [first, *bases, second, *candidates])
    if session.as_json:
        session.print_message(report)
    else:
        print_comparison(session.out, report, flips=flips)
    if folder is not None:
        session.say(f"report written to {folder / 'report.html'}")
        if open_report:
            webbrowser.open((folder / "report.html").absolute().as_uri())
    failure = gate_failure(report, fail_on=fail_on.value if fail_on else None, max_drop=max_drop)
    if failure is not None:
        session.fail([f"gate: {failure}"])
        raise typer.Exit(GATE_FAILED)


def write_report(client: Client, name: str, folder: Path) -> None:
    """Writes a comparison report as Markdown, JSON and HTML into a folder."""
    for file, format in _FILES.items():
        client.evaluator.download_comparison_report(name, folder / file, format=format)


def _store_traces(session: Session, client: Client, evaluations: list[str]) -> None:
    for name in evaluations:
        result = store(session, client, answer_traces(client, name), None, Duplicates.SKIP)
        session.say(
            f"answers of {name}: {text.counted(result.created, 'trace')} stored, "
            f"{text.count(result.skipped)} stored already"
        )

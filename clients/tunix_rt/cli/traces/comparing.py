"""`tunix-rt traces compare`: two traces side by side."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from typing import Annotated, Final

import typer
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tunix_rt import v1
from tunix_rt.cli import tables
from tunix_rt.cli.command import command
from tunix_rt.cli.console import visible
from tunix_rt.cli.resources import short_name, trace_name
from tunix_rt.cli.session import Session
from tunix_rt.cli.traces.app import app

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
)
def compare(
    session: Session,
    base: Annotated[str, typer.Argument(metavar="BASE", help="The trace compared against.")],
    other: Annotated[str, typer.Argument(metavar="OTHER", help="The trace compared.")],
) -> None:
    """Set two traces side by side: their scores, and their steps aligned, with the differences marked."""
    names = trace_name(base), trace_name(other)
    with session.connect() as client:
        compared = client.trace_store.compare_traces(*names)
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
    sheet = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False, expand=True)
    sheet.add_column("", width=1)
    sheet.add_column("", no_wrap=True)
    for name in (base.name, other.name):
        sheet.add_column(Text(short_name(name)), ratio=1, overflow="fold")
    same_prompt, same_answer = base.prompt == other.prompt, compared.same_final_answer
    _add(sheet, _same(same_prompt), "prompt", Text(visible(base.prompt)), Text(visible(other.prompt)))
    sheet.add_section()
    for row in compared.alignment:
        _add(sheet, row.relation, "step", _step(base, row, "base_index"), _step(other, row, "other_index"))
    sheet.add_section()
    _add(
        sheet,
        _same(same_answer),
        "answer",
        Text(visible(base.final_answer)),
        Text(visible(other.final_answer)),
    )
    return sheet


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
) -> None:
    mark, style, _ = _RELATIONS.get(relation, ("?", "", ""))
    if relation == v1.StepAlignment.RELATION_CHANGED and base is not None and other is not None:
        _mark_words(base, other)
    elif relation == v1.StepAlignment.RELATION_SAME and label == "step":
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


def _scores(compared: v1.CompareTracesResponse) -> Table:
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
    counts = Counter(row.relation for row in compared.alignment)
    steps = ", ".join(
        f"{counts[relation]} {words}" for relation, (_, _, words) in _RELATIONS.items() if counts[relation]
    )
    answers = "the same" if compared.same_final_answer else "different"
    return f"steps: {steps}; final answers: {answers}"

"""A report as one HTML file, with its style, charts and script in it.

Charts are SVG that takes colours and font from the page. The same content makes the same bytes: no dates, no
random ids.
"""

from __future__ import annotations

import base64
import hashlib
import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cache
from importlib.resources import files
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Final

from markupsafe import Markup

from tunix_rt.escapes import visible
from tunix_rt_evaluator.comparisons.model import CategoryDifference, ComparisonContent, Flip, TrainingStep
from tunix_rt_evaluator.comparisons.patterns import groups, in_order, shown
from tunix_rt_evaluator.comparisons.policy import POLICY
from tunix_rt_evaluator.evaluations.model import Accuracy, ItemResult
from tunix_rt_evaluator.grading.model import Parts
from tunix_rt_evaluator.report import words
from tunix_rt_kit.callers import check

if TYPE_CHECKING:
    from jinja2 import Template

# Colours that stand for a variable of the page's style sheet, since matplotlib knows none.
_COLOURS: Final = {
    "#010203": "var(--ink)",
    "#010204": "var(--muted)",
    "#010205": "var(--line)",
    "#010206": "var(--base)",
    "#010207": "var(--candidate)",
}
_INK, _MUTED, _LINE, _BASE, _CANDIDATE = _COLOURS
_MARKERS: Final = {_BASE: "o", _CANDIDATE: "D"}
IN_FULL: Final = 200
"""Items that went wrong, and as many that went right, whose whole answers are on the page."""
_WIDTH: Final = 6.0
_MOST_BINS: Final = 40
_MOST_LABEL: Final = 24


def accuracy_chart(content: ComparisonContent) -> str:
    """Accuracy of base and candidate, with Wilson's intervals."""
    overall = content.overall

    def draw(axes: Any) -> None:
        for row, (accuracy, colour) in enumerate(((overall.candidate, _CANDIDATE), (overall.base, _BASE))):
            axes.barh(row, 100 * accuracy.accuracy, height=0.52, color=colour, alpha=0.9, zorder=2)
            _whisker(axes, accuracy, row, _INK)
            right = 100 * max(accuracy.interval.upper, accuracy.accuracy)
            axes.text(
                right + 1.5, row, words.percent(accuracy.accuracy), va="center", color=_INK, fontsize=11,
                fontweight="bold",
            )  # fmt: skip
        axes.set_yticks([0, 1], ["Candidate", "Base"])
        _percent_axis(axes, _top([overall.base, overall.candidate], 14.0))
        axes.set_ylim(-0.5, 1.5)

    return _svg("accuracy", 1.55, draw, "Accuracy of base and candidate with 95% intervals")


def category_chart(categories: Sequence[CategoryDifference]) -> str:
    """Accuracy of base and candidate by category, with Wilson's intervals."""

    def draw(axes: Any) -> None:
        for row, entry in enumerate(reversed(categories)):
            difference = entry.difference
            for accuracy, colour, shift in (
                (difference.base, _BASE, 0.16),
                (difference.candidate, _CANDIDATE, -0.16),
            ):
                _whisker(axes, accuracy, row + shift, colour)
                axes.plot(
                    100 * accuracy.accuracy,
                    row + shift,
                    _MARKERS[colour],
                    color=colour,
                    markersize=7,
                    zorder=4,
                    # A marker at 0% or 100% would be cut in half by the edge.
                    clip_on=False,
                )
        labels = [
            f"{_label(words.category_name(entry.category))} ({entry.difference.base.item_count})"
            for entry in reversed(categories)
        ]
        axes.set_yticks(range(len(categories)), labels)
        _percent_axis(axes, 100.0)
        axes.set_ylim(-0.6, len(categories) - 0.4)

    height = 0.75 + 0.42 * len(categories)
    return _svg("categories", height, draw, "Accuracy of base and candidate by category with 95% intervals")


def loss_chart(steps: Sequence[TrainingStep]) -> str:
    """Training loss by step, and validation loss where it was measured."""
    validated = [(step.step, step.validation_loss) for step in steps if step.validation_loss is not None]

    def draw(axes: Any) -> None:
        axes.plot(
            [step.step for step in steps], [step.loss for step in steps], color=_CANDIDATE, linewidth=1.8,
            label="training", zorder=3,
        )  # fmt: skip
        if validated:
            at, losses = zip(*validated, strict=True)
            axes.plot(at, losses, "o", color=_BASE, markersize=7, label="validation", zorder=4)
            legend = axes.legend(frameon=False, fontsize=10, labelcolor=_INK)
            legend.set_zorder(5)
        axes.set_xlabel("step", color=_MUTED)
        axes.set_ylabel("loss, nats a token", color=_MUTED)
        axes.set_ylim(bottom=0)
        axes.margins(x=0.02)
        axes.grid(axis="y", color=_LINE, linewidth=0.8, zorder=0)

    return _svg("loss", 2.5, draw, "Loss by training step")


def length_chart(base: Sequence[int], candidate: Sequence[int]) -> str:
    """How many answers have how many tokens."""
    import numpy as np
    from matplotlib.ticker import MaxNLocator

    edges = np.histogram_bin_edges([*base, *candidate], bins="auto")
    if len(edges) > _MOST_BINS:
        edges = np.histogram_bin_edges([*base, *candidate], bins=_MOST_BINS)

    def draw(axes: Any) -> None:
        for lengths, colour, label in ((base, _BASE, "base"), (candidate, _CANDIDATE, "candidate")):
            axes.hist(lengths, edges, histtype="stepfilled", color=colour, alpha=0.25, zorder=2)
            axes.hist(lengths, edges, histtype="step", color=colour, linewidth=1.8, label=label, zorder=3)
        axes.legend(frameon=False, fontsize=10, labelcolor=_INK)
        axes.set_xlabel("tokens", color=_MUTED)
        axes.set_ylabel("answers", color=_MUTED)
        axes.set_xlim(left=min(0.0, float(edges[0])))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(nbins=7, integer=True))
        axes.grid(axis="y", color=_LINE, linewidth=0.8, zorder=0)

    return _svg("lengths", 2.3, draw, "Number of answers by their length in tokens")


def _label(name: str) -> str:
    """A category beside its chart, which a long one would leave no room; the table has it whole."""
    told = visible(name)
    return told if len(told) <= _MOST_LABEL else f"{told[: _MOST_LABEL - 1].rstrip()}\u2026"


def _whisker(axes: Any, accuracy: Accuracy, row: float, colour: str) -> None:
    interval = accuracy.interval
    axes.plot(
        [100 * interval.lower, 100 * interval.upper], [row, row], color=colour, linewidth=1.6, zorder=3,
        solid_capstyle="round",
    )  # fmt: skip


def _top(accuracies: Sequence[Accuracy], room: float) -> float:
    """Right end of a percent axis: the least multiple of 20 that holds the intervals and ``room`` for a
    label."""
    widest = max(100 * accuracy.interval.upper for accuracy in accuracies) + room
    return min(100.0 + room, max(20.0, -(-widest // 20) * 20))


def _percent_axis(axes: Any, top: float) -> None:
    from matplotlib.ticker import FuncFormatter

    step = 20 if top > 40 else 10
    axes.set_xlim(0, top)
    axes.set_xticks([tick for tick in range(0, 101, step) if tick <= top])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}%"))
    axes.grid(axis="x", color=_LINE, linewidth=0.8, zorder=0)


def _svg(name: str, height: float, draw: Callable[[Any], None], label: str) -> str:
    """The SVG element of what ``draw`` draws on axes ``height`` inches high. ``label`` is its text for screen
    readers."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    # Text stays text, in the page's font; ids are hashes of the content and this salt.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": f"tunix-rt {name}", "font.size": 10.5}):
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        FigureCanvasSVG(figure)
        figure.patch.set_alpha(0)
        axes = figure.add_subplot()
        axes.patch.set_alpha(0)
        axes.set_axisbelow(True)
        draw(axes)
        axes.tick_params(colors=_MUTED, labelcolor=_INK, length=0)
        for side, spine in axes.spines.items():
            spine.set_visible(side == "bottom")
            spine.set_color(_LINE)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    return _inlined(buffer.getvalue(), label)


def _inlined(document: str, label: str) -> str:
    """The SVG element of a document, fit for a page: colours are variables, unused ids and the size go."""
    svg = document[document.index("<svg") :].rstrip()
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    used = set(re.findall(r"(?:url\(#|href=\"#)([^\")]+)", svg))
    svg = re.sub(r' id="([^"]+)"', lambda match: match.group() if match[1] in used else "", svg)
    for colour, variable in _COLOURS.items():
        svg = svg.replace(colour, variable)
    svg = re.sub(r"font: ((?:\d+ )?[\d.]+px) [^;\"]*", r"font: \1 var(--font)", svg)
    head, rest = svg.split(">", 1)
    head = re.sub(r' (?:width|height)="[^"]*"', "", head)
    return f'{head} role="img" aria-label="{label}">{rest}'


_FILES: Final = files("tunix_rt_evaluator.report") / "templates"
_NOTHING: Final = Parts("", "", "none", 0)


def render_html(name: str, digest: str, content: ComparisonContent) -> str:
    """The report as one HTML document."""
    drawn = {"accuracy": accuracy_chart(content)}
    if len(content.categories) > 1:
        drawn["categories"] = category_chart(content.categories)
    if content.base_output_tokens and content.candidate_output_tokens:
        drawn["lengths"] = length_chart(content.base_output_tokens, content.candidate_output_tokens)
    if content.training:
        drawn["loss"] = loss_chart(content.training)
    flips, left_out = _in_full(name, content)
    script, script_digest = _script()
    return _template().render(
        name=name,
        digest=digest,
        content=content,
        overall=content.overall,
        words=words,
        facts=words.provenance(content),
        policy=POLICY,
        groups=[(regressed, groups(content, regressed=regressed)) for regressed in (True, False)],
        flips=flips,
        left_out=left_out,
        gained_count=sum(not flip.regressed for flip in flips),
        flip_categories=sorted({flip.base.category for flip in flips}),
        sides=_sides,
        # Drawn here from numbers and escaped labels, so it is markup and not text.
        charts={key: Markup(svg) for key, svg in drawn.items()},
        script=script,
        script_digest=script_digest,
    )


def _in_full(name: str, content: ComparisonContent) -> tuple[list[Flip], list[str]]:
    """The items whose whole answers the page has, those that went wrong first, and where the others are."""
    in_full: list[Flip] = []
    left_out = []
    for regressed in (True, False):
        flips = in_order(flip for flip in content.flips if flip.regressed is regressed)
        in_full += [
            flip.model_copy(update={"base": shown(flip.base), "candidate": shown(flip.candidate)})
            for flip in flips[:IN_FULL]
        ]
        if len(flips) > IN_FULL:
            went = "wrong" if regressed else "right"
            told = words.left_out(len(flips) - IN_FULL, name, regressed=regressed)
            left_out.append(f"Of those that went {went}, {told}")
    return in_full, left_out


def _shown(value: object) -> object:
    """A value as the page shows it: in a text, characters that a browser would act on are written out."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _sides(flip: Flip) -> Iterator[tuple[str, ItemResult, Parts | None, Sequence[Part]]]:
    """For each side its name, its result, its reasoning (None without any), and its answer in parts."""
    both = [next(iter(result.parts), _NOTHING) for result in (flip.base, flip.candidate)]
    marked = differences(both[0].answer, both[1].answer)
    for side, result, parts, answer in zip(
        ("Base", "Candidate"), (flip.base, flip.candidate), both, marked, strict=True
    ):
        error = result.generation.error
        reasoned = None if parts.state == "none" else parts
        yield side, result, reasoned, [Part(error, False)] if error else answer


@cache
def _script() -> tuple[Markup, str]:
    """The page's only script, and its digest: a browser runs no other, whatever a text holds."""
    script = _FILES.joinpath("report.js").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return Markup(script), f"sha256-{digest}"


@cache
def _template() -> Template:
    # A command that looks at an evaluation does without.
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("tunix_rt_evaluator.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    return environment.get_template("report.html.j2")


# With the space behind them: half as many to compare.
_WORDS: Final = re.compile(r"\s+|(?:\d+(?:[.,]\d+)*|\w+|[^\w\s])\s*")
_LINES: Final = re.compile(r"[^\n]*\n|[^\n]+")
# Comparing takes up to the product of both lengths: some milliseconds for this much.
_MOST: Final = 40_000


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a text; ``changed`` where the other text has something else."""

    text: str
    changed: bool


def differences(before: str, after: str) -> tuple[list[Part], list[Part]]:
    """Both texts in parts, marked where they differ.

    Lines are matched first. Lines that do not match are compared by words, very long ones as a whole, so that
    a report with thousands of answers takes seconds.
    """
    check()
    one, two = _LINES.findall(before), _LINES.findall(after)
    first: list[Part] = []
    second: list[Part] = []
    if len(one) * len(two) > _MOST:
        blocks = [("replace", 0, len(one), 0, len(two))]
    else:
        blocks = list(SequenceMatcher(None, one, two, autojunk=False).get_opcodes())
    for tag, a, b, c, d in blocks:
        if tag == "equal":
            first += [Part(line, False) for line in one[a:b]]
            second += [Part(line, False) for line in two[c:d]]
            continue
        for old, new in zip_longest(one[a:b], two[c:d], fillvalue=""):
            left, right = _words(old, new)
            first += left
            second += right
    return list(_joined(first)), list(_joined(second))


def _words(before: str, after: str) -> tuple[list[Part], list[Part]]:
    one, two = _WORDS.findall(before), _WORDS.findall(after)
    if not one or not two or len(one) * len(two) > _MOST:
        changed = before != after
        return [Part(before, changed)], [Part(after, changed)]
    blocks = SequenceMatcher(None, one, two, autojunk=False).get_opcodes()
    return (
        [Part("".join(one[a:b]), tag != "equal") for tag, a, b, _, _ in blocks],
        [Part("".join(two[c:d]), tag != "equal") for tag, _, _, c, d in blocks],
    )


def _joined(parts: Sequence[Part]) -> Iterator[Part]:
    """Neighbours of one kind joined. Space behind a change is marked only if the change is nothing else."""
    pending, changed = "", False
    # An empty part, where the other text has something more, keeps no neighbours apart.
    for part in [*(part for part in parts if part.text), Part("", False)]:
        if pending and part.changed is not changed:
            kept = pending.rstrip() if changed and pending.strip() else pending
            yield Part(kept, changed)
            pending = pending[len(kept) :]
        pending, changed = pending + part.text, part.changed
    if pending:
        yield Part(pending, changed)

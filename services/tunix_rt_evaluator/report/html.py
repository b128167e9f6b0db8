"""A report as one HTML file that needs nothing else: style, charts and the script that filters are in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from tunix_rt_evaluator.comparisons.model import ComparisonContent, Flip
from tunix_rt_evaluator.comparisons.verdicts import POLICY
from tunix_rt_evaluator.evaluations.results import ItemResult
from tunix_rt_evaluator.grading.reasoning.model import Parts
from tunix_rt_evaluator.report import charts, words
from tunix_rt_evaluator.report.differences import Part, differences
from tunix_rt_evaluator.report.provenance import provenance
from tunix_rt_kit.text import visible

_NOTHING: Final = Parts("", "", "none", 0)


def render_html(name: str, digest: str, content: ComparisonContent) -> str:
    """The report as one HTML document."""
    drawn = {"accuracy": charts.accuracy_chart(content)}
    if len(content.categories) > 1:
        drawn["categories"] = charts.category_chart(content.categories)
    if content.base_output_tokens and content.candidate_output_tokens:
        drawn["lengths"] = charts.length_chart(content.base_output_tokens, content.candidate_output_tokens)
    if content.training:
        drawn["loss"] = charts.loss_chart(content.training)
    return _template().render(
        name=name,
        digest=digest,
        content=content,
        overall=content.overall,
        words=words,
        facts=provenance(content),
        policy=POLICY,
        flips=[
            Flip(base=words.shown(flip.base), candidate=words.shown(flip.candidate)) for flip in content.flips
        ],
        gained_count=sum(flip.candidate.verdict.correct for flip in content.flips),
        flip_categories=sorted({flip.base.category for flip in content.flips}),
        sides=_sides,
        # Drawn here from numbers and escaped labels, so it is markup and not text.
        charts={key: Markup(svg) for key, svg in drawn.items()},
    )


def _shown(value: object) -> object:
    """A value as the page shows it, with what a browser would obey in a text written out."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _sides(flip: Flip) -> Iterator[tuple[str, ItemResult, Parts | None, Sequence[Part]]]:
    """Of each side its name, its result, its reasoning if it has some, and its answer in parts."""
    both = [next(iter(result.parts), _NOTHING) for result in (flip.base, flip.candidate)]
    marked = differences(both[0].answer, both[1].answer)
    for side, result, parts, answer in zip(
        ("Base", "Candidate"), (flip.base, flip.candidate), both, marked, strict=True
    ):
        error = result.generation.error
        reasoned = None if parts.state == "none" else parts
        yield side, result, reasoned, [Part(error, False)] if error else answer


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("tunix_rt_evaluator.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    return environment.get_template("report.html.j2")

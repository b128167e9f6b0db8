"""A report as one HTML file that needs nothing else: style and charts are in it, and no script."""

from __future__ import annotations

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from tunix_rt_evaluator.model import ComparisonContent
from tunix_rt_evaluator.report import charts, words


def render_html(name: str, digest: str, content: ComparisonContent) -> str:
    """The report as one HTML document."""
    gained = [flip for flip in content.flips if flip.candidate.verdict.correct]
    lost = [flip for flip in content.flips if not flip.candidate.verdict.correct]
    drawn = {"accuracy": charts.accuracy_chart(content)}
    if len(content.categories) > 1:
        drawn["categories"] = charts.category_chart(content.categories)
    if content.training:
        drawn["loss"] = charts.loss_chart(content.training)
    return _template().render(
        name=name,
        digest=digest,
        content=content,
        overall=content.overall,
        words=words,
        facts=words.provenance(content),
        sections=(("gained", "Went right", gained), ("lost", "Went wrong", lost)),
        # Drawn here from numbers and escaped labels, so it is markup and not text.
        charts={key: Markup(svg) for key, svg in drawn.items()},
    )


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("tunix_rt_evaluator.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2")

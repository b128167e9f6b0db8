"""A report as one HTML file, with its style, charts and script in it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cache
from itertools import zip_longest
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from tunix_rt_evaluator.comparisons.model import ComparisonContent, Flip
from tunix_rt_evaluator.comparisons.policy import POLICY
from tunix_rt_evaluator.evaluations.results import ItemResult
from tunix_rt_evaluator.grading.reasoning.model import Parts
from tunix_rt_evaluator.report import charts, words
from tunix_rt_kit.callers import check
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
        facts=words.provenance(content),
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

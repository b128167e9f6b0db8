"""Comparison reports as documents: Markdown, JSON and HTML. Pure functions of a report's content."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from tunix_rt_evaluator.comparisons.model import ComparisonContent
from tunix_rt_evaluator.report.html import render_html
from tunix_rt_evaluator.report.json_document import render_json
from tunix_rt_evaluator.report.markdown import render_markdown


@dataclass(frozen=True, slots=True)
class DocumentKind:
    """One kind of document: its file name, and how it is made from a report's name, digest and content."""

    file_name: str
    render: Callable[[str, str, ComparisonContent], str]


DOCUMENTS: Final[Mapping[str, DocumentKind]] = {
    "markdown": DocumentKind("report.md", render_markdown),
    "json": DocumentKind("report.json", render_json),
    "html": DocumentKind("report.html", render_html),
}
"""Every kind of document by format."""

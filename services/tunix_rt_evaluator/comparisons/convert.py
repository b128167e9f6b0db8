"""Comparisons and their reports between the protobuf contract and the domain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tunix_rt import v1
from tunix_rt_evaluator.comparisons.model import (
    ComparisonReport,
    Contamination,
    report_name,
)
from tunix_rt_evaluator.comparisons.service import DocumentFormat
from tunix_rt_evaluator.evaluations.convert import evaluation_message, result_message
from tunix_rt_evaluator.evaluations.model import evaluation_name
from tunix_rt_kit.convert import timestamp, to_message
from tunix_rt_kit.errors import InvalidArgument
from tunix_rt_kit.values import StoredFile

_FORMATS: Final[Mapping[int, DocumentFormat]] = {
    v1.REPORT_FORMAT_UNSPECIFIED: "markdown",
    v1.REPORT_FORMAT_MARKDOWN: "markdown",
    v1.REPORT_FORMAT_JSON: "json",
    v1.REPORT_FORMAT_HTML: "html",
}
_MEDIA_TYPES: Final[Mapping[DocumentFormat, str]] = {
    "markdown": "text/markdown",
    "json": "application/json",
    "html": "text/html",
}
# Of training's metrics, what is not shown beside a comparison.
_NOT_SHOWN: Final = (
    "tokens_per_second",
    "step_duration",
    "eta",
    "epoch",
    "supervised_tokens_per_second",
)
# Named in a message; a report's documents name all.
_LEAKED_ITEMS: Final = 100
# Room for the rest of a report in a message of 4 MiB.
_FLIP_BYTES: Final = 3 << 20


def report_message(report: ComparisonReport) -> v1.ComparisonReport:
    """A comparison report, with as many flips as fit in a message."""
    message = report_facts(report)
    content = report.content
    if content is None:
        return message
    message.training_metrics.extend(
        to_message(step, v1.TrainingMetrics, unset=_NOT_SHOWN) for step in content.training
    )
    size = message.ByteSize()
    for entry in content.flips:
        flip = v1.Flip(base=result_message(entry.base), candidate=result_message(entry.candidate))
        size += flip.ByteSize() + 8
        if size > _FLIP_BYTES:
            break
        message.flips.append(flip)
    return message


def report_facts(report: ComparisonReport) -> v1.ComparisonReport:
    """A comparison report without flips and training metrics, as it stands in a listing."""
    name, content = report_name(report.id), report.content
    if content is None:
        return v1.ComparisonReport(name=name, digest=report.digest, create_time=timestamp(report.create_time))
    return to_message(
        content,
        v1.ComparisonReport,
        unset=["flips", "training_metrics"],
        name=name,
        digest=report.digest,
        create_time=report.create_time,
        base=evaluation_message(content.base),
        candidate=evaluation_message(content.candidate),
        more_bases=[evaluation_name(evaluation.id) for evaluation in content.more_bases],
        more_candidates=[evaluation_name(evaluation.id) for evaluation in content.more_candidates],
        contamination=_contamination(content.contamination),
    )


def _contamination(contamination: Contamination | None) -> v1.Contamination | None:
    if contamination is None:
        return None
    return to_message(
        contamination,
        v1.Contamination,
        items=contamination.items[:_LEAKED_ITEMS],
        item_count=len(contamination.items),
    )


def document_format(number: int) -> DocumentFormat:
    """The format with that number in the contract; raises InvalidArgument(REPORT_FORMAT_INVALID)."""
    known = _FORMATS.get(number)
    if known is None:
        description = f"is {number}; one of {', '.join(v1.ReportFormat.keys())} would be right"
        raise InvalidArgument.of_field("format", description, reason="REPORT_FORMAT_INVALID")
    return known


def document_header(document: StoredFile, format_: DocumentFormat) -> v1.ReadComparisonReportResponse:
    """The first message of a download."""
    return v1.ReadComparisonReportResponse(
        header=v1.DownloadHeader(
            size_bytes=document.size_bytes,
            digest=document.digest,
            media_type=_MEDIA_TYPES[format_],
            file_name=document.path,
        )
    )

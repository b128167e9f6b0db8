"""Between the protobuf contract and the domain, for comparisons and their reports."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from tunix_rt import v1
from tunix_rt_evaluator.comparisons.model import (
    ComparisonContent,
    ComparisonDraft,
    ComparisonReport,
    Contamination,
    LookupState,
    OutcomeBounds,
    PairedDifference,
    ScoreDifference,
    SeedSummary,
    TrainingStep,
    UnmarkedAnswers,
    VerdictName,
    report_name,
)
from tunix_rt_evaluator.comparisons.service import DocumentFormat
from tunix_rt_evaluator.evaluations.convert import (
    accuracy_message,
    evaluation_message,
    interval_message,
)
from tunix_rt_evaluator.evaluations.convert_results import result_message
from tunix_rt_evaluator.evaluations.model import evaluation_name
from tunix_rt_kit.errors import InvalidArgument
from tunix_rt_kit.values import StoredFile
from tunix_rt_kit.values.messages import timestamp

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
_VERDICTS: Final[Mapping[VerdictName, v1.ComparisonReport.Verdict.ValueType]] = {
    "IMPROVED": v1.ComparisonReport.VERDICT_IMPROVED,
    "REGRESSED": v1.ComparisonReport.VERDICT_REGRESSED,
    "NO_EVIDENCE": v1.ComparisonReport.VERDICT_NO_EVIDENCE,
    "INCONCLUSIVE": v1.ComparisonReport.VERDICT_INCONCLUSIVE,
}
_LOOKUPS: Final[Mapping[LookupState, v1.Contamination.State.ValueType]] = {
    "NOT_APPLICABLE": v1.Contamination.STATE_NOT_APPLICABLE,
    "LOOKED_UP": v1.Contamination.STATE_LOOKED_UP,
    "NOT_LOOKED_UP": v1.Contamination.STATE_NOT_LOOKED_UP,
}
_GIVEN_AWAY: Final = 100
# Room for the rest of a report in a message of 4 MiB.
_FLIP_BYTES: Final = 3 << 20


def comparison_draft(request: v1.CompareEvaluationsRequest) -> ComparisonDraft:
    """What a client wants compared, unchecked."""
    return ComparisonDraft(
        bases=(request.base, *request.more_bases),
        candidates=(request.candidate, *request.more_candidates),
        waivers=tuple(request.waivers),
    )


def report_page(
    reports: Iterable[ComparisonReport], next_page_token: str
) -> v1.ListComparisonReportsResponse:
    """One page, without flips and training metrics."""
    return v1.ListComparisonReportsResponse(
        comparison_reports=map(_report_facts, reports), next_page_token=next_page_token
    )


def report_message(report: ComparisonReport) -> v1.ComparisonReport:
    """A comparison report, with as many flips as fit in a message."""
    message = _report_facts(report)
    content = report.content
    if content is None:
        return message
    message.training_metrics.extend(_training_step(step) for step in content.training)
    size = message.ByteSize()
    for entry in content.flips:
        flip = v1.Flip(base=result_message(entry.base), candidate=result_message(entry.candidate))
        size += flip.ByteSize() + 8
        if size > _FLIP_BYTES:
            break
        message.flips.append(flip)
    return message


def _report_facts(report: ComparisonReport) -> v1.ComparisonReport:
    message = v1.ComparisonReport(
        name=report_name(report.id), digest=report.digest, create_time=timestamp(report.create_time)
    )
    if report.content is not None:
        message.MergeFrom(_content(report.content))
    return message


def _content(content: ComparisonContent) -> v1.ComparisonReport:
    return v1.ComparisonReport(
        base=evaluation_message(content.base),
        candidate=evaluation_message(content.candidate),
        more_bases=[evaluation_name(evaluation.id) for evaluation in content.more_bases],
        more_candidates=[evaluation_name(evaluation.id) for evaluation in content.more_candidates],
        verdict=_VERDICTS[content.verdict],
        verdict_reasons=content.verdict_reasons,
        overall=_difference(content.overall),
        categories=[
            v1.CategoryDifference(
                category=entry.category,
                difference=_difference(entry.difference),
                adjusted_p_value=entry.adjusted_p_value,
            )
            for entry in content.categories
        ],
        waivers=[v1.Waiver(**waiver.model_dump()) for waiver in content.waivers],
        bounds=_bounds(content.bounds),
        contamination=_contamination(content.contamination),
        seeds=_seeds(content.seeds),
        scores=_scores(content.scores),
        unmarked=_unmarked(content.unmarked),
    )


def _unmarked(unmarked: UnmarkedAnswers | None) -> v1.UnmarkedAnswers | None:
    if unmarked is None:
        return None
    return v1.UnmarkedAnswers(
        **unmarked.model_dump(exclude={"without", "verdict"}),
        without=_difference(unmarked.without),
        verdict=_VERDICTS[unmarked.verdict],
    )


def _bounds(bounds: OutcomeBounds | None) -> v1.OutcomeBounds | None:
    return None if bounds is None else v1.OutcomeBounds(**bounds.model_dump())


def _contamination(contamination: Contamination | None) -> v1.Contamination | None:
    if contamination is None:
        return None
    return v1.Contamination(
        state=_LOOKUPS[contamination.state],
        reason=contamination.reason,
        datasets=contamination.datasets,
        items=[v1.GivenAwayItem(**item.model_dump()) for item in contamination.items[:_GIVEN_AWAY]],
        item_count=len(contamination.items),
        clean=None if contamination.clean is None else _difference(contamination.clean),
    )


def _seeds(seeds: SeedSummary | None) -> v1.SeedSummary | None:
    if seeds is None:
        return None
    return v1.SeedSummary(
        **seeds.model_dump(exclude={"interval"}),
        interval=None if seeds.interval is None else interval_message(seeds.interval),
    )


def _scores(scores: ScoreDifference | None) -> v1.ScoreDifference | None:
    if scores is None:
        return None
    return v1.ScoreDifference(
        **scores.model_dump(exclude={"interval"}), interval=interval_message(scores.interval)
    )


def document_format(number: int) -> DocumentFormat:
    """Raises InvalidArgument(REPORT_FORMAT_INVALID) for a number that the contract does not name."""
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


def _difference(difference: PairedDifference) -> v1.PairedDifference:
    return v1.PairedDifference(
        base=accuracy_message(difference.base),
        candidate=accuracy_message(difference.candidate),
        difference=difference.difference,
        interval=interval_message(difference.interval),
        gained_count=difference.gained_count,
        lost_count=difference.lost_count,
        p_value=difference.p_value,
        test=difference.test,
        interval_method=difference.interval_method,
        minimum_detectable_effect=difference.detectable,
        cluster_count=difference.cluster_count,
    )


def _training_step(step: TrainingStep) -> v1.TrainingMetrics:
    return v1.TrainingMetrics(**step.model_dump())

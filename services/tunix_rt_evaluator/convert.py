"""Between the protobuf contract and the domain."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from google.protobuf.duration_pb2 import Duration

from tunix_rt import v1
from tunix_rt_evaluator.model import (
    Accuracy,
    ChatTemplateFields,
    ComparisonReport,
    Dtype,
    EvalItem,
    EvalSet,
    EvalSetDraft,
    Evaluation,
    EvaluationSpec,
    EvaluationSpecDraft,
    FinishReason,
    Interval,
    ItemResult,
    Manifest,
    NumericGrader,
    PairedDifference,
    Progress,
    StoredFile,
    Summary,
    TrainingStep,
    VerdictName,
)
from tunix_rt_evaluator.names import eval_set_name, evaluation_name, report_name
from tunix_rt_evaluator.service import DocumentFormat
from tunix_rt_kit.chat import ChatTemplate
from tunix_rt_kit.errors import FieldViolation, InvalidArgument
from tunix_rt_kit.serving.messages import failure_status, plain_struct, timestamp

_DTYPES: Final[Mapping[int, Dtype]] = {
    v1.DTYPE_UNSPECIFIED: "bfloat16",
    v1.DTYPE_BFLOAT16: "bfloat16",
    v1.DTYPE_FLOAT32: "float32",
}
_DTYPE_NUMBERS: Final[Mapping[Dtype, v1.Dtype.ValueType]] = {
    "bfloat16": v1.DTYPE_BFLOAT16,
    "float32": v1.DTYPE_FLOAT32,
}
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
_REASONS: Final[Mapping[FinishReason, v1.FinishReason.ValueType]] = {
    "stop": v1.FINISH_REASON_STOP,
    "length": v1.FINISH_REASON_LENGTH,
    "failed": v1.FINISH_REASON_FAILED,
}
_VERDICTS: Final[Mapping[VerdictName, v1.ComparisonReport.Verdict.ValueType]] = {
    "IMPROVED": v1.ComparisonReport.VERDICT_IMPROVED,
    "REGRESSED": v1.ComparisonReport.VERDICT_REGRESSED,
    "NO_EVIDENCE": v1.ComparisonReport.VERDICT_NO_EVIDENCE,
}
# Room for the rest of a report in a message of 4 MiB.
_FLIP_BYTES: Final = 3 << 20


def eval_set_draft(eval_set: v1.EvalSet) -> EvalSetDraft:
    """What a client wrote, unchecked."""
    return EvalSetDraft(
        id=eval_set.eval_set_id,
        description=eval_set.description,
        items=[_item_fields(item) for item in eval_set.items],
        size_bytes=eval_set.ByteSize(),
    )


def eval_set_message(eval_set: EvalSet) -> v1.EvalSet:
    """A stored eval set, with its items where it holds them."""
    return v1.EvalSet(
        name=eval_set_name(eval_set.id),
        eval_set_id=eval_set.id,
        description=eval_set.description,
        items=[_item(item) for item in eval_set.items or ()],
        item_count=eval_set.item_count,
        digest=eval_set.digest,
        create_time=timestamp(eval_set.create_time),
    )


def evaluation_spec_draft(spec: v1.EvaluationSpec) -> EvaluationSpecDraft:
    """What a client asks for, unchecked."""
    decoding = spec.decoding
    return EvaluationSpecDraft(
        eval_set=spec.eval_set,
        base_model=spec.base_model if spec.HasField("base_model") else None,
        checkpoint=spec.checkpoint if spec.HasField("checkpoint") else None,
        chat_template=chat_template_fields(spec.chat_template) if spec.HasField("chat_template") else None,
        max_new_tokens=decoding.max_new_tokens if decoding.HasField("max_new_tokens") else None,
        batch_size=decoding.batch_size if decoding.HasField("batch_size") else None,
        dtype=_DTYPES.get(spec.dtype, str(spec.dtype)),
    )


def chat_template_fields(message: v1.ChatTemplate) -> ChatTemplateFields:
    """A chat template's fields, unchecked."""
    return ChatTemplateFields(
        builtin=message.builtin if message.HasField("builtin") else None,
        jinja=message.jinja if message.HasField("jinja") else None,
        bos_token=message.bos_token,
        eos_token=message.eos_token,
        system_instruction=message.system_instruction,
    )


def evaluation_message(evaluation: Evaluation) -> v1.Evaluation:
    """A stored evaluation."""
    message = v1.Evaluation(
        name=evaluation_name(evaluation.id),
        spec=_spec(evaluation.spec),
        state=v1.Evaluation.State.Value(f"STATE_{evaluation.state.value}"),
        progress=_progress(evaluation.progress),
        summary=_summary(evaluation.summary),
        manifest=_manifest(evaluation.manifest),
        manifest_file=_file(evaluation.manifest_file),
        attempt_count=evaluation.attempt_count,
        create_time=timestamp(evaluation.create_time),
        stage_timings=[
            v1.StageTiming(stage=timing.stage, duration=_duration(timing.duration_s))
            for timing in evaluation.stage_timings
        ],
    )
    if evaluation.start_time is not None:
        message.start_time.CopyFrom(timestamp(evaluation.start_time))
    if evaluation.end_time is not None:
        message.end_time.CopyFrom(timestamp(evaluation.end_time))
    if (error := evaluation.error) is not None:
        message.error.CopyFrom(failure_status(error.code, error.reason, error.message, error.metadata))
    return message


def result_message(result: ItemResult) -> v1.EvaluationResult:
    """What was answered to one item."""
    generation = result.generation
    return v1.EvaluationResult(
        item_id=result.item_id,
        item_digest=result.item_digest,
        category=result.category,
        prompt=result.prompt,
        prompt_token_digest=generation.prompt_token_digest,
        prompt_tokens=generation.prompt_tokens,
        output=generation.output,
        output_tokens=generation.output_tokens,
        finish_reason=_REASONS[generation.finish_reason],
        extracted_answer=result.verdict.extracted_answer,
        accepted_answers=result.accepted_answers,
        correct=result.verdict.correct,
        grader=result.grader,
        latency=_duration(generation.seconds),
        error=generation.error,
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
    content = report.content
    message = _report_facts(report)
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
    content = report.content
    return v1.ComparisonReport(
        name=report_name(report.id),
        digest=report.digest,
        base=evaluation_message(content.base),
        candidate=evaluation_message(content.candidate),
        verdict=_VERDICTS[content.verdict],
        overall=_difference(content.overall),
        categories=[
            v1.CategoryDifference(category=entry.category, difference=_difference(entry.difference))
            for entry in content.categories
        ],
        create_time=timestamp(report.create_time),
    )


def document_format(number: int) -> DocumentFormat:
    """Raises InvalidArgument(REPORT_FORMAT_INVALID) for a number that the contract does not name."""
    known = _FORMATS.get(number)
    if known is None:
        description = f"is {number}; one of {', '.join(v1.ReportFormat.keys())} would be right"
        raise InvalidArgument(
            f"format: {description}",
            reason="REPORT_FORMAT_INVALID",
            violations=[FieldViolation("format", description)],
        )
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


def _item_fields(item: v1.EvalItem) -> Mapping[str, Any]:
    kind = item.grader.WhichOneof("kind")
    grader: dict[str, Any] | None = None if kind is None else {"kind": kind}
    if grader is not None and item.grader.numeric.HasField("tolerance"):
        grader["tolerance"] = item.grader.numeric.tolerance
    return {
        "id": item.id,
        "prompt": item.prompt,
        "accepted_answers": tuple(item.accepted_answers),
        "grader": grader,
        "category": item.category,
        "difficulty": item.difficulty,
        "cluster": item.cluster,
        "metadata": plain_struct(item.metadata),
    }


def _item(item: EvalItem) -> v1.EvalItem:
    if isinstance(item.grader, NumericGrader):
        grader = v1.Grader(numeric=v1.NumericGrader(tolerance=item.grader.tolerance))
    else:
        grader = v1.Grader(text=v1.TextGrader())
    message = v1.EvalItem(
        id=item.id,
        prompt=item.prompt,
        accepted_answers=item.accepted_answers,
        grader=grader,
        category=item.category,
        difficulty=item.difficulty,
        cluster=item.cluster,
    )
    if item.metadata:
        message.metadata.update(dict(item.metadata))
    return message


def _spec(spec: EvaluationSpec) -> v1.EvaluationSpec:
    message = v1.EvaluationSpec(
        eval_set=eval_set_name(spec.eval_set),
        decoding=v1.Decoding(
            max_new_tokens=spec.decoding.max_new_tokens, batch_size=spec.decoding.batch_size
        ),
        dtype=_DTYPE_NUMBERS[spec.dtype],
    )
    if spec.checkpoint is not None:
        message.checkpoint = spec.checkpoint
    else:
        message.base_model = spec.base_model or ""
    if spec.chat_template is not None:
        message.chat_template.CopyFrom(_chat_template(spec.chat_template))
    return message


def _chat_template(fields: ChatTemplateFields) -> v1.ChatTemplate:
    message = v1.ChatTemplate(
        bos_token=fields.bos_token,
        eos_token=fields.eos_token,
        system_instruction=fields.system_instruction,
        digest=ChatTemplate.model_validate(fields.model_dump()).digest,
    )
    if fields.builtin is not None:
        message.builtin = fields.builtin
    else:
        message.jinja = fields.jinja or ""
    return message


def _progress(progress: Progress | None) -> v1.Progress | None:
    if progress is None:
        return None
    return v1.Progress(
        stage=progress.stage,
        completed=progress.completed,
        total=progress.total,
        unit=progress.unit,
        eta=None if progress.eta_s is None else _duration(progress.eta_s),
    )


def _summary(summary: Summary | None) -> v1.EvaluationSummary | None:
    if summary is None:
        return None
    return v1.EvaluationSummary(
        overall=_accuracy(summary.overall),
        categories=[
            v1.CategoryAccuracy(category=entry.category, accuracy=_accuracy(entry.accuracy))
            for entry in summary.categories
        ],
        truncated_count=summary.truncated_count,
        generated_tokens=summary.generated_tokens,
        tokens_per_second=summary.tokens_per_second,
        failed_count=summary.failed_count,
    )


def _manifest(manifest: Manifest | None) -> v1.EvaluationManifest | None:
    if manifest is None:
        return None
    plain = manifest.model_dump(exclude={"spec"})
    return v1.EvaluationManifest(spec=_spec(manifest.spec), **plain)


def _file(file: StoredFile | None) -> v1.ArtifactFile | None:
    return None if file is None else v1.ArtifactFile(**file.model_dump())


def _accuracy(accuracy: Accuracy) -> v1.Accuracy:
    return v1.Accuracy(
        item_count=accuracy.item_count,
        correct_count=accuracy.correct_count,
        accuracy=accuracy.accuracy,
        interval=_interval(accuracy.interval),
    )


def _interval(interval: Interval) -> v1.Interval:
    return v1.Interval(lower=interval.lower, upper=interval.upper, confidence=interval.confidence)


def _difference(difference: PairedDifference) -> v1.PairedDifference:
    return v1.PairedDifference(
        base=_accuracy(difference.base),
        candidate=_accuracy(difference.candidate),
        difference=difference.difference,
        interval=_interval(difference.interval),
        gained_count=difference.gained_count,
        lost_count=difference.lost_count,
        p_value=difference.p_value,
    )


def _training_step(step: TrainingStep) -> v1.TrainingMetrics:
    return v1.TrainingMetrics(**step.model_dump())


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromNanoseconds(round(seconds * 1e9))
    return duration


def eval_set_page(eval_sets: Sequence[EvalSet], next_page_token: str) -> v1.ListEvalSetsResponse:
    """One page."""
    return v1.ListEvalSetsResponse(
        eval_sets=[eval_set_message(entry) for entry in eval_sets], next_page_token=next_page_token
    )


def evaluation_page(evaluations: Sequence[Evaluation], next_page_token: str) -> v1.ListEvaluationsResponse:
    """One page."""
    return v1.ListEvaluationsResponse(
        evaluations=[evaluation_message(entry) for entry in evaluations], next_page_token=next_page_token
    )


def result_page(results: Sequence[ItemResult], next_page_token: str) -> v1.ListEvaluationItemsResponse:
    """One page."""
    return v1.ListEvaluationItemsResponse(
        results=[result_message(entry) for entry in results], next_page_token=next_page_token
    )

"""Eval sets, evaluations and comparisons between the protobuf contract and the domain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, get_args

from google.protobuf.struct_pb2 import Struct

from tunix_rt import v1
from tunix_rt_evaluator.comparisons.model import ComparisonReport, Contamination, report_name
from tunix_rt_evaluator.comparisons.service import DocumentFormat
from tunix_rt_evaluator.eval_sets.model import (
    EvalItem,
    EvalSet,
    EvalSetDraft,
    EvalSetOrigin,
    eval_set_name,
)
from tunix_rt_evaluator.eval_sets.service import GradedAnswer
from tunix_rt_evaluator.evaluations.model import (
    Evaluation,
    EvaluationSpec,
    ItemFilter,
    ItemResult,
    Manifest,
    Regrade,
    RegradeDraft,
    Summary,
    evaluation_name,
)
from tunix_rt_evaluator.grading.model import (
    Answer,
    FinishReason,
    GraderSettings,
    Parts,
    ReasoningMarks,
    Verdict,
    kinds,
)
from tunix_rt_kit.chat import ChatTemplate
from tunix_rt_kit.convert import (
    conversation_message,
    duration,
    from_message,
    given_labels,
    message_fields,
    plain_struct,
    read_texts,
    template_message,
    timestamp,
    to_message,
    tool_fields,
)
from tunix_rt_kit.errors import InvalidArgument
from tunix_rt_kit.values import StoredFile


def grader_fields(grader: v1.Grader) -> Mapping[str, Any]:
    """The settings that a client wrote, unchecked; ``kind`` is "" if this server does not know it."""
    kind = grader.WhichOneof("kind")
    if kind is None:
        return {"kind": ""}
    message = getattr(grader, kind)
    given = {field.name for field, _ in message.ListFields()}
    known = kinds()[kind].settings.model_fields
    required = {field.alias or name for name, field in known.items() if field.is_required()}
    fields = message.DESCRIPTOR.fields_by_name
    return {"kind": kind} | {
        name: _plain(fields[name], getattr(message, name)) for name in fields if name in given | required
    }


def grader_message(grader: GraderSettings) -> v1.Grader:
    """A grader with all its settings."""
    message = v1.Grader()
    settings = getattr(message, grader.kind)
    settings.SetInParent()
    _fill(settings, grader.model_dump(exclude={"kind"}))
    return message


def _fill(settings: Any, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        field = settings.DESCRIPTOR.fields_by_name[name]
        if field.message_type is not None and field.is_repeated:
            for entry in value:
                _fill(getattr(settings, name).add(), entry)
        elif field.message_type is not None:
            getattr(settings, name).SetInParent()
            getattr(settings, name).update(value)
        elif field.is_repeated:
            getattr(settings, name).extend(value)
        elif field.enum_type is not None:
            setattr(settings, name, {text: number for number, text in _texts(field).items()}[value])
        else:
            setattr(settings, name, value)


def _plain(field: Any, value: Any) -> Any:
    if isinstance(value, Struct):
        return plain_struct(value)
    if field.message_type is not None and field.is_repeated:
        return tuple(
            {each.name: _plain(each, found) for each, found in entry.ListFields()} for entry in value
        )
    if field.enum_type is not None:
        return _texts(field).get(value, str(value))
    return tuple(value) if field.is_repeated else value


def _texts(field: Any) -> Mapping[int, str]:
    """The names of an enum's values as settings have them: "answer-only" for REASONING_STYLE_ANSWER_ONLY."""
    names = {number: value.name for number, value in field.enum_type.values_by_number.items()}
    prefix = names[0].removesuffix("UNSPECIFIED")
    return {number: name.removeprefix(prefix).lower().replace("_", "-") for number, name in names.items()}


def eval_set_draft(eval_set: v1.EvalSet) -> EvalSetDraft:
    """What a client wrote, unchecked."""
    return EvalSetDraft(
        id=eval_set.eval_set_id,
        description=eval_set.description,
        items=[item_fields(item) for item in eval_set.items],
        size_bytes=eval_set.ByteSize(),
        labels=given_labels(eval_set),
        python_sources=tuple(eval_set.python_sources),
        origin=from_message(eval_set.origin, EvalSetOrigin) if eval_set.HasField("origin") else None,
    )


def eval_set_message(eval_set: EvalSet) -> v1.EvalSet:
    """A stored eval set, with its items where it holds them."""
    items = [_item(item) for item in eval_set.items or ()]
    name = eval_set_name(eval_set.id)
    return to_message(eval_set, v1.EvalSet, name=name, eval_set_id=eval_set.id, items=items)


def graded_answer_message(graded: GradedAnswer) -> v1.GradeAnswerResponse:
    """The grade of one answer."""
    verdict = _verdict(graded.verdict)
    return v1.GradeAnswerResponse(**verdict, grader=graded.grader, warnings=graded.warnings)


def _verdict(verdict: Verdict) -> dict[str, Any]:
    """The fields of a grade."""
    return {
        "extracted_answer": verdict.extracted_answer,
        "correct": verdict.correct,
        "score": verdict.value,
        "grade_error": verdict.error,
        "explanation": verdict.explanation,
        "unmarked": verdict.unmarked,
    }


def item_fields(item: v1.EvalItem) -> Mapping[str, Any]:
    """An item that a client wrote, unchecked."""
    written = v1.EvalItem(messages=item.messages, tools=item.tools)
    return {
        "messages": tuple(map(message_fields, written.messages)),
        "tools": tuple(map(tool_fields, written.tools)),
        "id": item.id,
        "prompt": item.prompt,
        "accepted_answers": tuple(item.accepted_answers),
        "grader": grader_fields(item.grader) if item.HasField("grader") else None,
        "category": item.category,
        "difficulty": item.difficulty,
        "cluster": item.cluster,
        "metadata": plain_struct(item.metadata),
    }


def _item(item: EvalItem) -> v1.EvalItem:
    message = to_message(
        item,
        v1.EvalItem,
        unset=["metadata"],
        grader=grader_message(item.grader),
        messages=map(conversation_message, item.messages),
        tools=[v1.Tool(definition_text=tool["definition_text"]) for tool in item.tools],
    )
    read_texts(message)
    if item.metadata:
        message.metadata.update(dict(item.metadata))
    return message


def asked_evaluation(spec: v1.EvaluationSpec) -> Mapping[str, Any]:
    """What a client asks for: the fields that were set, unchecked."""
    return from_message(spec, EvaluationSpec)


def regrade_draft(request: v1.RegradeEvaluationRequest) -> RegradeDraft:
    """What a client wants graded again, unchecked."""
    marks = request.reasoning_marks if request.HasField("reasoning_marks") else None
    return RegradeDraft(
        evaluation=request.name,
        eval_set=request.eval_set,
        grader=grader_fields(request.grader) if request.HasField("grader") else None,
        reasoning_marks=None if marks is None else from_message(marks, ReasoningMarks),
    )


def evaluation_message(evaluation: Evaluation) -> v1.Evaluation:
    """A stored evaluation."""
    return to_message(
        evaluation,
        v1.Evaluation,
        name=evaluation_name(evaluation.id),
        spec=_spec(evaluation.spec),
        summary=_summary(evaluation.summary) if evaluation.summary else None,
        manifest=_manifest(evaluation.manifest) if evaluation.manifest else None,
        regrade=_regrade(evaluation.inputs.regrade) if evaluation.inputs.regrade else None,
    )


def _spec(spec: EvaluationSpec) -> v1.EvaluationSpec:
    template, marks = spec.chat_template, spec.reasoning_marks
    return to_message(
        spec,
        v1.EvaluationSpec,
        eval_set=eval_set_name(spec.eval_set),
        chat_template=template_message(template, ChatTemplate.of(template).digest) if template else None,
        reasoning_marks=_marks(marks) if marks else None,
    )


def _marks(marks: ReasoningMarks) -> v1.ReasoningMarks:
    """Marks of reasoning; what is empty was not asked for."""
    name, start, end = marks.name or None, marks.start or None, marks.end or None
    return to_message(marks, v1.ReasoningMarks, name=name, start=start, end=end)


def _summary(summary: Summary) -> v1.EvaluationSummary:
    """A summary; one that is older than a number has what that comes to without samples and scores."""
    right = summary.overall.correct_count
    known = {
        "mean_score": summary.overall.accuracy,
        "any_correct_count": right,
        "worst_correct_count": right,
        "best_correct_count": right,
    }
    missing = {name: value for name, value in known.items() if getattr(summary, name) is None}
    return to_message(summary.model_copy(update=missing), v1.EvaluationSummary)


def _manifest(manifest: Manifest) -> v1.EvaluationManifest:
    regrade = _regrade(manifest.regrade) if manifest.regrade else None
    origin = manifest.eval_set_origin
    return to_message(
        manifest,
        v1.EvaluationManifest,
        spec=_spec(manifest.spec),
        regrade=regrade,
        eval_set_origin=None if origin is None else EvalSetOrigin.model_validate(origin),
    )


def _regrade(regrade: Regrade) -> v1.Regrade:
    grader = grader_message(regrade.grader) if regrade.grader else None
    return to_message(regrade, v1.Regrade, source=evaluation_name(regrade.source), grader=grader)


def item_filter(message: v1.EvaluationItemFilter) -> ItemFilter:
    """Which results a client wants; raises InvalidArgument(FILTER_INVALID) for an unknown finish reason."""
    fields = from_message(message, ItemFilter)
    if fields.get("finish_reason", "stop") not in get_args(FinishReason):
        known = ", ".join(v1.FinishReason.keys())
        description = f"is {message.finish_reason}; one of {known} would be right"
        raise InvalidArgument.of_field("filter.finish_reason", description, reason="FILTER_INVALID")
    return ItemFilter.model_validate(fields)


def result_message(result: ItemResult) -> v1.EvaluationResult:
    """What was answered to one item."""
    generation, parts = result.generation, result.parts
    first_told, samples_told = result.told_parts
    return v1.EvaluationResult(
        item_id=result.item_id,
        item_digest=result.item_digest,
        category=result.category,
        prompt=result.prompt,
        prompt_token_digest=generation.prompt_token_digest,
        prompt_tokens=generation.prompt_tokens,
        accepted_answers=result.accepted_answers,
        grader=result.grader,
        latency=duration(generation.seconds),
        error=generation.error,
        cached=generation.cached,
        samples=[
            v1.Sample(
                **_answer(answer, verdict),
                **_parts(of_answer, told=samples_told and of_answer.state != "none"),
            )
            for answer, verdict, of_answer in zip(generation.answers, result.verdicts, parts, strict=False)
        ],
        **_answer(generation, result.verdict),
        **(_parts(parts[0], told=first_told) if parts else {}),
    )


def _answer(answer: Answer, verdict: Verdict) -> dict[str, Any]:
    """The fields of an answer and its grade."""
    return {
        "output": answer.output,
        "output_tokens": answer.output_tokens,
        "finish_reason": v1.FinishReason.Value(f"FINISH_REASON_{answer.finish_reason.upper()}"),
        "log_probabilities": answer.log_probabilities,
        **_verdict(verdict),
    }


def _parts(parts: Parts, *, told: bool) -> dict[str, Any]:
    """The fields that say what of an output is reasoning; the texts themselves where they are ``told``."""
    texts = {"reasoning": parts.reasoning, "answer": parts.answer} if told else {}
    state = v1.ReasoningState.Value(f"REASONING_STATE_{parts.state.upper()}")
    return {"reasoning_state": state, "reasoning_tokens": parts.tokens, **texts}


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
    """A comparison report, with as many flips as fit in a message, preferring those that went wrong."""
    message = report_facts(report)
    content = report.content
    if content is None:
        return message
    message.training_metrics.extend(
        to_message(step, v1.TrainingMetrics, unset=_NOT_SHOWN) for step in content.training
    )
    size = message.ByteSize()
    fitting = []
    for place, entry in sorted(enumerate(content.flips), key=lambda numbered: not numbered[1].regressed):
        flip = to_message(
            entry, v1.Flip, base=result_message(entry.base), candidate=result_message(entry.candidate)
        )
        own = flip.ByteSize() + 8
        # One with long questions leaves room for those behind it.
        if own > _FLIP_BYTES // 4 and size + own > _FLIP_BYTES:
            continue
        size += own
        if size > _FLIP_BYTES:
            break
        fitting.append((place, flip))
    message.flips.extend(flip for _, flip in sorted(fitting, key=lambda numbered: numbered[0]))
    return message


def report_facts(report: ComparisonReport) -> v1.ComparisonReport:
    """A comparison report without flips and training metrics, as it stands in a listing."""
    name, content = report_name(report.id), report.content
    labels: dict[str, Any] = {"display_name": report.display_name, "tags": report.tags, "note": report.note}
    if content is None:
        time = timestamp(report.create_time)
        deleted = None if report.delete_time is None else timestamp(report.delete_time)
        return v1.ComparisonReport(
            name=name, digest=report.digest, create_time=time, delete_time=deleted, **labels
        )
    return to_message(
        content,
        v1.ComparisonReport,
        unset=["flips", "training_metrics"],
        name=name,
        digest=report.digest,
        create_time=report.create_time,
        delete_time=report.delete_time,
        base=evaluation_message(content.base),
        candidate=evaluation_message(content.candidate),
        more_bases=[evaluation_name(evaluation.id) for evaluation in content.more_bases],
        more_candidates=[evaluation_name(evaluation.id) for evaluation in content.more_candidates],
        contamination=_contamination(content.contamination),
        **labels,
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

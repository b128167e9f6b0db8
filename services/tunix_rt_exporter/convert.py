"""Datasets and their audits between the protobuf contract and the domain."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final, get_args

from google.protobuf import json_format

from tunix_rt import v1
from tunix_rt_exporter.audits.preview import PreviewPart
from tunix_rt_exporter.audits.service import AuditQuestion, ContaminationPart, NearestRows, StoredAudit
from tunix_rt_exporter.datasets.model import (
    CONVERSATION_EXAMPLE,
    FORMATS,
    MODEL_ANSWERS_SOURCE,
    BuildResult,
    Dataset,
    DatasetFormat,
    DatasetSpec,
    Download,
    Notice,
    Selection,
    SourceTrace,
    SplitFiles,
    SplitGroup,
    TraceUse,
)
from tunix_rt_kit.chat import ChatTemplate
from tunix_rt_kit.convert import from_message, plain_struct, template_message, to_message
from tunix_rt_kit.errors import InvalidArgument
from tunix_rt_kit.values import JobState, Page, Progress

_MEDIA_TYPES: Final = {"jsonl": "application/jsonl", "parquet": "application/vnd.apache.parquet"}
_ROLES: Final = {number: name.removeprefix("ROLE_").lower() for name, number in v1.Message.Role.items()}
_RESULT_FIELDS: Final = BuildResult.model_fields.keys()


def spec_fields(spec: v1.DatasetSpec) -> dict[str, Any]:
    """The fields of a spec that a client set, unchecked.

    Raises InvalidArgument (FILTER_INVALID, SPEC_INVALID) for what has no plain form.
    """
    special = {"filter": _filter_fields(spec.filter), "selection": _selection_fields(spec.selection)}
    _check_known(v1.ReasoningStyle, spec.reasoning_style, "spec.reasoning_style")
    _check_known(v1.Deduplication.Method, spec.deduplication.method, "spec.deduplication.method")
    if spec.split_group.WhichOneof("key") == "prompt" and not spec.split_group.prompt:
        raise _invalid("spec.split_group.prompt", "is false; true would be right")
    _check_known(v1.UnwritableRows, spec.unwritable_rows, "spec.unwritable_rows")
    _check_known(v1.ModelAnswers, spec.model_answers, "spec.model_answers")
    _check_known(v1.TrainOn, spec.train_on, "spec.train_on")
    _check_known(v1.ChangedHistory, spec.changed_history, "spec.changed_history")
    fields = from_message(spec, DatasetSpec) | special
    if "reasoning_style" in fields:
        fields["reasoning_style"] = fields["reasoning_style"].replace("_", "-")
    if "chat_template" in fields and spec.chat_template.WhichOneof("template") is None:
        fields["chat_template"]["builtin"] = "gemma-it"
    fields.setdefault("model_answers", "keep" if MODEL_ANSWERS_SOURCE in spec.filter.sources else "drop")
    return fields


def dataset_format(number: int) -> DatasetFormat:
    """The format of that number; raises InvalidArgument(FORMAT_UNKNOWN) if the contract has none."""
    _check_known(v1.DatasetFormat, number, "format", reason="FORMAT_UNKNOWN")
    known: Iterable[DatasetFormat] = get_args(DatasetFormat)
    return next((kind for kind in known if _format_number(kind) == number), "trace")


def trace_filter(fields: Mapping[str, Any]) -> v1.TraceFilter:
    """A stored filter as the trace store takes it."""
    return json_format.ParseDict(dict(fields), v1.TraceFilter())


def source_trace(trace: v1.Trace) -> SourceTrace:
    """A trace as the trace store sends it."""
    digest = bytes.fromhex(trace.content_digest.removeprefix("sha256:"))
    # To look into an empty struct takes as long as to read two steps.
    metadata = plain_struct(trace.metadata) if trace.HasField("metadata") else {}
    if trace.messages:
        return _source_conversation(trace, digest, metadata)
    return SourceTrace(
        sequence=trace.sequence,
        digest=digest,
        prompt=trace.prompt,
        steps=[{"i": step.i, "type": step.type, "content": step.content} for step in trace.steps],
        final_answer=trace.final_answer,
        metadata=metadata,
        source=trace.source,
    )


def _source_conversation(trace: v1.Trace, digest: bytes, metadata: dict[str, Any]) -> SourceTrace:
    return SourceTrace.conversation(
        [_message_fields(message) for message in trace.messages],
        [tool.definition_text for tool in trace.tools],
        sequence=trace.sequence,
        digest=digest,
        metadata=metadata,
        source=trace.source,
    )


def _message_fields(message: v1.Message) -> dict[str, Any]:
    """A message as the format ``trace`` has it: what is empty is left out, but for a text that is."""
    texts = [part.text for part in message.content]
    fields: dict[str, Any] = {
        "role": _ROLES[message.role],
        "reasoning": message.reasoning,
        "tool_calls": [
            {**({"id": call.id} if call.id else {}), "name": call.name, "arguments": call.arguments_text}
            for call in message.tool_calls
        ],
        "tool_call_id": message.tool_call_id,
        "name": message.name,
    }
    fields = {name: value for name, value in fields.items() if value}
    if texts:
        fields["content"] = texts[0] if len(texts) == 1 else texts
    if message.train:
        fields["train"] = message.train == v1.Message.TRAIN_YES
    return fields


def asked(item: v1.EvalItem) -> list[str]:
    """The prompt of an eval item, or the texts of its user's turns."""
    turns = [
        "".join(part.text for part in message.content)
        for message in item.messages
        if message.role == v1.Message.ROLE_USER
    ]
    return turns or [item.prompt]


def dataset_message(dataset: Dataset) -> v1.Dataset:
    """A dataset."""
    result = dataset.result
    made: dict[str, Any] = {name: getattr(result, name, None) for name in _RESULT_FIELDS}
    if result is not None:
        made["splits"] = [_split_message(split) for split in result.splits]
        made["notices"] = [_notice_message(notice) for notice in result.notices]
    return to_message(
        dataset,
        v1.Dataset,
        name=f"datasets/{dataset.spec.key}",
        spec=_spec_message(dataset.spec),
        error=dataset.failure if dataset.state is JobState.FAILED else None,
        **made,
    )


def download_header(download: Download) -> v1.ReadDatasetResponse:
    """The first message of a download."""
    header = v1.DownloadHeader(
        size_bytes=download.file.size_bytes,
        digest=download.file.digest,
        media_type=_MEDIA_TYPES[download.file.path.rpartition(".")[2]],
        file_name=download.file_name,
    )
    return v1.ReadDatasetResponse(header=header)


def dropped_rows_header(download: Download) -> v1.ReadDroppedRowsResponse:
    """The first message of the report of dropped rows."""
    return v1.ReadDroppedRowsResponse(header=download_header(download).header)


def trace_uses_message(page: Page[TraceUse], unreadable: Sequence[str]) -> v1.ListTraceUsesResponse:
    """One page of the datasets that a trace went into or was left out of."""
    return v1.ListTraceUsesResponse(
        trace_uses=[to_message(use, v1.TraceUse) for use in page.items],
        next_page_token=page.next_page_token,
        unreadable_datasets=unreadable,
    )


def decontamination_fields(rule: v1.Decontamination) -> dict[str, Any]:
    """How rows and items are compared, unchecked."""
    return {"ngram_words": rule.ngram_words} if rule.HasField("ngram_words") else {}


def _filter_fields(wanted: v1.TraceFilter) -> dict[str, Any]:
    try:
        fields: dict[str, Any] = json_format.MessageToDict(wanted)
    except (json_format.Error, ValueError, OverflowError) as error:
        raise InvalidArgument.of_field(
            "spec.filter", f"cannot be read: {error}", reason="FILTER_INVALID"
        ) from error
    return fields


def _selection_fields(selection: v1.Selection) -> dict[str, Any]:
    strategy = selection.WhichOneof("strategy")
    if strategy is None or (strategy == "all" and selection.all):
        return {"strategy": "all"}
    if strategy == "all":
        raise _invalid("spec.selection.all", "is false; true would be right, or another strategy")
    return {"strategy": strategy, "count": getattr(selection, strategy)}


def _selection_message(selection: Selection) -> v1.Selection:
    if selection.count is None:
        return v1.Selection(all=True)
    chosen: dict[str, Any] = {selection.strategy: selection.count}
    return v1.Selection(**chosen)


def _spec_message(spec: DatasetSpec) -> v1.DatasetSpec:
    return to_message(
        spec,
        v1.DatasetSpec,
        filter=trace_filter(spec.filter),
        selection=_selection_message(spec.selection),
        chat_template=template_message(spec.chat_template, ChatTemplate.of(spec.chat_template).digest),
        reasoning_style=spec.reasoning_style.replace("-", "_"),
        split_group=_split_group_message(spec.split_group),
    )


def _split_group_message(rule: SplitGroup) -> v1.SplitGroup:
    by_prompt = True if rule.metadata_field is None else None
    return to_message(rule, v1.SplitGroup, prompt=by_prompt)


def _notice_message(notice: Notice) -> v1.DatasetNotice:
    rows = v1.AuditedRows(row_count=notice.row_count, example_row_ids=notice.example_row_ids)
    return to_message(notice, v1.DatasetNotice, rows=rows)


def _split_message(split: SplitFiles) -> v1.DatasetSplit:
    files = [
        v1.DatasetFile(format=_format_number(kind), file=to_message(split.files[kind], v1.ArtifactFile))
        for kind in (*FORMATS, CONVERSATION_EXAMPLE)
        if kind in split.files
    ]
    return to_message(split, v1.DatasetSplit, files=files)


def _format_number(kind: DatasetFormat) -> v1.DatasetFormat.ValueType:
    return v1.DatasetFormat.Value(f"DATASET_FORMAT_{kind.upper()}")


def _check_known(enum: Any, number: int, field: str, reason: str = "SPEC_INVALID") -> None:
    """Raise InvalidArgument for a number that the contract does not name."""
    if number not in enum.values():
        right = f"one of {', '.join(enum.keys())} would be right"
        raise InvalidArgument.of_field(field, f"is {number}; {right}", reason=reason)


def _invalid(field: str, description: str) -> InvalidArgument:
    return InvalidArgument.of_field(field, description, reason="SPEC_INVALID")


def question(request: v1.AuditSupervisionRequest) -> AuditQuestion:
    """What a client asks, unchecked."""
    return AuditQuestion(
        dataset=request.name,
        base_model=request.base_model,
        tokenizer_digest=request.tokenizer.digest,
        max_length=request.max_length,
        packing_lengths=tuple(request.packing_lengths),
    )


def contamination_response(part: ContaminationPart) -> v1.AuditContaminationResponse:
    """What an audit found since the message before."""
    return v1.AuditContaminationResponse(
        rows=[
            v1.ContaminatedRow(
                row_id=row.row_id,
                split=row.split,
                eval_item=row.match.item,
                match=v1.ContaminatedRow.Match.Value(f"MATCH_{row.match.kind.name}"),
                matched_text=row.match.text,
            )
            for row in part.found
        ],
        compared_row_count=part.compared,
        total_row_count=part.total,
    )


def nearest_response(found: NearestRows) -> v1.FindNearestRowsResponse:
    """The rows that are nearest to each text."""
    return v1.FindNearestRowsResponse(
        nearest=[v1.NearestRows(rows=[v1.NearRow(**asdict(row)) for row in rows]) for rows in found.nearest],
        compared_row_count=found.compared,
    )


def preview_response(part: PreviewPart) -> v1.PreviewRowsResponse:
    """A part of a training example."""
    return v1.PreviewRowsResponse(
        split=part.split,
        row_id=part.row_id,
        example_number=part.example_number,
        segments=[v1.PreviewSegment(text=each.text, learned=each.learned) for each in part.segments],
        tokens=[v1.PreviewToken(id=one.id, text=one.text, learned=one.learned) for one in part.tokens],
        fault=part.fault,
    )


def supervision_response(dataset: str, part: Progress | StoredAudit) -> v1.AuditSupervisionResponse:
    """One message of a running audit."""
    if isinstance(part, Progress):
        return v1.AuditSupervisionResponse(progress=to_message(part, v1.Progress))
    return v1.AuditSupervisionResponse(audit=audit_message(dataset, part))


def audit_message(dataset: str, stored: StoredAudit) -> v1.SupervisionAudit:
    """An audit of the dataset of that name."""
    name = f"{dataset}/supervisionAudits/{stored.audit.audit_id}"
    return to_message(stored.audit, v1.SupervisionAudit, name=name, create_time=stored.create_time)

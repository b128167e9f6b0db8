"""Between the protobuf contract and the domain."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeVar

from google.protobuf import json_format

from tunix_rt import v1
from tunix_rt_exporter.audits.contamination import AuditPart
from tunix_rt_exporter.datasets.decontaminate import MatchKind
from tunix_rt_exporter.datasets.model import (
    FORMATS,
    BuildResult,
    Dataset,
    DatasetFormat,
    DatasetSpec,
    DeduplicationMethod,
    Distribution,
    Download,
    ModelAnswers,
    Notice,
    ReasoningStyle,
    SourceTrace,
    SplitFiles,
    SplitGroup,
    UnwritableRows,
)
from tunix_rt_exporter.datasets.select import MODEL_ANSWERS_SOURCE
from tunix_rt_exporter.datasets.templates import chat_template
from tunix_rt_kit.errors import FieldViolation, InvalidArgument
from tunix_rt_kit.values import ChatTemplateFields, JobState
from tunix_rt_kit.values.messages import (
    failure_status,
    file_message,
    plain_struct,
    template_message,
    timestamp,
    to_message,
)

T = TypeVar("T")

_MEDIA_TYPES: Final = {"jsonl": "application/jsonl", "parquet": "application/vnd.apache.parquet"}

_STYLES: Final[Mapping[int, ReasoningStyle]] = {
    v1.REASONING_STYLE_UNSPECIFIED: "numbered",
    v1.REASONING_STYLE_NUMBERED: "numbered",
    v1.REASONING_STYLE_ANSWER_ONLY: "answer-only",
}
_STYLE_NUMBERS: Final[Mapping[ReasoningStyle, v1.ReasoningStyle.ValueType]] = {
    "numbered": v1.REASONING_STYLE_NUMBERED,
    "answer-only": v1.REASONING_STYLE_ANSWER_ONLY,
}
_UNWRITABLE: Final[Mapping[int, UnwritableRows]] = {
    v1.UNWRITABLE_ROWS_UNSPECIFIED: "drop",
    v1.UNWRITABLE_ROWS_DROP: "drop",
    v1.UNWRITABLE_ROWS_REFUSE: "refuse",
}
_UNWRITABLE_NUMBERS: Final[Mapping[UnwritableRows, v1.UnwritableRows.ValueType]] = {
    "drop": v1.UNWRITABLE_ROWS_DROP,
    "refuse": v1.UNWRITABLE_ROWS_REFUSE,
}
_MODEL_ANSWERS: Final[Mapping[int, ModelAnswers]] = {
    v1.MODEL_ANSWERS_DROP: "drop",
    v1.MODEL_ANSWERS_KEEP: "keep",
}
_MODEL_ANSWERS_NUMBERS: Final[Mapping[ModelAnswers, v1.ModelAnswers.ValueType]] = {
    "drop": v1.MODEL_ANSWERS_DROP,
    "keep": v1.MODEL_ANSWERS_KEEP,
}
_METHODS: Final[Mapping[int, DeduplicationMethod]] = {
    v1.Deduplication.METHOD_UNSPECIFIED: "exact",
    v1.Deduplication.METHOD_EXACT: "exact",
    v1.Deduplication.METHOD_NEAR: "near",
    v1.Deduplication.METHOD_IDENTICAL: "identical",
}
_METHOD_NUMBERS: Final[Mapping[DeduplicationMethod, v1.Deduplication.Method.ValueType]] = {
    "exact": v1.Deduplication.METHOD_EXACT,
    "near": v1.Deduplication.METHOD_NEAR,
    "identical": v1.Deduplication.METHOD_IDENTICAL,
}
_MATCHES: Final[Mapping[MatchKind, v1.ContaminatedRow.Match.ValueType]] = {
    kind: v1.ContaminatedRow.Match.Value(f"MATCH_{kind.name}") for kind in MatchKind
}
_FORMAT_NUMBERS: Final[Mapping[DatasetFormat, v1.DatasetFormat.ValueType]] = {
    "trace": v1.DATASET_FORMAT_TRACE,
    "tunix_sft": v1.DATASET_FORMAT_TUNIX_SFT,
    "training_example": v1.DATASET_FORMAT_TRAINING_EXAMPLE,
    "chat": v1.DATASET_FORMAT_CHAT,
    "training_example_parquet": v1.DATASET_FORMAT_TRAINING_EXAMPLE_PARQUET,
    "chat_parquet": v1.DATASET_FORMAT_CHAT_PARQUET,
}
_FORMATS: Final[Mapping[int, DatasetFormat]] = {
    v1.DATASET_FORMAT_UNSPECIFIED: "trace",
    **{number: kind for kind, number in _FORMAT_NUMBERS.items()},
}


def spec_fields(spec: v1.DatasetSpec) -> dict[str, Any]:
    """A spec's fields, defaults filled in and otherwise unchecked.

    Raises InvalidArgument (FILTER_INVALID, SPEC_INVALID) for what has no plain form.
    """
    fields: dict[str, Any] = {
        "dataset_id": spec.dataset_id,
        "version": spec.version or "1",
        "filter": _filter_fields(spec.filter),
        "as_of": spec.as_of,
        "selection": _selection_fields(spec.selection),
        "seed": spec.seed,
        "chat_template": _template_fields(spec.chat_template),
        "reasoning_style": _known(
            _STYLES, spec.reasoning_style, "spec.reasoning_style", v1.ReasoningStyle.keys()
        ),
        "eval_sets": tuple(spec.eval_sets),
        "deduplication": _deduplication_fields(spec.deduplication),
        "split_group": _split_group_fields(spec.split_group),
        "decontamination": decontamination_fields(spec.decontamination),
        "parent": spec.parent,
        "unwritable_rows": _known(
            _UNWRITABLE, spec.unwritable_rows, "spec.unwritable_rows", v1.UnwritableRows.keys()
        ),
        "model_answers": _model_answers(spec),
        "special_tokens": tuple(spec.special_tokens),
    }
    if spec.splits:
        fields["splits"] = [{"split": entry.split, "fraction": entry.fraction} for entry in spec.splits]
    return fields


def dataset_format(number: int) -> DatasetFormat:
    """Raises InvalidArgument(FORMAT_UNKNOWN) for a number that the contract does not name."""
    return _known(_FORMATS, number, "format", v1.DatasetFormat.keys(), reason="FORMAT_UNKNOWN")


def trace_filter(fields: Mapping[str, Any]) -> v1.TraceFilter:
    """A stored filter as the trace store takes it."""
    return json_format.ParseDict(dict(fields), v1.TraceFilter())


def source_trace(trace: v1.Trace) -> SourceTrace:
    """A trace as the trace store sends it."""
    return SourceTrace(
        sequence=trace.sequence,
        digest=bytes.fromhex(trace.content_digest.removeprefix("sha256:")),
        prompt=trace.prompt,
        steps=[{"i": step.i, "type": step.type, "content": step.content} for step in trace.steps],
        final_answer=trace.final_answer,
        # To look into an empty struct takes as long as to read two steps.
        metadata=plain_struct(trace.metadata) if trace.HasField("metadata") else {},
        source=trace.source,
    )


def dataset_message(dataset: Dataset) -> v1.Dataset:
    """A dataset."""
    message = v1.Dataset(
        name=f"datasets/{dataset.spec.key}",
        spec=_spec_message(dataset.spec),
        state=v1.Dataset.State.Value(f"STATE_{dataset.state}"),
        create_time=timestamp(dataset.create_time),
    )
    if dataset.start_time is not None:
        message.start_time.CopyFrom(timestamp(dataset.start_time))
    if dataset.end_time is not None:
        message.end_time.CopyFrom(timestamp(dataset.end_time))
    if dataset.progress is not None:
        message.progress.CopyFrom(to_message(dataset.progress, v1.Progress))
    if dataset.failure is not None and dataset.state is JobState.FAILED:
        message.error.CopyFrom(failure_status(dataset.failure))
    if dataset.result is not None:
        _add_result(message, dataset.result)
    return message


def list_response(datasets: Iterable[Dataset], next_page_token: str) -> v1.ListDatasetsResponse:
    """One page."""
    return v1.ListDatasetsResponse(
        datasets=[dataset_message(dataset) for dataset in datasets], next_page_token=next_page_token
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


def audit_response(part: AuditPart) -> v1.AuditContaminationResponse:
    """What an audit found since the message before."""
    return v1.AuditContaminationResponse(
        rows=[
            v1.ContaminatedRow(
                row_id=row.row_id,
                split=row.split,
                eval_item=row.match.item,
                match=_MATCHES[row.match.kind],
                matched_text=row.match.text,
            )
            for row in part.found
        ],
        compared_row_count=part.compared,
        total_row_count=part.total,
    )


def decontamination_fields(rule: v1.Decontamination) -> dict[str, Any]:
    """How rows and items are compared, unchecked."""
    return {"ngram_words": rule.ngram_words} if rule.HasField("ngram_words") else {}


def _deduplication_fields(rule: v1.Deduplication) -> dict[str, Any]:
    method = _known(_METHODS, rule.method, "spec.deduplication.method", v1.Deduplication.Method.keys())
    threshold = rule.threshold if rule.HasField("threshold") else None
    return {"method": method, "threshold": threshold}


def _split_group_fields(rule: v1.SplitGroup) -> dict[str, Any]:
    key = rule.WhichOneof("key")
    if key == "prompt" and not rule.prompt:
        raise _invalid("SPEC_INVALID", "spec.split_group.prompt", "is false; true would be right")
    return {
        "metadata_field": rule.metadata_field if key == "metadata_field" else None,
        "near_duplicate_threshold": (
            rule.near_duplicate_threshold if rule.HasField("near_duplicate_threshold") else None
        ),
    }


def _split_group_message(rule: SplitGroup) -> v1.SplitGroup:
    message = v1.SplitGroup(near_duplicate_threshold=rule.near_duplicate_threshold)
    if rule.metadata_field is None:
        message.prompt = True
    else:
        message.metadata_field = rule.metadata_field
    return message


def _filter_fields(wanted: v1.TraceFilter) -> dict[str, Any]:
    try:
        fields: dict[str, Any] = json_format.MessageToDict(wanted)
    except (json_format.Error, ValueError, OverflowError) as error:
        raise _invalid("FILTER_INVALID", "spec.filter", f"cannot be read: {error}") from error
    return fields


def _selection_fields(selection: v1.Selection) -> dict[str, Any]:
    strategy = selection.WhichOneof("strategy")
    if strategy is None or (strategy == "all" and selection.all):
        return {"strategy": "all"}
    if strategy == "all":
        raise _invalid(
            "SPEC_INVALID", "spec.selection.all", "is false; true would be right, or another strategy"
        )
    return {"strategy": strategy, "count": getattr(selection, strategy)}


def _selection_message(spec: DatasetSpec) -> v1.Selection:
    count = spec.selection.count
    if count is None:
        return v1.Selection(all=True)
    return v1.Selection(latest=count) if spec.selection.strategy == "latest" else v1.Selection(random=count)


def _model_answers(spec: v1.DatasetSpec) -> ModelAnswers:
    if spec.model_answers == v1.MODEL_ANSWERS_UNSPECIFIED:
        return "keep" if MODEL_ANSWERS_SOURCE in spec.filter.sources else "drop"
    return _known(_MODEL_ANSWERS, spec.model_answers, "spec.model_answers", v1.ModelAnswers.keys())


def _template_fields(template: v1.ChatTemplate) -> dict[str, Any]:
    kind = template.WhichOneof("template")
    return {
        "builtin": template.builtin if kind == "builtin" else "gemma-it" if kind is None else None,
        "jinja": template.jinja if kind == "jinja" else None,
        "bos_token": template.bos_token,
        "eos_token": template.eos_token,
        "system_instruction": template.system_instruction,
    }


def _template_message(fields: ChatTemplateFields) -> v1.ChatTemplate:
    return template_message(fields, chat_template(fields).digest)


def _spec_message(spec: DatasetSpec) -> v1.DatasetSpec:
    return v1.DatasetSpec(
        dataset_id=spec.dataset_id,
        version=spec.version,
        filter=trace_filter(spec.filter),
        as_of=spec.as_of,
        selection=_selection_message(spec),
        splits=[v1.SplitFraction(split=entry.split, fraction=entry.fraction) for entry in spec.splits],
        seed=spec.seed,
        chat_template=_template_message(spec.chat_template),
        reasoning_style=_STYLE_NUMBERS[spec.reasoning_style],
        eval_sets=spec.eval_sets,
        deduplication=v1.Deduplication(
            method=_METHOD_NUMBERS[spec.deduplication.method], threshold=spec.deduplication.threshold
        ),
        split_group=_split_group_message(spec.split_group),
        decontamination=v1.Decontamination(ngram_words=spec.decontamination.ngram_words),
        parent=spec.parent,
        unwritable_rows=_UNWRITABLE_NUMBERS[spec.unwritable_rows],
        model_answers=_MODEL_ANSWERS_NUMBERS[spec.model_answers],
        special_tokens=spec.special_tokens,
    )


def _add_result(message: v1.Dataset, result: BuildResult) -> None:
    message.digest = result.digest
    message.manifest.CopyFrom(file_message(result.manifest))
    message.splits.extend(_split_message(split) for split in result.splits)
    message.parent_digest = result.parent_digest
    message.builder_versions.update(result.builder_versions)
    if result.dropped_rows is not None:
        message.dropped_rows.CopyFrom(file_message(result.dropped_rows))
    message.notices.extend(_notice_message(notice) for notice in result.notices)
    message.template_facts.CopyFrom(v1.TemplateFacts(**result.template_facts.model_dump()))
    message.trace_count = result.trace_count
    message.dropped.extend(v1.DroppedRows(**entry.model_dump()) for entry in result.dropped)
    statistics = result.statistics
    message.statistics.CopyFrom(
        v1.DatasetStatistics(
            steps=_distribution_message(statistics.steps),
            prompt_characters=_distribution_message(statistics.prompt_characters),
            response_characters=_distribution_message(statistics.response_characters),
        )
    )


def _notice_message(notice: Notice) -> v1.DatasetNotice:
    return v1.DatasetNotice(
        kind=v1.DatasetNotice.Kind.Value(f"KIND_{notice.kind.upper()}"),
        split=notice.split,
        reason=notice.reason,
        rows=v1.AuditedRows(row_count=notice.row_count, example_row_ids=notice.example_row_ids),
    )


def _split_message(split: SplitFiles) -> v1.DatasetSplit:
    return v1.DatasetSplit(
        split=split.split,
        row_count=split.row_count,
        files=[
            v1.DatasetFile(format=_FORMAT_NUMBERS[kind], file=file_message(split.files[kind]))
            for kind in FORMATS
        ],
    )


def _distribution_message(spread: Distribution) -> v1.Distribution:
    return v1.Distribution(**spread.model_dump())


def _known(
    names: Mapping[int, T], number: int, field: str, right: Iterable[str], reason: str = "SPEC_INVALID"
) -> T:
    if number not in names:
        raise _invalid(reason, field, f"is {number}; one of {', '.join(right)} would be right")
    return names[number]


def _invalid(reason: str, field: str, description: str) -> InvalidArgument:
    return InvalidArgument(
        f"{field}: {description}", reason=reason, violations=[FieldViolation(field, description)]
    )

"""The exporter, as the trainer sees it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC

import grpc

from tunix_rt import v1
from tunix_rt_kit.chat import ChatTemplate
from tunix_rt_kit.convert import to_message, value_of
from tunix_rt_kit.errors import FailedPrecondition, check_living
from tunix_rt_kit.serving.calls import answer_of, answers_of, calling
from tunix_rt_kit.values import ChatTemplateFields, StoredFile
from tunix_rt_trainer.jobs.model import DatasetInput, FoundRows, SplitFile, SplitFindings

_TIMEOUT_S = 20.0
_AUDIT_TIMEOUT_S = 3_600.0


class ExporterDatasets:
    """Datasets of the exporter behind ``channel``."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = v1.ExporterStub(channel)

    def get(self, name: str) -> DatasetInput:
        """One dataset.

        Raises:
            NotFound: DATASET_NOT_FOUND.
            Unavailable: UPSTREAM_UNAVAILABLE or UPSTREAM_DEADLINE.
            FailedPrecondition: CHAT_TEMPLATE_MISMATCH, exporter and trainer read the template differently.
        """
        with calling("the exporter"):
            dataset = answer_of(self._stub.GetDataset, v1.GetDatasetRequest(name=name), _TIMEOUT_S)
        if dataset.HasField("delete_time"):
            check_living(name, "DATASET", dataset.delete_time.ToDatetime(UTC))
        fields = value_of(dataset.spec.chat_template, ChatTemplateFields)
        template = ChatTemplate.of(fields)
        stated = dataset.spec.chat_template.digest
        if stated and stated != template.digest:
            raise FailedPrecondition(
                f"{name} states chat template {stated}, but this trainer reads it as {template.digest}; "
                "exporter and trainer must be of one version",
                reason="CHAT_TEMPLATE_MISMATCH",
                metadata={"dataset": name, "digest": stated},
            )
        return DatasetInput(
            name=dataset.name,
            state=v1.Dataset.State.Name(dataset.state).removeprefix("STATE_"),
            digest=dataset.digest,
            chat_template=fields,
            chat_template_digest=template.digest,
            turn_markers=template.markers,
            splits={
                split.split: SplitFile(digest=file.file.digest, row_count=split.row_count)
                for split in dataset.splits
                if (file := _examples(split)) is not None
            },
        )

    def audit(
        self, name: str, base_model: str, tokenizer: StoredFile, max_length: int
    ) -> Mapping[str, SplitFindings]:
        """What an audit tells of the splits of a dataset, whose rows the exporter counts once.

        Raises:
            Unavailable: UPSTREAM_UNAVAILABLE or UPSTREAM_DEADLINE.
            DomainError: what the exporter says of dataset and tokenizer.
        """
        request = v1.AuditSupervisionRequest(
            name=name,
            base_model=base_model,
            max_length=max_length,
            packing_lengths=[max_length],
            tokenizer=to_message(tokenizer, v1.ArtifactFile),
        )
        with calling("the exporter"):
            *_, last = answers_of(self._stub.AuditSupervision, request, _AUDIT_TIMEOUT_S)
        return {
            split.split: SplitFindings(
                row_count=split.row_count,
                token_count=split.token_count,
                supervised_tokens=split.supervised_token_count,
                packed_rows=split.packing[0].sequence_count,
                truncated=_found(split.truncated),
                unsupervised=_found(split.unsupervised),
                end_unsupervised=_found(split.end_unsupervised),
                target_lost=_found(split.target_lost),
                special_token=_found(split.special_token),
                supervised_elsewhere=_found(split.supervised_elsewhere),
                end_mark_masked=_found(split.end_mark_masked),
            )
            for split in last.audit.splits
        }


def _examples(split: v1.DatasetSplit) -> v1.DatasetFile | None:
    """The file that is learned: where there are conversations, the one that says which turns of them are."""
    files = {file.format: file for file in split.files}
    examples = files.get(v1.DATASET_FORMAT_TRAINING_EXAMPLE)
    return files.get(v1.DATASET_FORMAT_CONVERSATION_EXAMPLE, examples)


def _found(rows: v1.AuditedRows) -> FoundRows:
    return FoundRows(row_count=rows.row_count, first_ids=tuple(rows.example_row_ids))

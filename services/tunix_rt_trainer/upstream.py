"""The exporter, as the trainer sees it."""

from __future__ import annotations

import grpc

from tunix_rt import v1
from tunix_rt_kit.chat import ChatTemplate
from tunix_rt_kit.errors import FailedPrecondition
from tunix_rt_kit.serving.status import domain_error
from tunix_rt_trainer.model import ChatTemplateFields, DatasetInput, SplitFile

EXPORTER = "tunix_rt.v1.Exporter"
_TIMEOUT_S = 20.0


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
        try:
            dataset = self._stub.GetDataset(v1.GetDatasetRequest(name=name), timeout=_TIMEOUT_S)
        except grpc.RpcError as error:
            raise domain_error(error, "the exporter") from error
        fields = chat_template_fields(dataset.spec.chat_template)
        template = ChatTemplate(**fields.model_dump())
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
                for file in split.files
                if file.format == v1.DATASET_FORMAT_TRAINING_EXAMPLE
            },
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

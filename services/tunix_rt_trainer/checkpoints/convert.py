"""Checkpoints between the protobuf contract and the domain."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from tunix_rt import v1
from tunix_rt_kit.convert import template_message, to_message
from tunix_rt_kit.values import StoredFile
from tunix_rt_trainer.checkpoints.model import Checkpoint, checkpoint_name
from tunix_rt_trainer.jobs.convert import spec_message

_EXPORT_FORMATS: Final[Mapping[int, str]] = {
    v1.CHECKPOINT_FORMAT_UNSPECIFIED: "",
    v1.CHECKPOINT_FORMAT_PEFT: "peft",
    v1.CHECKPOINT_FORMAT_HUGGING_FACE: "hugging_face",
}
_MEDIA_TYPES: Final = {
    ".json": "application/json",
    ".jsonl": "application/jsonl",
    ".safetensors": "application/octet-stream",
}


def checkpoint_message(checkpoint: Checkpoint) -> v1.Checkpoint:
    """A checkpoint."""
    manifest = checkpoint.manifest
    return to_message(
        checkpoint,
        v1.Checkpoint,
        name=checkpoint_name(checkpoint.job_id, checkpoint.step),
        manifest=to_message(manifest, v1.TrainingManifest, spec=spec_message(manifest.spec)),
        chat_template=template_message(checkpoint.chat_template, manifest.chat_template_digest),
    )


def export_format(format_: int) -> str:
    """A format's name, empty for none; the digits of one that the contract does not name."""
    return _EXPORT_FORMATS.get(format_, str(format_))


def export_message(
    checkpoint: Checkpoint, format_: v1.CheckpointFormat.ValueType, files: Iterable[StoredFile]
) -> v1.CheckpointExport:
    """The files of a checkpoint in a format."""
    name = checkpoint_name(checkpoint.job_id, checkpoint.step)
    return v1.CheckpointExport(
        checkpoint=name, format=format_, files=[to_message(file, v1.ArtifactFile) for file in files]
    )


def file_header(file: StoredFile) -> v1.ReadCheckpointFileResponse:
    """The first message of a download."""
    suffix = file.path[file.path.rfind(".") :]
    return v1.ReadCheckpointFileResponse(
        header=v1.DownloadHeader(
            size_bytes=file.size_bytes,
            digest=file.digest,
            media_type=_MEDIA_TYPES.get(suffix, "application/octet-stream"),
            file_name=file.path.rpartition("/")[2],
        )
    )

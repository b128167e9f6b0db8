"""The files of checkpoints, on both databases."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from support import scripted_trainer as script
from support.serving import fields, refused
from support.trainer_jobs import create, ended, until
from tunix_rt import v1
from tunix_rt_trainer.wiring import TrainerSettings


async def read(trainer: Any, name: str, path: str, offset: int = 0) -> tuple[v1.DownloadHeader, bytes]:
    header, data = v1.DownloadHeader(), b""
    request = v1.ReadCheckpointFileRequest(name=name, path=path, offset=offset)
    async for message in trainer.ReadCheckpointFile(request):
        if message.HasField("header"):
            assert not header.digest and not data
            header = message.header
        else:
            assert 0 < len(message.chunk) <= 1 << 20
            data += message.chunk
    return header, data


async def test_files_of_a_checkpoint_are_streamed_from_any_offset(
    trainer: Any, settings: TrainerSettings
) -> None:
    job = await until(trainer, await create(trainer), ended)
    folder = settings.data_dir / "training-jobs" / job.name.removeprefix("trainingJobs/")
    whole = (folder / "checkpoints" / str(script.STEPS) / "adapter_model.safetensors").read_bytes()
    assert len(whole) > 2 << 20
    header, data = await read(trainer, job.checkpoint, "adapter_model.safetensors")
    assert data == whole
    assert (header.size_bytes, header.file_name) == (len(whole), "adapter_model.safetensors")
    assert header.digest == f"sha256:{hashlib.sha256(whole).hexdigest()}"
    for offset in (1, 1 << 20, len(whole) - 1, len(whole)):
        header, data = await read(trainer, job.checkpoint, "adapter_model.safetensors", offset)
        assert (header.size_bytes, data) == (len(whole), whole[offset:])
    header, data = await read(trainer, job.checkpoint, "manifest.json")
    assert (header.media_type, json.loads(data)["training_job"]) == ("application/json", job.name)
    assert (await read(trainer, job.checkpoint, "metrics.jsonl"))[0].media_type == "application/jsonl"


async def test_wrong_downloads_are_refused(trainer: Any) -> None:
    job = await until(trainer, await create(trainer), ended)
    error = await refused(read(trainer, job.checkpoint, "../../etc/passwd"))
    assert (error.code, error.reason) == ("NOT_FOUND", "CHECKPOINT_FILE_NOT_FOUND")
    assert "adapter_model.safetensors" in error.message
    for offset in (-1, 1 << 24):
        error = await refused(read(trainer, job.checkpoint, "adapter_model.safetensors", offset))
        assert (error.code, error.reason, fields(error)) == (
            "INVALID_ARGUMENT",
            "OFFSET_INVALID",
            ["offset"],
        )
    for step in ("4", "last", "9" * 30):
        name = f"{job.name}/checkpoints/{step}"
        error = await refused(trainer.GetCheckpoint(v1.GetCheckpointRequest(name=name)))
        assert (error.code, error.reason) == ("NOT_FOUND", "CHECKPOINT_NOT_FOUND")
    error = await refused(trainer.GetCheckpoint(v1.GetCheckpointRequest(name=job.name)))
    assert (error.code, fields(error)) == ("INVALID_ARGUMENT", ["name"])
    error = await refused(trainer.ListCheckpoints(v1.ListCheckpointsRequest(parent="traces/1")))
    assert (error.code, fields(error)) == ("INVALID_ARGUMENT", ["parent"])

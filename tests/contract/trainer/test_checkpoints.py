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


async def test_checkpoints_are_filtered_and_ordered_over_all_jobs(trainer: Any) -> None:
    jobs = [await create(trainer) for _ in range(2)]
    for job in jobs:
        await until(trainer, job, ended)
    own = v1.ListCheckpointsRequest(parent=jobs[0].name)
    steps = [made.step for made in (await trainer.ListCheckpoints(own)).checkpoints]
    assert steps == sorted(steps, reverse=True)

    async def listed(
        order_by: str = "", parent: str = "trainingJobs/-", **conditions: Any
    ) -> list[tuple[int, int]]:
        found: list[tuple[int, int]] = []
        request = v1.ListCheckpointsRequest(
            parent=parent, filter=v1.CheckpointFilter(**conditions), order_by=order_by, page_size=1
        )
        names = [job.name for job in jobs]
        while True:
            page = await trainer.ListCheckpoints(request)
            found += [
                (names.index(made.name.partition("/checkpoints/")[0]), made.step) for made in page.checkpoints
            ]
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token

    everything = [(job, step) for job in (1, 0) for step in steps]
    assert await listed() == everything
    assert await listed("create_time desc") == sorted(everything, key=everything.index)
    assert await listed("step") == sorted(everything, key=lambda made: (made[1], made[0]))
    assert await listed("base_model, step desc") == sorted(everything, key=lambda made: (-made[1], -made[0]))
    assert await listed("step", jobs[1].name) == [(1, step) for step in sorted(steps)]
    spec = jobs[0].spec
    assert await listed(base_models=["x", spec.base_model]) == everything
    assert await listed(datasets=[spec.dataset.partition("@")[0]]) == everything
    assert await listed(base_models=["x"]) == await listed(datasets=["datasets/x"]) == []
    assert await listed(created_before=jobs[0].create_time) == []
    assert await listed(created_from=jobs[0].create_time) == everything
    wrong = await refused(listed("digest"))
    assert (wrong.reason, fields(wrong)) == ("ORDER_BY_INVALID", ["order_by"])
    assert (await refused(listed(parent="trainingJobs/none"))).reason == "TRAINING_JOB_NOT_FOUND"
    request = v1.ListCheckpointsRequest(parent="trainingJobs/-", page_size=1)
    request.page_token = (await trainer.ListCheckpoints(request)).next_page_token
    for other in (
        v1.ListCheckpointsRequest(parent=jobs[0].name, page_token=request.page_token),
        v1.ListCheckpointsRequest(parent="trainingJobs/-", order_by="step", page_token=request.page_token),
    ):
        assert fields(await refused(trainer.ListCheckpoints(other))) == ["page_token"]

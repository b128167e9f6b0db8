"""Checkpoints as files that `peft` and `transformers` load, and jobs that go on; on both databases."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load

from support import scripted_trainer as script
from support.migrated import migrated
from support.serving import refused, served
from support.tiny_model import make_tiny_model
from support.training import CHATML, exporting, rows
from tunix_rt import v1
from tunix_rt_kit.chat import Message
from tunix_rt_trainer.jobs import training
from tunix_rt_trainer.wiring import TrainerSettings, build, migrate

pytestmark = pytest.mark.one_database

TESTS = Path(__file__).parents[1]
PEFT, WHOLE = v1.CHECKPOINT_FORMAT_PEFT, v1.CHECKPOINT_FORMAT_HUGGING_FACE


@dataclass
class World:
    """A trainer whose jobs are acted out, and the folder of its base model "tiny"."""

    trainer: Any
    model: Path

    async def job(self, plan: int = script.SUCCEED, **spec: Any) -> v1.TrainingJob:
        values = {"base_model": "tiny", "dataset": "datasets/sums@1", "seed": plan} | spec
        request = v1.CreateTrainingJobRequest(spec=v1.TrainingSpec(**values))
        job: v1.TrainingJob = await self.trainer.CreateTrainingJob(request)
        return job

    async def ended(self, job: v1.TrainingJob) -> v1.TrainingJob:
        request = v1.WatchTrainingJobRequest(name=job.name)
        async for event in self.trainer.WatchTrainingJob(request):
            if event.HasField("training_job"):
                job = event.training_job
        return job

    async def stepped(self, job: v1.TrainingJob) -> None:
        """Wait for the first step; a job that has not begun is cancelled without an attempt."""
        async for event in self.trainer.WatchTrainingJob(v1.WatchTrainingJobRequest(name=job.name)):
            if event.HasField("metrics"):
                return

    async def export(self, checkpoint: str, format_: Any) -> v1.CheckpointExport:
        request = v1.ExportCheckpointRequest(name=checkpoint, format=format_)
        made: v1.CheckpointExport = await self.trainer.ExportCheckpoint(request)
        return made

    async def file(self, checkpoint: str, path: str, format_: Any) -> bytes:
        request = v1.ReadCheckpointFileRequest(name=checkpoint, path=path, format=format_)
        return b"".join([part.chunk async for part in self.trainer.ReadCheckpointFile(request)])


@pytest.fixture
async def world(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(training, "WORKER_MODULE", "support.scripted_trainer")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]))
    make_tiny_model(tmp_path / "models" / "tiny")
    with exporting(tmp_path / "artifacts") as (exporter, address):
        exporter.add(train=rows(8))
        settings = TrainerSettings(
            listen="127.0.0.1:0", database_url=database_url, data_dir=tmp_path, exporter_target=address
        )
        migrated(settings, migrate)
        stop = asyncio.Event()
        async with served(build(settings, stop), stop=stop) as channel:
            yield World(v1.TrainerStub(channel), tmp_path / "models" / "tiny")


async def test_an_adapter_is_exported_as_it_was_saved(world: World) -> None:
    job = await world.ended(await world.job())
    made = await world.export(job.checkpoint, PEFT)
    assert (made.checkpoint, made.format) == (job.checkpoint, PEFT)
    assert [file.path for file in made.files] == ["adapter_config.json", "adapter_model.safetensors"]
    saved = await world.file(job.checkpoint, "adapter_config.json", 0)
    assert await world.file(job.checkpoint, "adapter_config.json", PEFT) == saved


async def test_a_whole_model_has_the_adapter_in_its_weights(world: World) -> None:
    job = await world.ended(await world.job())
    made = await world.export(job.checkpoint, WHOLE)
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= {
        file.path for file in made.files
    }
    merged = load(await world.file(job.checkpoint, "model.safetensors", WHOLE))
    base = load((world.model / "model.safetensors").read_bytes())
    adapter = load(await world.file(job.checkpoint, "adapter_model.safetensors", 0))
    name = "model.layers.0.self_attn.q_proj.weight"
    a, b = (adapter[f"base_model.model.{name[:-7]}.lora_{part}.weight"] for part in "AB")
    expected = base[name].astype(np.float32) + script.SCALE * (b @ a)
    np.testing.assert_array_equal(merged[name], expected.astype(base[name].dtype))
    assert not np.array_equal(merged[name], base[name])
    untouched = "model.layers.0.self_attn.k_proj.weight"
    np.testing.assert_array_equal(merged[untouched], base[untouched])


async def test_a_whole_model_brings_the_template_and_the_end_that_it_was_trained_with(
    world: World, tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    job = await world.ended(await world.job())
    for file in (await world.export(job.checkpoint, WHOLE)).files:
        path = tmp_path / "tuned" / file.path
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(await world.file(job.checkpoint, file.path, WHOLE))
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "tuned")
    messages = [Message(role="user", content="2 + 2?")]
    text = tokenizer.apply_chat_template(
        [message.model_dump() for message in messages], tokenize=False, add_generation_prompt=True
    )
    assert text == CHATML.render(messages, add_generation_prompt=True)
    assert tokenizer.eos_token == CHATML.end_of_turn
    generation = json.loads((tmp_path / "tuned" / "generation_config.json").read_text())
    assert generation["eos_token_id"] == tokenizer.convert_tokens_to_ids(CHATML.end_of_turn)


async def test_an_export_is_made_once(world: World, tmp_path: Path) -> None:
    job = await world.ended(await world.job())
    first, again = await asyncio.gather(*(world.export(job.checkpoint, WHOLE) for _ in range(2)))
    assert first == again
    # What was made is there without the base model.
    (world.model / "model.safetensors").unlink()
    assert await world.export(job.checkpoint, WHOLE) == first
    assert not list((tmp_path / "exports").iterdir())


async def test_other_base_weights_than_those_trained_on_are_refused(world: World) -> None:
    job = await world.ended(await world.job())
    make_tiny_model(world.model, seed=9)
    error = await refused(world.export(job.checkpoint, WHOLE))
    assert (error.code, error.reason) == ("FAILED_PRECONDITION", "BASE_MODEL_CHANGED")


async def test_wrong_exports_are_refused(world: World) -> None:
    job = await world.ended(await world.job())
    assert (await refused(world.export(job.checkpoint, 0))).reason == "EXPORT_FORMAT_UNKNOWN"
    assert (await refused(world.export(job.checkpoint, 9))).reason == "EXPORT_FORMAT_UNKNOWN"
    missing = f"{job.name}/checkpoints/1"
    assert (await refused(world.export(missing, PEFT))).reason == "CHECKPOINT_NOT_FOUND"
    error = await refused(world.file(job.checkpoint, "adapter_config.json", WHOLE))
    assert error.reason == "CHECKPOINT_FILE_NOT_FOUND"


async def resume(world: World, job: v1.TrainingJob) -> v1.TrainingJob:
    resumed: v1.TrainingJob = await world.trainer.ResumeTrainingJob(
        v1.ResumeTrainingJobRequest(name=job.name)
    )
    return resumed


async def cancel(world: World, job: v1.TrainingJob) -> v1.TrainingJob:
    cancelled: v1.TrainingJob = await world.trainer.CancelTrainingJob(
        v1.CancelTrainingJobRequest(name=job.name)
    )
    return cancelled


async def test_a_cancelled_job_goes_on(world: World) -> None:
    job = await world.job(script.WAIT_ONCE)
    await world.stepped(job)
    await cancel(world, job)
    job = await world.ended(job)
    assert job.state == v1.TrainingJob.STATE_CANCELLED
    resumed = await resume(world, job)
    assert resumed.state in (v1.TrainingJob.STATE_QUEUED, v1.TrainingJob.STATE_RUNNING)
    assert not resumed.HasField("end_time")
    again = await resume(world, job)
    assert again.name == job.name
    done = await world.ended(job)
    assert done.state == v1.TrainingJob.STATE_SUCCEEDED
    assert not done.HasField("error")


async def test_a_failed_job_that_goes_on_loses_its_error(world: World) -> None:
    job = await world.ended(await world.job(script.REFUSE))
    assert job.state == v1.TrainingJob.STATE_FAILED
    assert not (await resume(world, job)).HasField("error")
    failed = await world.ended(job)
    assert (failed.state, failed.attempt_count) == (v1.TrainingJob.STATE_FAILED, 2)


async def test_a_job_that_succeeded_is_not_resumed(world: World) -> None:
    job = await world.ended(await world.job())
    error = await refused(resume(world, job))
    assert (error.code, error.reason) == ("FAILED_PRECONDITION", "TRAINING_JOB_SUCCEEDED")
    missing = v1.TrainingJob(name="trainingJobs/none")
    assert (await refused(resume(world, missing))).reason == "TRAINING_JOB_NOT_FOUND"

"""What the trainer refuses of a dataset because of what a model would learn of it, on both databases."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from support.migrated import migrated
from support.serving import refused, served
from support.tiny_model import make_tiny_model
from support.training import FakeExporter, exporting, rows
from tunix_rt import v1
from tunix_rt_kit.artifacts import ArtifactStore
from tunix_rt_kit.canonical import digest_file
from tunix_rt_trainer.wiring import TrainerSettings, build, migrate

pytestmark = pytest.mark.one_database


@dataclass
class World:
    """A trainer that starts no job by itself, and the exporter that it asks."""

    trainer: Any
    exporter: FakeExporter
    models: Path

    async def create(self, version: str = "1", timeout: float | None = None, **spec: Any) -> v1.TrainingJob:
        values = {"base_model": "tiny", "dataset": f"datasets/sums@{version}"} | spec
        request = v1.CreateTrainingJobRequest(spec=v1.TrainingSpec(**values), request_id="once")
        job: v1.TrainingJob = await self.trainer.CreateTrainingJob(request, timeout=timeout)
        await self.trainer.CancelTrainingJob(v1.CancelTrainingJobRequest(name=job.name))
        return job


@pytest.fixture
async def world(database_url: str, tmp_path: Path) -> AsyncIterator[World]:
    make_tiny_model(tmp_path / "models" / "tiny")
    with exporting(tmp_path / "artifacts") as (exporter, address):
        settings = TrainerSettings(
            listen="127.0.0.1:0", database_url=database_url, data_dir=tmp_path, exporter_target=address
        )
        migrated(settings, migrate)
        stop = asyncio.Event()
        async with served(build(settings, stop), stop=stop) as channel:
            yield World(v1.TrainerStub(channel), exporter, tmp_path / "models")


LONG = {"id": "long", "prompt": "x" * 200 + "<|im_end|>", "response": "y" * 60 + "<|im_end|>"}
MUTE = {"id": "mute", "prompt": "<|im_start|>", "response": ""}
LOST = {"id": "lost", "prompt": "<|im_start|>", "response": "<|im_end|>\n"}
FAKE = {"id": "fake", "prompt": "<|im_start|>", "response": "a<|endoftext|>b<|im_end|>\n"}
OPEN = {"id": "open", "prompt": "<|im_start|>", "response": "Answer: 4"}


@pytest.mark.parametrize(
    ("row", "reason", "problem"),
    [
        (LONG, "EXAMPLE_TOO_LONG", "are longer than max_length of 256 tokens: long"),
        (MUTE, "EXAMPLE_WITHOUT_RESPONSE", "are without a response to learn: mute"),
        (OPEN, "END_NOT_SUPERVISED", "are without the token that ends a turn in what is learned"),
        (LOST, "TARGET_LOST", "are no longer what they were once they are tokens"),
        (FAKE, "SPECIAL_TOKEN_IN_TEXT", "are with a special token of the model in a text"),
    ],
    ids=["long", "mute", "open", "lost", "fake"],
)
@pytest.mark.parametrize("split", ["train", "validation"])
async def test_rows_that_cannot_be_learned_are_named(
    world: World, split: str, row: dict[str, str], reason: str, problem: str
) -> None:
    good = {"train": rows(3), "validation": rows(1, start=3)}
    world.exporter.add(**{**good, split: [*good[split], row]})
    error = await refused(world.create())
    assert (error.code, error.reason) == ("FAILED_PRECONDITION", reason)
    assert error.message.startswith(f"spec.dataset: 1 examples of split '{split}' of datasets/sums@1")
    assert problem in error.message
    assert row["id"] in error.message
    assert error.metadata == {"split": split, "count": "1", "first_id": row["id"]}
    jobs = await world.trainer.ListTrainingJobs(v1.ListTrainingJobsRequest())
    assert not jobs.training_jobs


@pytest.mark.parametrize(
    ("fault", "reason"),
    [("supervised_elsewhere", "SUPERVISED_ELSEWHERE"), ("end_mark_masked", "END_NOT_SUPERVISED")],
)
async def test_a_wrong_loss_mask_is_not_trained_on(world: World, fault: str, reason: str) -> None:
    world.exporter.add(train=rows(3))
    world.exporter.faults_of_roles[fault] = v1.AuditedRows(row_count=2, example_row_ids=["a", "b"])
    error = await refused(world.create())
    assert (error.code, error.reason) == ("FAILED_PRECONDITION", reason)
    assert ": a, b; " in error.message


async def test_five_rows_are_named_and_the_rest_counted(world: World) -> None:
    world.exporter.add(train=[{**LONG, "id": f"row-{number}"} for number in range(30)])
    error = await refused(world.create())
    assert ": row-0, row-1, row-2, row-3, row-4 and 25 more; set a larger max_length" in error.message
    assert error.metadata["count"] == "30"


async def test_a_split_that_is_not_trained_on_may_hold_anything(world: World) -> None:
    world.exporter.add(train=rows(3), test=[LONG, MUTE, OPEN])
    assert (await world.create()).name


async def test_the_length_is_that_of_the_spec(world: World) -> None:
    world.exporter.add(train=[LONG])
    assert (await refused(world.create(max_length=261))).reason == "EXAMPLE_TOO_LONG"
    assert (await world.create(max_length=262)).name


async def test_the_exporter_gets_the_tokenizer_by_its_digest(world: World) -> None:
    world.exporter.add(train=rows(3))
    first = await world.create(max_length=64)
    assert await world.create(max_length=64) != v1.TrainingJob()
    (asked,) = world.exporter.audits
    file = world.models / "tiny" / "tokenizer.json"
    assert (asked.name, asked.base_model, asked.max_length) == ("datasets/sums@1", "tiny", 64)
    assert asked.tokenizer.digest == digest_file(file)
    assert world.exporter.artifacts.read_bytes(asked.tokenizer.digest) == file.read_bytes()
    assert first.dataset_digest


async def test_a_job_whose_caller_did_not_wait_for_the_audit_is_there_by_its_request_id(
    world: World,
) -> None:
    world.exporter.add(train=rows(3))
    world.exporter.audit_pause_s = 1.0
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await world.create(timeout=0.3)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    jobs: list[v1.TrainingJob] = []
    for _ in range(100):
        jobs = list((await world.trainer.ListTrainingJobs(v1.ListTrainingJobsRequest())).training_jobs)
        if jobs:
            break
        await asyncio.sleep(0.1)
    assert (await world.create()).name == jobs[0].name
    assert len(world.exporter.audits) == 1


async def test_a_model_that_is_not_on_the_host_is_checked_by_the_worker(world: World) -> None:
    world.exporter.add(train=[LONG])
    assert (await world.create(base_model="smollm2-135m-instruct")).name
    assert not world.exporter.audits


async def test_base_models_name_their_tokenizers(world: World) -> None:
    listed = (await world.trainer.ListBaseModels(v1.ListBaseModelsRequest())).base_models
    files = {model.base_model: model.tokenizer_file for model in listed if model.available}
    store: ArtifactStore = world.exporter.artifacts
    assert {name: store.exists(file.digest) for name, file in files.items()} == {"tiny": True}
    assert all(not model.HasField("tokenizer_file") for model in listed if not model.available)


async def test_base_models_are_listed_while_the_artifact_store_cannot_be_written(
    world: World, tmp_path: Path
) -> None:
    world.exporter.add(train=rows(3), validation=rows(1, start=3))
    # What is being written lies in this folder.
    shutil.rmtree(tmp_path / "artifacts" / "tmp", ignore_errors=True)
    (tmp_path / "artifacts" / "tmp").write_text("in the way")
    listed = (await world.trainer.ListBaseModels(v1.ListBaseModelsRequest())).base_models
    (tiny,) = [model for model in listed if model.available]
    assert (tiny.base_model, tiny.HasField("tokenizer_file")) == ("tiny", False)
    assert tiny.tokenizer_digest
    assert (await refused(world.create())).reason == "STORAGE_UNUSABLE"
    (tmp_path / "artifacts" / "tmp").unlink()
    assert (await world.create()).name

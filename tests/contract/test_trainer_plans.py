"""What a training job would do, told before it runs, on both databases."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support.migrated import migrated
from support.serving import refused, served
from support.tiny_model import make_tiny_model
from support.training import FakeExporter, exporting, rows
from tunix_rt import v1
from tunix_rt_kit.loss_mask import encode, parse_example
from tunix_rt_kit.models import runtime
from tunix_rt_kit.models.store import ModelStore
from tunix_rt_kit.models.tokenizer import load_tokenizer
from tunix_rt_kit.packing import pack
from tunix_rt_trainer.wiring import TrainerSettings, build, migrate

pytestmark = pytest.mark.one_database


@dataclass
class World:
    """A trainer and the exporter that it asks; ``model`` is the folder of the base model "tiny"."""

    trainer: Any
    exporter: FakeExporter
    model: Path

    async def plan(self, **spec: Any) -> v1.TrainingPlan:
        values = {"base_model": "tiny", "dataset": "datasets/sums@1", "max_length": 128} | spec
        request = v1.PlanTrainingJobRequest(spec=v1.TrainingSpec(**values))
        plan: v1.TrainingPlan = await self.trainer.PlanTrainingJob(request)
        return plan


@pytest.fixture
async def world(database_url: str, tmp_path: Path) -> AsyncIterator[World]:
    make_tiny_model(tmp_path / "models" / "tiny")
    with exporting(tmp_path / "artifacts") as (exporter, address):
        exporter.add(train=rows(40), validation=rows(4, start=40))
        exporter.add("2", train=rows(40))
        settings = TrainerSettings(
            listen="127.0.0.1:0", database_url=database_url, data_dir=tmp_path, exporter_target=address
        )
        migrated(settings, migrate)
        stop = asyncio.Event()
        async with served(build(settings, stop), stop=stop) as channel:
            yield World(v1.TrainerStub(channel), exporter, tmp_path / "models" / "tiny")


def lengths(world: World) -> list[int]:
    (split, _) = world.exporter.datasets["datasets/sums@1"].splits
    file = split.files[1].file
    lines = list(world.exporter.artifacts.iter_lines(file.digest))
    examples = [parse_example(line, file.path, number) for number, line in enumerate(lines, 1)]
    return [len(row.ids) for row in encode(examples, load_tokenizer(world.model))]


async def test_a_plan_counts_examples_tokens_rows_and_steps(world: World) -> None:
    plan = await world.plan(rows_per_batch=3)
    counted = lengths(world)
    packed = len(pack(counted, 128))
    assert (plan.train_examples, plan.validation_examples) == (40, 4)
    assert (plan.train_tokens, plan.rows_per_epoch) == (sum(counted), packed)
    assert plan.packing_efficiency == pytest.approx(sum(counted) / (packed * 128))
    assert 0 < plan.supervised_tokens < plan.train_tokens
    assert plan.steps_per_epoch == plan.spec.max_steps == -(-packed // 3)
    jobs = await world.trainer.ListTrainingJobs(v1.ListTrainingJobsRequest())
    assert not jobs.training_jobs


async def test_epochs_and_rows_that_are_not_packed_make_steps(world: World) -> None:
    plan = await world.plan(rows_per_batch=8, packing=False, epochs=2.5)
    assert (plan.rows_per_epoch, plan.steps_per_epoch, plan.spec.max_steps) == (40, 5, 13)
    tokens = await world.plan(tokens_per_batch=512, packing=False, epochs=0.2)
    assert (tokens.spec.rows_per_batch, tokens.spec.max_steps) == (4, 2)


async def test_a_plan_counts_what_is_learned(world: World) -> None:
    base = ModelStore(world.model.parent).resolve("tiny").parameter_count
    adapter = await world.plan(lora=v1.LoraConfig(rank=2, target_modules=["q_proj"]))
    twice = await world.plan(lora=v1.LoraConfig(rank=4, target_modules=["q_proj"]))
    whole = await world.plan(method=v1.TUNING_METHOD_FULL)
    assert adapter.base_parameters == whole.trainable_parameters == base
    assert 0 < 2 * adapter.trainable_parameters == twice.trainable_parameters
    assert not whole.spec.HasField("lora")


async def test_what_saves_memory_lowers_the_estimate(world: World) -> None:
    async def memory(**spec: Any) -> int:
        return sum((await world.plan(**{"dtype": v1.DTYPE_BFLOAT16} | spec)).memory_bytes.values())

    usual = await memory()
    assert await memory(remat=v1.REMAT_POLICY_FULL) < usual < await memory(remat=v1.REMAT_POLICY_NONE)
    assert await memory(gradient_accumulation_steps=4) < usual < await memory(dtype=v1.DTYPE_FLOAT32)
    assert await memory(method=v1.TUNING_METHOD_QLORA) < usual < await memory(method=v1.TUNING_METHOD_FULL)


async def test_what_cannot_be_measured_is_refused(world: World) -> None:
    def asked(**spec: Any) -> v1.MeasureTrainingRequest:
        return v1.MeasureTrainingRequest(spec=v1.TrainingSpec(dataset="datasets/none@1", **spec))

    unknown = await refused(world.trainer.MeasureTraining(asked(base_model="nope")))
    assert unknown.reason == "BASE_MODEL_UNKNOWN"
    absent = await refused(world.trainer.MeasureTraining(asked(base_model="smollm2-135m-instruct")))
    assert absent.reason == "BASE_MODEL_NOT_PULLED"
    wrong = await refused(world.trainer.MeasureTraining(asked(base_model="tiny", rows_per_batch=-1)))
    assert "spec.rows_per_batch" in wrong.message


async def test_a_plan_says_which_type_this_host_finds_fast(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "_GPU_DEVICE", Path("/nowhere"))
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_max_isa=AVX2")
    assert (await world.plan()).spec.dtype == v1.DTYPE_FLOAT32


async def test_a_plan_refuses_what_a_job_would_be_refused_for(world: World) -> None:
    assert (await refused(world.plan(max_steps=0))).reason == "TRAINING_SPEC_INVALID"
    assert (await refused(world.plan(dataset="datasets/none@1"))).reason == "DATASET_NOT_FOUND"
    assert (await refused(world.plan(max_length=16))).reason == "EXAMPLE_TOO_LONG"


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"keep_best_checkpoint": True}, "spec.keep_best_checkpoint"),
        ({"early_stopping": v1.EarlyStopping()}, "spec.early_stopping"),
    ],
)
async def test_what_needs_a_validation_loss_needs_a_validation_split(
    world: World, spec: dict[str, Any], field: str
) -> None:
    await world.plan(validation_interval_steps=2, **spec)
    error = await refused(world.plan(dataset="datasets/sums@2", validation_interval_steps=2, **spec))
    assert error.reason == "TRAINING_SPEC_INVALID"
    assert error.message == f"{field}: needs a split 'validation', which datasets/sums@2 does not have"


async def test_a_model_that_is_not_on_the_host_cannot_be_counted_with(world: World) -> None:
    error = await refused(world.plan(base_model="smollm2-135m-instruct"))
    assert (error.code, error.reason) == ("FAILED_PRECONDITION", "BASE_MODEL_NOT_PULLED")
    assert error.message.endswith("fetch it first: tunix-rt models pull smollm2-135m-instruct")

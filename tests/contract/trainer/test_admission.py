"""What a trainer takes and refuses, on both databases."""

from __future__ import annotations

import asyncio
import json
import math
from typing import Any

import pytest
from sqlalchemy import select, update

from support import scripted_trainer as script
from support.serving import fields, refused
from support.tiny_model import make_tiny_model
from support.trainer_jobs import create, ended, get, running, until
from support.training import CHATML, FakeExporter, rows
from tunix_rt import v1
from tunix_rt_kit.canonical import digest_json
from tunix_rt_kit.chat import ChatTemplate
from tunix_rt_kit.database import Database
from tunix_rt_trainer.tables import jobs, requests
from tunix_rt_trainer.wiring import TrainerSettings


async def test_a_job_gets_every_default(trainer: Any) -> None:
    job = await create(trainer, script.WAIT)
    assert job.name.startswith("trainingJobs/")
    assert job.state in (v1.TrainingJob.STATE_QUEUED, v1.TrainingJob.STATE_RUNNING)
    spec = job.spec
    assert (spec.lora.rank, spec.lora.alpha, list(spec.lora.target_modules)) == (
        16,
        32.0,
        ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    )
    optimizer = spec.optimizer
    assert (optimizer.learning_rate, optimizer.weight_decay, optimizer.max_grad_norm) == (1e-3, 0.0, 1.0)
    assert (optimizer.beta1, optimizer.beta2, optimizer.epsilon) == (0.9, 0.999, 1e-8)
    assert (optimizer.schedule, optimizer.warmup_steps) == (v1.LEARNING_RATE_SCHEDULE_LINEAR, 0)
    assert (spec.rows_per_batch, spec.max_length, spec.packing) == (8, 256, True)
    assert (spec.dtype, spec.validation_interval_steps) == (v1.DTYPE_AUTO, 0)
    assert (spec.method, spec.remat) == (v1.TUNING_METHOD_LORA, v1.REMAT_POLICY_DOTS)
    assert (spec.epochs, spec.gradient_accumulation_steps) == (1.0, 1)
    assert (spec.checkpoint_interval_steps, spec.keep_best_checkpoint) == (50, False)
    assert (spec.mesh.fsdp, spec.mesh.tp) == (1, 1)
    assert not spec.HasField("early_stopping")
    assert job.chat_template_digest == CHATML.digest
    assert job.dataset_digest.startswith("sha256:")
    assert job.HasField("create_time")


async def test_a_seed_has_64_bits_and_a_given_field_wins_over_its_default(trainer: Any) -> None:
    job = await create(
        trainer,
        (1 << 64) - 1,
        lora=v1.LoraConfig(rank=4, target_modules=["v_proj", "q_proj"]),
        optimizer=v1.OptimizerConfig(schedule=v1.LEARNING_RATE_SCHEDULE_COSINE, max_grad_norm=0.0),
        packing=False,
        dtype=v1.DTYPE_FLOAT32,
        max_steps=7,
    )
    spec = (await get(trainer, job)).spec
    assert spec.seed == (1 << 64) - 1
    assert (spec.lora.rank, spec.lora.alpha, list(spec.lora.target_modules)) == (4, 8.0, ["q_proj", "v_proj"])
    assert (spec.optimizer.schedule, spec.optimizer.max_grad_norm) == (v1.LEARNING_RATE_SCHEDULE_COSINE, 0.0)
    assert (spec.packing, spec.dtype, spec.max_steps) == (False, v1.DTYPE_FLOAT32, 7)


WRONG: dict[str, tuple[dict[str, Any], list[str]]] = {
    "nothing named": ({"base_model": "", "dataset": ""}, ["spec.base_model", "spec.dataset"]),
    "dataset without version": ({"dataset": "datasets/sums"}, ["spec.dataset"]),
    "dataset by another name": ({"dataset": "traces/sums@1"}, ["spec.dataset"]),
    "rank 0": ({"lora": v1.LoraConfig(rank=0)}, ["spec.lora.rank"]),
    "rank 1,025": ({"lora": v1.LoraConfig(rank=1025)}, ["spec.lora.rank"]),
    "alpha 0": ({"lora": v1.LoraConfig(alpha=0.0)}, ["spec.lora.alpha"]),
    "alpha NaN": ({"lora": v1.LoraConfig(alpha=math.nan)}, ["spec.lora.alpha"]),
    "unknown module": (
        {"lora": v1.LoraConfig(target_modules=["q_proj", "lm_head"])},
        ["spec.lora.target_modules[1]"],
    ),
    "module twice": (
        {"lora": v1.LoraConfig(target_modules=["q_proj", "q_proj"])},
        ["spec.lora.target_modules[1]"],
    ),
    "learning rate 0": (
        {"optimizer": v1.OptimizerConfig(learning_rate=0.0)},
        ["spec.optimizer.learning_rate"],
    ),
    "learning rate NaN": (
        {"optimizer": v1.OptimizerConfig(learning_rate=math.nan)},
        ["spec.optimizer.learning_rate"],
    ),
    "learning rate 2": (
        {"optimizer": v1.OptimizerConfig(learning_rate=2.0)},
        ["spec.optimizer.learning_rate"],
    ),
    "schedule 9": ({"optimizer": v1.OptimizerConfig(schedule=9)}, ["spec.optimizer.schedule"]),
    "warm-up negative": ({"optimizer": v1.OptimizerConfig(warmup_steps=-1)}, ["spec.optimizer.warmup_steps"]),
    "warm-up to the end": (
        {"optimizer": v1.OptimizerConfig(warmup_steps=5), "max_steps": 5},
        ["spec.optimizer.warmup_steps"],
    ),
    "weight decay negative": (
        {"optimizer": v1.OptimizerConfig(weight_decay=-0.1)},
        ["spec.optimizer.weight_decay"],
    ),
    "betas 1": (
        {"optimizer": v1.OptimizerConfig(beta1=1.0, beta2=1.0)},
        ["spec.optimizer.beta1", "spec.optimizer.beta2"],
    ),
    "epsilon 0": ({"optimizer": v1.OptimizerConfig(epsilon=0.0)}, ["spec.optimizer.epsilon"]),
    "norm infinite": (
        {"optimizer": v1.OptimizerConfig(max_grad_norm=math.inf)},
        ["spec.optimizer.max_grad_norm"],
    ),
    "no steps": ({"max_steps": 0}, ["spec.max_steps"]),
    "rows 0": ({"rows_per_batch": 0}, ["spec.rows_per_batch"]),
    "rows 1,025": ({"rows_per_batch": 1025}, ["spec.rows_per_batch"]),
    "length 15": ({"max_length": 15}, ["spec.max_length"]),
    "length beyond the model": ({"max_length": 1025}, ["spec.max_length"]),
    "dtype 9": ({"dtype": 9}, ["spec.dtype"]),
    "interval negative": ({"validation_interval_steps": -1}, ["spec.validation_interval_steps"]),
    "checkpoints before the start": (
        {"checkpoint_interval_steps": -1},
        ["spec.checkpoint_interval_steps"],
    ),
    "method 9": ({"method": 9}, ["spec.method"]),
    "remat 9": ({"remat": 9}, ["spec.remat"]),
    "an adapter for all weights": (
        {"method": v1.TUNING_METHOD_FULL, "lora": v1.LoraConfig(rank=4)},
        ["spec.lora"],
    ),
    "epochs 0": ({"epochs": 0.0}, ["spec.epochs"]),
    "epochs NaN": ({"epochs": math.nan}, ["spec.epochs"]),
    "epochs and steps": ({"epochs": 1.0, "max_steps": 4}, ["spec.epochs"]),
    "tokens and rows": ({"tokens_per_batch": 2048, "rows_per_batch": 8}, ["spec.tokens_per_batch"]),
    "tokens for half a row": ({"tokens_per_batch": 384}, ["spec.tokens_per_batch"]),
    "tokens 0": ({"tokens_per_batch": 0}, ["spec.tokens_per_batch"]),
    "parts 0": ({"gradient_accumulation_steps": 0}, ["spec.gradient_accumulation_steps"]),
    "parts that do not divide": (
        {"gradient_accumulation_steps": 3},
        ["spec.gradient_accumulation_steps"],
    ),
    "stopping early without a measure": (
        {"early_stopping": v1.EarlyStopping(), "keep_best_checkpoint": True},
        ["spec.keep_best_checkpoint", "spec.early_stopping"],
    ),
    "patience 0": (
        {"early_stopping": v1.EarlyStopping(patience=0, min_delta=-1.0), "validation_interval_steps": 1},
        ["spec.early_stopping.patience", "spec.early_stopping.min_delta"],
    ),
    "no device": ({"mesh": v1.MeshShape(tp=0)}, ["spec.mesh.tp"]),
    "rows that devices cannot share": ({"mesh": v1.MeshShape(fsdp=3)}, ["spec.mesh.fsdp"]),
}


@pytest.mark.parametrize("spec, wrong", WRONG.values(), ids=WRONG)
async def test_every_wrong_field_of_a_spec_is_named(
    trainer: Any, spec: dict[str, Any], wrong: list[str]
) -> None:
    error = await refused(create(trainer, **spec))
    assert (error.code, error.reason) == ("INVALID_ARGUMENT", "TRAINING_SPEC_INVALID")
    assert fields(error) == wrong
    assert not (await trainer.ListTrainingJobs(v1.ListTrainingJobsRequest())).training_jobs


async def test_an_unknown_base_model_is_refused_with_what_is_known(trainer: Any) -> None:
    error = await refused(create(trainer, base_model="gpt-5"))
    assert (error.code, error.reason) == ("NOT_FOUND", "BASE_MODEL_UNKNOWN")
    assert "gpt-5" in error.message and "tiny" in error.message


async def test_a_damaged_base_model_is_refused_by_field(trainer: Any, settings: TrainerSettings) -> None:
    config = make_tiny_model(settings.models / "broken") / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"rope_scaling": {"type": "linear"}}))
    error = await refused(create(trainer, base_model="broken"))
    assert (error.code, error.reason) == ("FAILED_PRECONDITION", "BASE_MODEL_UNSUPPORTED")
    assert "rope_scaling" in error.message


async def test_datasets_that_cannot_be_trained_on_are_refused(
    trainer: Any, exporter: tuple[FakeExporter, str]
) -> None:
    fake, _ = exporter
    error = await refused(create(trainer, dataset="datasets/sums@none"))
    assert (error.code, error.reason) == ("NOT_FOUND", "DATASET_NOT_FOUND")
    for version, added in {
        "building": {"state": v1.Dataset.STATE_RUNNING, "train": rows(3)},
        "failed": {"state": v1.Dataset.STATE_FAILED},
    }.items():
        error = await refused(create(trainer, dataset=fake.add(version, **added)))
        assert (error.code, error.reason) == ("FAILED_PRECONDITION", "DATASET_NOT_READY")
    for version, splits in {"empty": {"train": []}, "other": {"test": rows(2)}}.items():
        error = await refused(create(trainer, dataset=fake.add(version, **splits)))
        assert (error.code, error.reason) == ("FAILED_PRECONDITION", "DATASET_EMPTY")
        assert "train" in error.message


async def test_a_template_whose_markers_the_tokenizer_does_not_know_is_refused(
    trainer: Any, exporter: tuple[FakeExporter, str]
) -> None:
    name = exporter[0].add("gemma", template=ChatTemplate.built_in("gemma-it"), train=rows(3))
    error = await refused(create(trainer, dataset=name))
    assert (error.code, error.reason) == ("FAILED_PRECONDITION", "CHAT_TEMPLATE_MISMATCH")
    assert "_of_turn>" in error.message or "<bos>" in error.message


async def test_a_template_that_exporter_and_trainer_read_differently_is_refused(
    trainer: Any, exporter: tuple[FakeExporter, str]
) -> None:
    fake, _ = exporter
    fake.datasets["datasets/sums@1"].spec.chat_template.digest = "sha256:" + "0" * 64
    error = await refused(create(trainer))
    assert (error.code, error.reason) == ("FAILED_PRECONDITION", "CHAT_TEMPLATE_MISMATCH")


@pytest.mark.usefixtures("quick_retries")
async def test_an_exporter_that_is_away_is_said_to_be_away(settings: TrainerSettings) -> None:
    away = settings.model_copy(update={"exporter_target": "127.0.0.1:1"})
    async with running(away) as trainer:
        error = await refused(create(trainer))
    assert (error.code, error.reason) == ("UNAVAILABLE", "UPSTREAM_UNAVAILABLE")
    assert "exporter" in error.message


async def test_a_request_id_makes_one_job(trainer: Any, exporter: tuple[FakeExporter, str]) -> None:
    first = await create(trainer, request_id="one")
    calls = exporter[0].calls
    again = await create(trainer, request_id="one")
    assert again.name == first.name
    assert exporter[0].calls == calls
    error = await refused(create(trainer, request_id="one", max_steps=9))
    assert (error.code, error.reason) == ("ALREADY_EXISTS", "REQUEST_ID_REUSED")
    other = await create(trainer, request_id="two")
    assert other.name != first.name
    error = await refused(create(trainer, request_id="not an id"))
    assert (error.code, fields(error)) == ("INVALID_ARGUMENT", ["request_id"])
    assert len((await trainer.ListTrainingJobs(v1.ListTrainingJobsRequest())).training_jobs) == 2


async def test_a_type_that_is_left_out_is_auto_and_one_that_is_named_is_another_request(trainer: Any) -> None:
    first = await until(trainer, await create(trainer, request_id="one"), ended)
    assert first.spec.dtype == v1.DTYPE_FLOAT32
    again = await create(trainer, request_id="one", dtype=v1.DTYPE_AUTO)
    assert (again.name, again.spec.dtype) == (first.name, v1.DTYPE_FLOAT32)
    for named in (v1.DTYPE_BFLOAT16, v1.DTYPE_FLOAT32):
        error = await refused(create(trainer, request_id="one", dtype=named))
        assert error.reason == "REQUEST_ID_REUSED"


async def test_a_request_that_an_earlier_release_took_is_known(
    trainer: Any, settings: TrainerSettings
) -> None:
    """It took a type that was left out for bfloat16."""
    first = await create(trainer, script.WAIT, request_id="one", dtype=v1.DTYPE_BFLOAT16)
    database = Database(settings.database)
    with database.write() as session:
        (spec,) = session.execute(select(jobs.c.spec)).scalars()
        session.execute(update(requests).values(request_digest=digest_json(spec)))
    for asked in (v1.DTYPE_UNSPECIFIED, v1.DTYPE_AUTO, v1.DTYPE_BFLOAT16):
        again = await create(trainer, script.WAIT, request_id="one", dtype=asked)
        assert (again.name, again.spec.dtype) == (first.name, v1.DTYPE_BFLOAT16)
    error = await refused(create(trainer, script.WAIT, request_id="one", dtype=v1.DTYPE_FLOAT32))
    assert error.reason == "REQUEST_ID_REUSED"


async def test_the_same_request_at_the_same_time_makes_one_job(trainer: Any) -> None:
    jobs = await asyncio.gather(*(create(trainer, request_id="same") for _ in range(6)))
    assert len({job.name for job in jobs}) == 1

"""The trainer over a real channel, on both databases; its worker acts out jobs without a model."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import math
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from google.rpc import error_details_pb2

from support import scripted_trainer as script
from support.serving import fields, refused, served
from support.tiny_model import make_tiny_model
from support.training import CHATML, FakeExporter, exporting, rows
from tunix_rt import v1
from tunix_rt_kit.artifacts import ArtifactStore, digest_json
from tunix_rt_kit.chat import ChatTemplate
from tunix_rt_trainer import attempt, job_folders, supervisor
from tunix_rt_trainer.settings import TrainerSettings
from tunix_rt_trainer.wiring import build, migrate

Spec = v1.TrainingSpec
TESTS = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs are acted out by ``support.scripted_trainer``."""
    monkeypatch.setattr(job_folders, "WORKER_MODULE", "support.scripted_trainer")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]))


@pytest.fixture
def exporter(tmp_path: Path) -> Iterator[tuple[FakeExporter, str]]:
    with exporting(tmp_path / "artifacts") as (fake, address):
        fake.add(train=rows(40), validation=rows(4, start=40))
        yield fake, address


@pytest.fixture
def settings(database_url: str, tmp_path: Path, exporter: tuple[FakeExporter, str]) -> TrainerSettings:
    make_tiny_model(tmp_path / "models" / "tiny")
    made = TrainerSettings(
        listen="127.0.0.1:0",
        database_url=database_url,
        data_dir=tmp_path,
        exporter_target=exporter[1],
        shutdown_grace_s=10.0,
    )
    migrate(made)
    return made


@asynccontextmanager
async def running(settings: TrainerSettings) -> AsyncIterator[Any]:
    """A stub of a trainer, as long as the block lasts."""
    stop = asyncio.Event()
    async with served(build(settings, stop), stop=stop) as channel:
        yield v1.TrainerStub(channel)


@pytest.fixture
async def trainer(settings: TrainerSettings) -> AsyncIterator[Any]:
    async with running(settings) as stub:
        yield stub


async def create(
    trainer: Any, plan: int = script.SUCCEED, request_id: str = "", **spec: Any
) -> v1.TrainingJob:
    values = {"base_model": "tiny", "dataset": "datasets/sums@1", "seed": plan} | spec
    return await trainer.CreateTrainingJob(
        v1.CreateTrainingJobRequest(spec=Spec(**values), request_id=request_id)
    )


async def get(trainer: Any, job: v1.TrainingJob) -> v1.TrainingJob:
    return await trainer.GetTrainingJob(v1.GetTrainingJobRequest(name=job.name))


async def until(
    trainer: Any, job: v1.TrainingJob, reached: Callable[[v1.TrainingJob], Any]
) -> v1.TrainingJob:
    for _ in range(600):
        latest = await get(trainer, job)
        if reached(latest):
            return latest
        await asyncio.sleep(0.05)
    raise AssertionError(f"the job stayed {latest}")


def ended(job: v1.TrainingJob) -> bool:
    return job.state in (
        v1.TrainingJob.STATE_SUCCEEDED,
        v1.TrainingJob.STATE_FAILED,
        v1.TrainingJob.STATE_CANCELLED,
    )


def at_first_step(job: v1.TrainingJob) -> bool:
    return job.latest_metrics.step == 1


async def watched(trainer: Any, job: v1.TrainingJob, after: int = 0) -> list[v1.WatchTrainingJobResponse]:
    request = v1.WatchTrainingJobRequest(name=job.name, after_event=after)
    return [event async for event in trainer.WatchTrainingJob(request)]


def error_info(job: v1.TrainingJob) -> error_details_pb2.ErrorInfo:
    info = error_details_pb2.ErrorInfo()
    assert job.error.details[0].Unpack(info)
    return info


def worker_pid(settings: TrainerSettings, job: v1.TrainingJob) -> int:
    folder = settings.data_dir / "training-jobs" / job.name.removeprefix("trainingJobs/")
    return int(json.loads((folder / "worker.pid").read_bytes())["pid"])


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


# Base models


async def test_base_models_are_listed_by_id_whether_they_are_on_the_host_or_not(trainer: Any) -> None:
    models = (await trainer.ListBaseModels(v1.ListBaseModelsRequest())).base_models
    assert [model.base_model for model in models] == ["smollm2-135m-instruct", "tiny"]
    pullable, tiny = models
    assert (pullable.available, pullable.parameter_count, pullable.weights_digest) == (False, 0, "")
    assert pullable.name == "baseModels/smollm2-135m-instruct"
    assert (tiny.available, tiny.family, tiny.context_length) == (True, "llama", 1024)
    assert tiny.weights_digest.startswith("sha256:")
    assert tiny.tokenizer_digest.startswith("sha256:")
    own = ChatTemplate.from_jinja(tiny.chat_template.jinja, bos_token="<|im_start|>", eos_token="<|im_end|>")
    assert tiny.chat_template.digest == own.digest


async def test_base_models_come_by_pages(trainer: Any) -> None:
    first = await trainer.ListBaseModels(v1.ListBaseModelsRequest(page_size=1))
    second = await trainer.ListBaseModels(
        v1.ListBaseModelsRequest(page_size=1, page_token=first.next_page_token)
    )
    assert [page.base_models[0].base_model for page in (first, second)] == ["smollm2-135m-instruct", "tiny"]
    assert not second.next_page_token


# Create


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
    assert (spec.dtype, spec.validation_interval_steps) == (v1.DTYPE_BFLOAT16, 0)
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


async def test_the_same_request_at_the_same_time_makes_one_job(trainer: Any) -> None:
    jobs = await asyncio.gather(*(create(trainer, request_id="same") for _ in range(6)))
    assert len({job.name for job in jobs}) == 1


# Get and list


async def test_jobs_are_listed_newest_first_by_pages(trainer: Any) -> None:
    made = [await create(trainer) for _ in range(5)]
    names: list[str] = []
    token = ""
    while True:
        page = await trainer.ListTrainingJobs(v1.ListTrainingJobsRequest(page_size=2, page_token=token))
        assert len(page.training_jobs) <= 2
        names += [job.name for job in page.training_jobs]
        token = page.next_page_token
        if not token:
            break
    assert names == [job.name for job in reversed(made)]


async def test_bad_names_tokens_and_sizes_are_refused(trainer: Any) -> None:
    error = await refused(trainer.GetTrainingJob(v1.GetTrainingJobRequest(name="jobs/1")))
    assert (error.code, error.reason, fields(error)) == (
        "INVALID_ARGUMENT",
        "RESOURCE_NAME_INVALID",
        ["name"],
    )
    missing = v1.TrainingJob(name="trainingJobs/none")
    for call in (
        get(trainer, missing),
        trainer.CancelTrainingJob(v1.CancelTrainingJobRequest(name=missing.name)),
        watched(trainer, missing),
        trainer.ListCheckpoints(v1.ListCheckpointsRequest(parent=missing.name)),
    ):
        error = await refused(call)
        assert (error.code, error.reason) == ("NOT_FOUND", "TRAINING_JOB_NOT_FOUND")
    for kind, method in (
        (v1.ListTrainingJobsRequest, trainer.ListTrainingJobs),
        (v1.ListBaseModelsRequest, trainer.ListBaseModels),
    ):
        assert fields(await refused(method(kind(page_size=-1)))) == ["page_size"]
        assert fields(await refused(method(kind(page_token="made up")))) == ["page_token"]


async def test_a_page_token_belongs_to_its_listing(trainer: Any) -> None:
    for _ in range(2):
        await create(trainer)
    jobs = await trainer.ListTrainingJobs(v1.ListTrainingJobsRequest(page_size=1))
    error = await refused(trainer.ListBaseModels(v1.ListBaseModelsRequest(page_token=jobs.next_page_token)))
    assert fields(error) == ["page_token"]


# Run and watch


async def test_a_job_runs_to_its_checkpoint(trainer: Any, settings: TrainerSettings) -> None:
    job = await until(trainer, await create(trainer), ended)
    assert job.state == v1.TrainingJob.STATE_SUCCEEDED
    assert job.attempt_count == 1
    assert job.spec.max_steps == script.STEPS
    assert job.latest_metrics.step == script.STEPS
    assert job.latest_metrics.loss == pytest.approx(4.0 / 3.0)
    assert (job.progress.stage, job.progress.completed, job.progress.unit) == ("training", 3, "steps")
    assert [timing.stage for timing in job.stage_timings] == ["preparing data", "training"]
    assert job.create_time.ToDatetime() <= job.start_time.ToDatetime() <= job.end_time.ToDatetime()
    assert job.checkpoint == f"{job.name}/checkpoints/3"
    checkpoint = await trainer.GetCheckpoint(v1.GetCheckpointRequest(name=job.checkpoint))
    assert (checkpoint.step, checkpoint.manifest.training_job) == (3, job.name)
    assert checkpoint.manifest.spec == job.spec
    assert checkpoint.manifest.dataset_digest == job.dataset_digest
    assert checkpoint.chat_template.builtin == "chatml"
    assert checkpoint.chat_template.digest == checkpoint.manifest.chat_template_digest == CHATML.digest
    files = {file.path: file for file in checkpoint.files}
    assert set(files) == {"adapter_config.json", "adapter_model.safetensors", "metrics.jsonl"}
    weights = ("adapter_config.json", "adapter_model.safetensors")
    assert checkpoint.digest == digest_json({path: files[path].digest for path in weights})
    store = ArtifactStore(settings.artifacts)
    assert all(store.exists(file.digest) for file in [*checkpoint.files, checkpoint.manifest_file])
    listed = await trainer.ListCheckpoints(v1.ListCheckpointsRequest(parent=job.name))
    assert list(listed.checkpoints) == [checkpoint]


async def test_jobs_run_one_after_the_other(trainer: Any) -> None:
    first, second = await create(trainer, script.WAIT), await create(trainer)
    await until(trainer, first, at_first_step)
    assert (await get(trainer, second)).state == v1.TrainingJob.STATE_QUEUED
    await trainer.CancelTrainingJob(v1.CancelTrainingJobRequest(name=first.name))
    assert (await until(trainer, second, ended)).state == v1.TrainingJob.STATE_SUCCEEDED


async def test_a_watch_gives_the_state_first_then_every_line_once_then_the_end(trainer: Any) -> None:
    job = await create(trainer)
    events = await watched(trainer, job)
    parts = [event.WhichOneof("part") for event in events]
    assert parts[0] == parts[-1] == "training_job"
    assert events[-1].training_job.state == v1.TrainingJob.STATE_SUCCEEDED
    lines = [event for event in events if event.WhichOneof("part") != "training_job"]
    assert [event.event for event in lines] == [1, 2, 3, 4, 5]
    assert lines[0].log_line == "attempt 1 of datasets/sums@1"
    assert [event.metrics.step for event in lines[1:4]] == [1, 2, 3]
    assert lines[4].checkpoint_step == script.STEPS
    assert events[-1].event == 5
    states = [event.training_job for event in events if event.HasField("training_job")]
    assert all(one != other for one, other in itertools.pairwise(states))


async def test_a_watch_goes_on_after_an_event_also_when_the_job_has_ended(trainer: Any) -> None:
    job = await until(trainer, await create(trainer), ended)
    lines = [event for event in await watched(trainer, job, after=2) if not event.HasField("training_job")]
    assert [event.event for event in lines] == [3, 4, 5]
    assert [event.training_job.state for event in await watched(trainer, job, after=5)] == [
        v1.TrainingJob.STATE_SUCCEEDED
    ]


async def test_a_watch_ends_when_the_server_stops(settings: TrainerSettings) -> None:
    stop = asyncio.Event()
    async with served(build(settings, stop), stop=stop) as channel:
        trainer = v1.TrainerStub(channel)
        job = await until(trainer, await create(trainer, script.WAIT), at_first_step)
        watch = asyncio.create_task(watched(trainer, job))
        await asyncio.sleep(0.5)
        assert not watch.done()
        stop.set()
        events = await asyncio.wait_for(watch, 10)
    assert not ended(events[0].training_job)
    assert events[-1].metrics.step == 1


async def test_a_watcher_that_leaves_does_not_end_the_job(trainer: Any) -> None:
    job = await create(trainer, script.WAIT)
    call = trainer.WatchTrainingJob(v1.WatchTrainingJobRequest(name=job.name))
    await call.read()
    call.cancel()
    assert (await until(trainer, job, at_first_step)).state == v1.TrainingJob.STATE_RUNNING


# Failures


async def test_what_the_worker_refuses_is_the_error_of_the_job(trainer: Any) -> None:
    job = await until(trainer, await create(trainer, script.REFUSE), ended)
    assert job.state == v1.TrainingJob.STATE_FAILED
    assert (job.error.code, job.error.message) == (9, "rows are too long")
    info = error_info(job)
    assert (info.reason, info.domain, dict(info.metadata)) == ("EXAMPLE_TOO_LONG", "tunix-rt", {"count": "2"})
    assert not job.checkpoint
    assert job.HasField("end_time")


async def test_a_worker_that_is_killed_each_time_fails_its_job_with_its_last_output(
    trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "_MOST_DEATHS", 3)
    job = await until(trainer, await create(trainer, script.DIE), ended)
    assert job.state == v1.TrainingJob.STATE_FAILED
    assert job.attempt_count == 3
    assert "SIGKILL" in job.error.message
    assert "memory" in job.error.message
    assert "3 times in a row without a new step" in job.error.message
    info = error_info(job)
    assert info.reason == "WORKER_DIED"
    assert "about to train" in info.metadata["log_tail"]
    assert job.latest_metrics.step == 1


async def test_the_job_of_a_worker_that_was_killed_goes_on_in_another(
    trainer: Any, settings: TrainerSettings
) -> None:
    job = await until(trainer, await create(trainer, script.WAIT_ONCE), at_first_step)
    following = await create(trainer)
    os.kill(worker_pid(settings, job), signal.SIGKILL)
    job = await until(trainer, job, ended)
    assert (job.state, job.attempt_count) == (v1.TrainingJob.STATE_SUCCEEDED, 2)
    assert (await until(trainer, following, ended)).state == v1.TrainingJob.STATE_SUCCEEDED


async def test_a_worker_that_the_system_kills_for_memory_fails_its_job_at_once(
    trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = itertools.count()
    monkeypatch.setattr(attempt, "processes_killed_for_memory", lambda: next(counts))
    job = await until(trainer, await create(trainer, script.DIE), ended)
    assert (job.state, job.attempt_count) == (v1.TrainingJob.STATE_FAILED, 1)
    assert error_info(job).reason == "OUT_OF_MEMORY"
    assert "8 rows of 256 tokens at a time; a smaller rows_per_batch" in job.error.message


async def test_the_job_of_a_worker_that_hangs_goes_on_in_another(
    trainer: Any, settings: TrainerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "_HUNG_S", 5.0)
    job = await until(trainer, await create(trainer, script.WAIT_ONCE), at_first_step)
    os.kill(worker_pid(settings, job), signal.SIGSTOP)
    job = await until(trainer, job, ended)
    assert (job.state, job.attempt_count) == (v1.TrainingJob.STATE_SUCCEEDED, 2)


async def test_a_worker_that_exits_or_raises_fails_its_job_with_its_last_output(trainer: Any) -> None:
    crashed, broken = await create(trainer, script.CRASH), await create(trainer, script.BUG)
    crashed = await until(trainer, crashed, ended)
    assert "exit code 7" in crashed.error.message
    assert "the end is near" in crashed.error.message
    broken = await until(trainer, broken, ended)
    assert (broken.error.code, error_info(broken).reason) == (13, "WORKER_FAILED")
    assert "no such luck" in broken.error.message
    assert "Traceback" in error_info(broken).metadata["log_tail"]


def damage(settings: TrainerSettings, exporter: tuple[FakeExporter, str]) -> Path:
    """Change the bytes of the training split and return their file."""
    digest = exporter[0].datasets["datasets/sums@1"].splits[0].files[1].file.digest.removeprefix("sha256:")
    path = settings.data_dir / "artifacts" / "sha256" / digest[:2] / digest
    path.write_bytes(b"else")
    return path


async def test_data_that_is_damaged_in_the_artifact_store_is_refused(
    trainer: Any, settings: TrainerSettings, exporter: tuple[FakeExporter, str]
) -> None:
    path = damage(settings, exporter)
    error = await refused(create(trainer))
    assert (error.code, error.reason) == ("DATA_LOSS", "ARTIFACT_CORRUPT")
    assert path.name in error.message


async def test_data_that_is_damaged_while_a_job_waits_fails_the_job(
    trainer: Any, settings: TrainerSettings, exporter: tuple[FakeExporter, str]
) -> None:
    first = await until(trainer, await create(trainer, script.WAIT), at_first_step)
    second = await create(trainer)
    damage(settings, exporter)
    await trainer.CancelTrainingJob(v1.CancelTrainingJobRequest(name=first.name))
    job = await until(trainer, second, ended)
    assert job.state == v1.TrainingJob.STATE_FAILED
    assert error_info(job).reason == "ARTIFACT_CORRUPT"


# Cancel


async def test_a_running_job_stops_at_its_next_step_and_keeps_its_checkpoint(trainer: Any) -> None:
    job = await until(trainer, await create(trainer, script.WAIT), at_first_step)
    cancelled = await trainer.CancelTrainingJob(v1.CancelTrainingJobRequest(name=job.name))
    assert cancelled.state in (v1.TrainingJob.STATE_CANCELLING, v1.TrainingJob.STATE_CANCELLED)
    job = await until(trainer, job, ended)
    assert job.state == v1.TrainingJob.STATE_CANCELLED
    assert job.checkpoint == f"{job.name}/checkpoints/1"
    assert not job.HasField("error")
    assert await trainer.CancelTrainingJob(v1.CancelTrainingJobRequest(name=job.name)) == job


async def test_a_second_cancel_ends_a_worker_that_does_not_listen(
    trainer: Any, settings: TrainerSettings
) -> None:
    job = await until(trainer, await create(trainer, script.DEAF), at_first_step)
    pid = worker_pid(settings, job)
    await trainer.CancelTrainingJob(v1.CancelTrainingJobRequest(name=job.name))
    await asyncio.sleep(0.5)
    assert (await get(trainer, job)).state == v1.TrainingJob.STATE_CANCELLING
    assert alive(pid)
    await trainer.CancelTrainingJob(v1.CancelTrainingJobRequest(name=job.name))
    assert (await until(trainer, job, ended)).state == v1.TrainingJob.STATE_CANCELLED
    assert not alive(pid)


async def test_a_queued_job_is_cancelled_at_once_and_never_starts(trainer: Any) -> None:
    first = await until(trainer, await create(trainer, script.WAIT), at_first_step)
    second = await create(trainer)
    cancelled = await trainer.CancelTrainingJob(v1.CancelTrainingJobRequest(name=second.name))
    assert cancelled.state == v1.TrainingJob.STATE_CANCELLED
    await trainer.CancelTrainingJob(v1.CancelTrainingJobRequest(name=first.name))
    third = await until(trainer, await create(trainer), ended)
    assert third.state == v1.TrainingJob.STATE_SUCCEEDED
    assert (await get(trainer, second)).attempt_count == 0


# Restart


async def test_a_stopped_server_ends_its_workers_and_the_next_one_starts_them_again(
    settings: TrainerSettings,
) -> None:
    async with running(settings) as trainer:
        job = await until(trainer, await create(trainer, script.WAIT_ONCE), at_first_step)
        waiting = await create(trainer)
        pid = worker_pid(settings, job)
        assert alive(pid)
    assert not alive(pid)
    async with running(settings) as trainer:
        job = await until(trainer, job, ended)
        assert (job.state, job.attempt_count) == (v1.TrainingJob.STATE_SUCCEEDED, 2)
        assert [attempt.number for attempt in job.attempts] == [1, 2]
        assert job.start_time == job.attempts[1].start_time
        assert (await until(trainer, waiting, ended)).attempt_count == 1
        lines = [event for event in await watched(trainer, job) if not event.HasField("training_job")]
        assert [event.event for event in lines] == list(range(1, 9))
        assert [line.log_line for line in lines if line.log_line] == [
            "attempt 1 of datasets/sums@1",
            "attempt 2 of datasets/sums@1",
        ]


async def test_a_cancel_that_a_stopped_server_did_not_finish_holds(settings: TrainerSettings) -> None:
    async with running(settings) as trainer:
        job = await until(trainer, await create(trainer, script.DEAF), at_first_step)
        await trainer.CancelTrainingJob(v1.CancelTrainingJobRequest(name=job.name))
    async with running(settings) as trainer:
        assert (await get(trainer, job)).state == v1.TrainingJob.STATE_CANCELLED


# Checkpoints


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

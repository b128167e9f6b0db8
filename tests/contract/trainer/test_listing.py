"""Base models and jobs by pages, on both databases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from support.serving import fields, refused
from support.trainer_jobs import create, get, watched
from tunix_rt import v1
from tunix_rt_kit.chat import ChatTemplate


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


async def test_a_base_model_is_found_by_its_id_and_by_its_folder(trainer: Any, tmp_path: Path) -> None:
    listed = (await trainer.ListBaseModels(v1.ListBaseModelsRequest())).base_models
    by_id = await trainer.GetBaseModel(v1.GetBaseModelRequest(base_model="tiny"))
    assert by_id == listed[1]
    assert list(by_id.special_tokens) == ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    folder = str(tmp_path / "models" / "tiny")
    by_folder = await trainer.GetBaseModel(v1.GetBaseModelRequest(base_model=folder))
    assert by_folder.base_model == folder
    assert (by_folder.chat_template, by_folder.tokenizer_file) == (by_id.chat_template, by_id.tokenizer_file)
    absent = await trainer.GetBaseModel(v1.GetBaseModelRequest(base_model="smollm2-135m-instruct"))
    assert (absent.available, len(absent.special_tokens)) == (False, 0)
    for unknown in ("", "nothing", str(tmp_path / "nowhere")):
        error = await refused(trainer.GetBaseModel(v1.GetBaseModelRequest(base_model=unknown)))
        assert (error.code, error.reason) == ("NOT_FOUND", "BASE_MODEL_UNKNOWN")


async def test_base_models_come_by_pages(trainer: Any) -> None:
    first = await trainer.ListBaseModels(v1.ListBaseModelsRequest(page_size=1))
    second = await trainer.ListBaseModels(
        v1.ListBaseModelsRequest(page_size=1, page_token=first.next_page_token)
    )
    assert [page.base_models[0].base_model for page in (first, second)] == ["smollm2-135m-instruct", "tiny"]
    assert not second.next_page_token


async def test_base_models_are_filtered_and_ordered(trainer: Any) -> None:
    async def listed(order_by: str = "", **conditions: Any) -> list[str]:
        found: list[str] = []
        wanted = v1.BaseModelFilter(**conditions)
        request = v1.ListBaseModelsRequest(filter=wanted, order_by=order_by, page_size=1)
        while True:
            page = await trainer.ListBaseModels(request)
            found += [model.base_model for model in page.base_models]
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token

    far, tiny = "smollm2-135m-instruct", "tiny"
    assert await listed("family") == await listed("available, name") == [far, tiny]
    assert await listed("name desc") == await listed("parameter_count desc") == [tiny, far]
    assert await listed("family desc") == [tiny, far]
    assert await listed(name_contains="TIN") == await listed(available=True) == [tiny]
    assert await listed(available=False) == [far]
    assert await listed(families=["llama", "x"], name_contains="") == [far, tiny]
    assert await listed(families=["x"]) == []
    wrong = await refused(trainer.ListBaseModels(v1.ListBaseModelsRequest(order_by="path")))
    assert (wrong.reason, fields(wrong)) == ("ORDER_BY_INVALID", ["order_by"])
    wrong = await refused(listed(families=[""]))
    assert (wrong.reason, fields(wrong)) == ("FILTER_INVALID", ["filter.families[0]"])


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

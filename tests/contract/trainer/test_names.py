"""What people call training jobs, and lists of jobs by it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from support.serving import fields, refused
from support.trainer_jobs import create, ended, get, until
from tunix_rt import v1

SPEC = v1.TrainingSpec(base_model="tiny", dataset="datasets/sums@1")


async def named(trainer: Any, name: str, *tags: str, note: str = "", request_id: str = "") -> v1.TrainingJob:
    return await trainer.CreateTrainingJob(
        v1.CreateTrainingJobRequest(spec=SPEC, display_name=name, tags=tags, note=note, request_id=request_id)
    )


async def update(trainer: Any, name: str, *paths: str, **labels: Any) -> v1.TrainingJob:
    request = v1.UpdateTrainingJobRequest(
        training_job=v1.TrainingJob(name=name, **labels), update_mask=FieldMask(paths=paths)
    )
    return await trainer.UpdateTrainingJob(request)


async def retag(
    trainer: Any,
    job: v1.TrainingJob,
    add_tags: Sequence[str] = (),
    remove_tags: Sequence[str] = (),
    paths: Sequence[str] = (),
    **labels: Any,
) -> v1.TrainingJob:
    request = v1.UpdateTrainingJobRequest(
        training_job=v1.TrainingJob(name=job.name, **labels),
        update_mask=FieldMask(paths=paths),
        add_tags=add_tags,
        remove_tags=remove_tags,
    )
    return await trainer.UpdateTrainingJob(request)


async def listed(trainer: Any, order_by: str = "", **conditions: Any) -> list[str]:
    request = v1.ListTrainingJobsRequest(filter=v1.TrainingJobFilter(**conditions), order_by=order_by)
    return [job.display_name for job in (await trainer.ListTrainingJobs(request)).training_jobs]


async def test_a_job_is_renamed_while_it_runs_and_nothing_else_changes(trainer: Any) -> None:
    job = await named(trainer, "first try", "sweep", "lr 1e-3", note="two\nlines")
    assert (job.display_name, list(job.tags), job.note) == ("first try", ["sweep", "lr 1e-3"], "two\nlines")
    renamed = await update(trainer, job.name, display_name="best so far")
    assert (renamed.display_name, list(renamed.tags), renamed.note) == (
        "best so far",
        ["sweep", "lr 1e-3"],
        "two\nlines",
    )
    assert (renamed.spec, renamed.create_time) == (job.spec, job.create_time)
    done = await until(trainer, job, ended)
    cleared = await update(trainer, job.name, "tags", "note", display_name="not in the mask")
    assert (cleared.display_name, list(cleared.tags), cleared.note) == ("best so far", [], "")
    assert await update(trainer, job.name, "*", tags=["kept"]) == await get(trainer, job)
    last = await get(trainer, job)
    assert (last.display_name, list(last.tags), last.note) == ("", ["kept"], "")
    last.ClearField("tags")
    done.ClearField("tags")
    done.ClearField("display_name")
    done.ClearField("note")
    assert last == done


@pytest.mark.one_database
async def test_only_names_tags_and_notes_can_change(trainer: Any) -> None:
    job = await named(trainer, "x")
    for paths, wrong in (
        (["spec.seed"], "update_mask.paths[0]"),
        (["note", "state"], "update_mask.paths[1]"),
        ([], "update_mask"),
    ):
        error = await refused(update(trainer, job.name, *paths))
        assert (error.code, error.reason, fields(error)) == (
            "INVALID_ARGUMENT",
            "UPDATE_MASK_INVALID",
            [wrong],
        )
    unknown = await refused(update(trainer, "trainingJobs/none", display_name="y"))
    assert (unknown.code, unknown.reason) == ("NOT_FOUND", "TRAINING_JOB_NOT_FOUND")
    malformed = await refused(update(trainer, "jobs/none", display_name="y"))
    assert (malformed.reason, fields(malformed)) == ("RESOURCE_NAME_INVALID", ["training_job.name"])


@pytest.mark.one_database
async def test_every_wrong_label_is_named_and_nothing_is_made(trainer: Any) -> None:
    tags = ["a", "b,c", "", "a", " d", "e\n", "f" * 65]
    error = await refused(named(trainer, "n" * 10_000, *tags, note="\0"))
    assert (error.code, error.reason) == ("INVALID_ARGUMENT", "LABELS_INVALID")
    assert fields(error) == [
        "display_name",
        "tags[1]",
        "tags[2]",
        "tags[4]",
        "tags[5]",
        "tags[6]",
        "note",
    ]
    assert "has 10,000 characters; at most 200 would be right" in error.message
    for name, wrong in (
        ("a\nb", "display_name"),
        ("a\x1b[31m", "display_name"),
        (" ", "display_name"),
        ("\u200b", "display_name"),
    ):
        assert fields(await refused(named(trainer, name))) == [wrong]
    twice = await refused(named(trainer, "", "a", "b", "a"))
    assert fields(twice) == ["tags[2]"]
    many = await refused(named(trainer, "", *map(str, range(1_000))))
    assert fields(many) == ["tags"]
    assert "at most 50" in many.message
    assert await listed(trainer) == []
    job = await named(trainer, "x")
    changed = await refused(update(trainer, job.name, display_name="n" * 201))
    assert fields(changed) == ["training_job.display_name"]


async def test_no_tag_is_lost_where_many_change_them_at_once(trainer: Any) -> None:
    job = await named(trainer, "", "old", "kept")
    await asyncio.gather(*(retag(trainer, job, add_tags=[f"t{n}"]) for n in range(12)))
    await asyncio.gather(
        retag(trainer, job, remove_tags=["old", "never there"], display_name="renamed"),
        *(retag(trainer, job, remove_tags=[f"t{n}"]) for n in range(6)),
        *(retag(trainer, job, add_tags=["kept", f"u{n}"]) for n in range(6)),
    )
    found = await get(trainer, job)
    assert sorted(found.tags) == sorted(
        ["kept", *(f"t{n}" for n in range(6, 12)), *(f"u{n}" for n in range(6))]
    )
    assert found.display_name == "renamed"


@pytest.mark.one_database
async def test_wrong_changes_of_tags_are_refused(trainer: Any) -> None:
    job = await named(trainer, "", "a")
    for changes, reason, wrong in (
        ({"add_tags": ["b", "c,d"]}, "LABELS_INVALID", ["add_tags[1]"]),
        ({"add_tags": ["b"], "remove_tags": ["b"]}, "LABELS_INVALID", ["add_tags[0]"]),
        ({"add_tags": [str(n) for n in range(50)]}, "LABELS_INVALID", ["add_tags"]),
        ({"add_tags": ["b"], "tags": ["c"]}, "UPDATE_MASK_INVALID", ["add_tags"]),
        ({"remove_tags": ["a"], "paths": ["*"]}, "UPDATE_MASK_INVALID", ["remove_tags"]),
    ):
        error = await refused(retag(trainer, job, **changes))
        assert (error.code, error.reason, fields(error)) == ("INVALID_ARGUMENT", reason, wrong)
    assert list((await get(trainer, job)).tags) == ["a"]
    missing = await refused(retag(trainer, v1.TrainingJob(name="trainingJobs/none"), add_tags=["b"]))
    assert (missing.code, missing.reason) == ("NOT_FOUND", "TRAINING_JOB_NOT_FOUND")


@pytest.mark.one_database
async def test_a_name_that_reads_as_an_id_is_refused_where_it_is_given(trainer: Any) -> None:
    for name in (
        "0" * 32,
        "01890a5d-ac96-774b-bcce-b302099a8057",
        "trainingJobs/x",
        "baseModels/x",
        "a/checkpoints/b",
    ):
        error = await refused(named(trainer, name))
        assert (error.code, error.reason, fields(error)) == (
            "INVALID_ARGUMENT",
            "LABELS_INVALID",
            ["display_name"],
        )
    assert await listed(trainer) == []
    job = await named(trainer, "lr/1e-3")
    changed = await refused(update(trainer, job.name, display_name="a" * 32))
    assert fields(changed) == ["training_job.display_name"]


@pytest.mark.one_database
async def test_the_same_request_with_another_name_is_another_request(trainer: Any) -> None:
    plain = await named(trainer, "", request_id="plain")
    assert (await create(trainer, 0, request_id="plain", seed=0)).name == plain.name
    first = await named(trainer, "one", "t", request_id="r")
    await update(trainer, first.name, display_name="renamed since")
    again = await named(trainer, "one", "t", request_id="r")
    assert (again.name, again.display_name) == (first.name, "renamed since")
    for other in (named(trainer, "two", "t", request_id="r"), named(trainer, "one", request_id="r")):
        assert (await refused(other)).reason == "REQUEST_ID_REUSED"


async def test_lists_are_filtered_and_ordered(trainer: Any) -> None:
    start = Timestamp()
    start.GetCurrentTime()
    jobs = [
        await named(trainer, name, *tags, note=f"Note {name}")
        for name, *tags in (("beta", "x"), ("Alpha", "x", "y"), ("ÄRGER", "y"), ("", "X"))
    ]
    assert await listed(trainer) == ["", "ÄRGER", "Alpha", "beta"]
    assert await listed(trainer, "display_name") == ["", "Alpha", "beta", "ÄRGER"]
    assert await listed(trainer, " create_time ") == ["beta", "Alpha", "ÄRGER", ""]
    assert await listed(trainer, "dataset,display_name  desc") == ["ÄRGER", "beta", "Alpha", ""]
    assert await listed(trainer, tags=["x"]) == ["Alpha", "beta"]
    assert await listed(trainer, tags=["x", "y"]) == ["Alpha"]
    assert await listed(trainer, display_name_contains="ärg") == ["ÄRGER"]
    assert await listed(trainer, note_contains="NOTE b") == ["beta"]
    assert await listed(trainer, base_models=["tiny", "other"], tags=["y"]) == ["ÄRGER", "Alpha"]
    assert await listed(trainer, base_models=["other"]) == []
    assert len(await listed(trainer, datasets=["datasets/sums@1"])) == 4
    assert len(await listed(trainer, datasets=["datasets/sums"])) == 4
    assert await listed(trainer, datasets=["datasets/sum"]) == []
    assert await listed(trainer, datasets=["datasets/sums@2"]) == []
    assert await listed(trainer, created_before=start) == []
    assert len(await listed(trainer, created_from=start)) == 4
    never = await named(trainer, "never began")
    await trainer.CancelTrainingJob(v1.CancelTrainingJobRequest(name=never.name))
    assert not (await until(trainer, never, ended)).HasField("latest_metrics")
    for job in jobs:
        await until(trainer, job, ended)
    # Losses are the same in all four.
    assert await listed(trainer, "loss, display_name") == ["", "Alpha", "beta", "ÄRGER", "never began"]
    assert (await listed(trainer, "loss desc"))[0] == "never began"
    succeeded = [v1.TrainingJob.STATE_SUCCEEDED]
    assert len(await listed(trainer, states=[*succeeded, v1.TrainingJob.STATE_FAILED])) == 4
    assert await listed(trainer, states=[v1.TrainingJob.STATE_QUEUED]) == []


@pytest.mark.one_database
async def test_wrong_filters_orders_and_tokens_are_refused(trainer: Any) -> None:
    for wrong, field in (
        ({"states": [0]}, "filter.states[0]"),
        ({"states": [17]}, "filter.states[0]"),
        ({"tags": ["a", ""]}, "filter.tags[1]"),
        ({"datasets": ["x"] * 101}, "filter.datasets"),
        ({"note_contains": "a\0"}, "filter.note_contains"),
        ({"display_name_contains": "x" * 1_001}, "filter.display_name_contains"),
        ({"created_from": Timestamp(seconds=1 << 60)}, "filter.created_from"),
    ):
        error = await refused(listed(trainer, **wrong))
        assert (error.reason, fields(error)) == ("FILTER_INVALID", [field])
    for order in ("color", "create_time down", "create_time,", "state, state desc", "create_time desc desc"):
        error = await refused(listed(trainer, order))
        assert (error.reason, fields(error)) == ("ORDER_BY_INVALID", ["order_by"])
    for name in "ab":
        await named(trainer, name, "t")
    ask = v1.ListTrainingJobsRequest(page_size=1, order_by="display_name")
    ask.filter.tags.append("t")
    page = await trainer.ListTrainingJobs(ask)
    ask.page_token = page.next_page_token
    second = await trainer.ListTrainingJobs(ask)
    assert [job.display_name for job in (*page.training_jobs, *second.training_jobs)] == ["a", "b"]
    for change in ({"order_by": "display_name desc"}, {"filter": v1.TrainingJobFilter()}):
        other = v1.ListTrainingJobsRequest()
        other.CopyFrom(ask)
        other.MergeFrom(v1.ListTrainingJobsRequest(order_by=change.get("order_by", "")))
        if "filter" in change:
            other.ClearField("filter")
        assert (await refused(trainer.ListTrainingJobs(other))).reason == "PAGE_TOKEN_INVALID"

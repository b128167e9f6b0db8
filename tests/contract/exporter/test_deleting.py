"""Datasets that are deleted: what is refused, what stays on record, and what their names mean afterwards."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from support.exporting import ALL_TRAIN, Exporting, failure
from support.serving import refused
from support.traces import trace
from tunix_rt import v1

STATE = v1.Dataset.State


def delete(world: Exporting, name: str, *, force: bool = False) -> Any:
    return world.exporter.DeleteDataset(v1.DeleteDatasetRequest(name=name, force=force))


async def names(world: Exporting, *, show_deleted: bool = False) -> list[str]:
    request = v1.ListDatasetsRequest(show_deleted=show_deleted)
    return [dataset.name for dataset in (await world.exporter.ListDatasets(request)).datasets]


async def test_a_deleted_dataset_stays_on_record_and_cannot_be_used(world: Exporting) -> None:
    await world.add([trace(i) for i in range(4)])
    built = await world.build(splits=ALL_TRAIN)
    deleted = await delete(world, built.name)
    assert deleted.HasField("delete_time")
    assert await world.exporter.GetDataset(v1.GetDatasetRequest(name=built.name)) == deleted
    deleted.ClearField("delete_time")
    assert deleted == built
    assert await names(world) == []
    assert await names(world, show_deleted=True) == [built.name]
    error = await refused(world.read(built.name))
    assert (error.code, error.reason) == ("NOT_FOUND", "DATASET_NOT_FOUND")
    assert "was deleted at" in error.message
    error = await refused(world.create("child", splits=ALL_TRAIN, parent=built.name))
    assert (error.code, error.reason) == ("NOT_FOUND", "DATASET_NOT_FOUND")


async def test_what_is_not_there_or_deleted_already_is_not_found(world: Exporting) -> None:
    await world.add([trace(1)])
    built = await world.build(splits=ALL_TRAIN)
    assert (await refused(delete(world, "datasets/none@1"))).reason == "DATASET_NOT_FOUND"
    both = await asyncio.gather(delete(world, built.name), delete(world, built.name), return_exceptions=True)
    assert sorted(isinstance(outcome, Exception) for outcome in both) == [False, True]
    error = await refused(delete(world, built.name, force=True))
    assert (error.code, error.reason) == ("NOT_FOUND", "DATASET_NOT_FOUND")


async def test_what_others_were_derived_from_is_deleted_by_force_alone(world: Exporting) -> None:
    await world.add([trace(i) for i in range(8)])
    parent = await world.build(splits=ALL_TRAIN)
    children = [
        await world.build(f"child-{i}", splits=ALL_TRAIN, parent=parent.name, seed=0) for i in range(6)
    ]
    error = await refused(delete(world, parent.name))
    assert (error.code, error.reason) == ("FAILED_PRECONDITION", "DATASET_IN_USE")
    assert "datasets/child-0@1" in error.message
    assert "and 1 more: delete those first" in error.message
    assert error.metadata["count"] == "6"
    derived = v1.ListDatasetsRequest(filter=v1.DatasetFilter(parents=["datasets/none@1", parent.name]))
    found = (await world.exporter.ListDatasets(derived)).datasets
    assert [entry.name for entry in found] == [child.name for child in reversed(children)]
    derived.filter.parents[:] = ["datasets/d"]
    assert not (await world.exporter.ListDatasets(derived)).datasets
    await delete(world, children[0].name)
    assert (await refused(delete(world, parent.name))).metadata["count"] == "5"
    assert (await delete(world, parent.name, force=True)).HasField("delete_time")
    assert (await world.read(children[1].name)).count(b"\n") == 8


async def test_what_is_built_is_not_deleted_even_by_force(
    world: Exporting, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.add([trace(i) for i in range(4)])
    parent = await world.build(splits=ALL_TRAIN)
    # No build begins.
    monkeypatch.setattr("tunix_rt_kit.jobs.engine.JobEngine._has_room", lambda *_: False)
    child = await world.create("child", splits=ALL_TRAIN, parent=parent.name)
    error = await refused(delete(world, child.name, force=True))
    assert (error.code, error.reason) == ("FAILED_PRECONDITION", "DATASET_RUNNING")
    assert "tunix-rt dataset cancel child@1" in error.message
    error = await refused(delete(world, parent.name, force=True))
    assert (error.reason, "cancel those first" in error.message) == ("DATASET_IN_USE", True)


async def test_of_a_parent_deleted_while_a_child_is_asked_for_one_is_refused(world: Exporting) -> None:
    await world.add([trace(i) for i in range(4)])
    for number in range(5):
        parent = await world.build(f"parent-{number}", splits=ALL_TRAIN)
        outcomes = await asyncio.gather(
            delete(world, parent.name),
            world.create(f"child-{number}", splits=ALL_TRAIN, parent=parent.name),
            return_exceptions=True,
        )
        assert any(isinstance(outcome, Exception) for outcome in outcomes)


async def test_a_name_is_never_given_to_another_content(world: Exporting) -> None:
    await world.add([trace(i) for i in range(4)])
    built = await world.build(splits=ALL_TRAIN)
    await delete(world, built.name)
    error = await refused(world.create(splits=ALL_TRAIN, seed=3))
    assert (error.code, error.reason) == ("ALREADY_EXISTS", "DATASET_VERSION_BOUND")
    again = await world.build(splits=ALL_TRAIN)
    assert (again.state, again.digest) == (STATE.STATE_SUCCEEDED, built.digest)
    assert not again.HasField("delete_time")
    assert await names(world) == [built.name]
    assert (await world.read(built.name)).count(b"\n") == 4


async def test_a_dataset_built_again_must_have_its_digest(
    world: Exporting, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.add([trace(i) for i in range(4)])
    built = await world.build(splits=ALL_TRAIN)
    await delete(world, built.name)
    with monkeypatch.context() as patch:
        # As if another version wrote the manifest otherwise.
        patch.setattr("tunix_rt_exporter.datasets.build.manifest", lambda *_, **__: {"version": "next"})
        again = await world.build(splits=ALL_TRAIN)
    assert (again.state, failure(again)[0]) == (STATE.STATE_FAILED, "DATASET_VERSION_BOUND")
    assert built.digest in failure(again)[1]
    error = await refused(world.create(splits=ALL_TRAIN, seed=3))
    assert error.reason == "DATASET_VERSION_BOUND"
    assert (await world.build(splits=ALL_TRAIN)).digest == built.digest


async def test_one_that_failed_can_be_deleted_and_leaves_its_name_free(world: Exporting) -> None:
    await world.add([trace(1)])
    failed = await world.build(filter=v1.TraceFilter(sources=["none"]), splits=ALL_TRAIN)
    assert failed.state == STATE.STATE_FAILED
    await delete(world, failed.name)
    assert (await world.build(splits=ALL_TRAIN)).state == STATE.STATE_SUCCEEDED

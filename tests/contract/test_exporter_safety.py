"""Duplicates, leaks and lineage of datasets over a real channel, on both databases."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from support.exporting import Exporting, exporting
from support.serving import fields, refused
from support.startup.checked_documents import check
from support.traces import step, trace
from tunix_rt import v1

pytestmark = pytest.mark.one_database

STATE = v1.Dataset.State
ALL_TRAIN = [v1.SplitFraction(split="train", fraction=1.0)]


@pytest.fixture
async def world(database_url: str, tmp_path: Path) -> AsyncIterator[Exporting]:
    async with exporting(tmp_path, database_url) as opened:
        yield opened


def rows(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in data.splitlines()]


QUESTION = (
    "Maya and Ben bake 24 muffins for the school fair. They sell 15 of them in the morning and half of the "
    "rest at noon. How many muffins are left?"
)


async def dropped_rows(world: Exporting, name: str, offset: int = 0) -> bytes:
    request = v1.ReadDroppedRowsRequest(name=name, offset=offset)
    parts = [part async for part in world.exporter.ReadDroppedRows(request)]
    data = b"".join(part.chunk for part in parts[1:])
    assert parts[0].header.size_bytes == offset + len(data)
    return data


async def audited(world: Exporting, name: str, eval_set: str, **rule: int) -> list[Any]:
    request = v1.AuditContaminationRequest(
        name=name, eval_set=eval_set, decontamination=v1.Decontamination(**rule)
    )
    return [part async for part in world.exporter.AuditContamination(request)]


async def test_what_was_left_out_can_be_read(world: Exporting) -> None:
    world.eval_sets.known["evalSets/a"] = [QUESTION]
    await world.add([trace(i) for i in range(20)])
    await world.add([trace(3, source="copy", metadata={"n": 1}), trace(50, prompt=f"Please: {QUESTION}")])
    await world.add([trace(51, final_answer="<end_of_turn>")])
    dataset = await world.build(eval_sets=["evalSets/a"])
    stages = ["contaminated", "unrenderable", "duplicate"]
    assert sorted((d.stage, d.row_count) for d in dataset.dropped) == sorted((stage, 1) for stage in stages)
    data = await dropped_rows(world, dataset.name)
    lines = {line["stage"]: line for line in rows(data)}
    for line in lines.values():
        check(line, ["dropped-row-line"])
    assert lines["unrenderable"]["control_text"] == "<end_of_turn>"
    leaked, copy = lines["contaminated"], lines["duplicate"]
    assert (leaked["stage"], leaked["eval_set"], leaked["eval_item"]) == (
        "contaminated",
        "evalSets/a",
        "item-0",
    )
    assert (leaked["match"], len(leaked["matched_text"].split())) == ("ngram", 13)
    assert copy["stage"] == "duplicate"
    whole = b"".join([await world.read(dataset.name, s.split) for s in dataset.splits])
    assert copy["kept"] in whole.decode()
    assert copy["id"] not in whole.decode()
    assert await dropped_rows(world, dataset.name, 10) == data[10:]
    assert dataset.dropped_rows.digest == "sha256:" + hashlib.sha256(data).hexdigest()
    error = await refused(dropped_rows(world, dataset.name, len(data) + 1))
    assert (error.reason, fields(error)) == ("OFFSET_INVALID", ["offset"])
    clean = await world.build("clean", filter=v1.TraceFilter(prompt_contains="What is 7"))
    assert await dropped_rows(world, clean.name) == b""


async def test_an_audit_finds_what_a_later_eval_set_makes_a_leak(world: Exporting) -> None:
    await world.add([*(trace(i) for i in range(300)), trace(900, prompt=f"Please: {QUESTION}")])
    dataset = await world.build()
    world.eval_sets.known["evalSets/late"] = [QUESTION, "What is 7 + 1?"]
    parts = await audited(world, dataset.name, "evalSets/late")
    found = {row.eval_item: row for part in parts for row in part.rows}
    assert set(found) == {"item-0", "item-1"}
    assert found["item-0"].match == v1.ContaminatedRow.MATCH_NGRAM
    assert found["item-1"].match == v1.ContaminatedRow.MATCH_EXACT
    split = await world.read(dataset.name, found["item-0"].split)
    (leaked,) = [row for row in rows(split) if row["id"] == found["item-0"].row_id]
    assert leaked["prompts"].endswith(QUESTION)
    assert {part.total_row_count for part in parts} == {301}
    assert parts[-1].compared_row_count == 301
    exact = await audited(world, dataset.name, "evalSets/late", ngram_words=0)
    assert [row.eval_item for part in exact for row in part.rows] == ["item-1"]
    rebuilt = await world.build(version="2", eval_sets=["evalSets/late"])
    assert not [r for part in await audited(world, rebuilt.name, "evalSets/late") for r in part.rows]


async def test_bad_audits(world: Exporting) -> None:
    await world.add([trace(0)])
    dataset = await world.build(splits=ALL_TRAIN)
    name = dataset.name
    world.eval_sets.known["evalSets/a"] = ["x"]
    for call, reason, field in (
        (audited(world, name, "a"), "RESOURCE_NAME_INVALID", ["eval_set"]),
        (audited(world, name, "evalSets/b"), "EVAL_SET_NOT_FOUND", ["eval_set"]),
        (audited(world, "datasets/x@1", "evalSets/a"), "DATASET_NOT_FOUND", []),
        (
            audited(world, name, "evalSets/a", ngram_words=3),
            "DECONTAMINATION_INVALID",
            ["decontamination.ngram_words"],
        ),
    ):
        error = await refused(call)
        assert (error.reason, fields(error)) == (reason, field)
    path = Path(
        (await world.exporter.GetDataset(v1.GetDatasetRequest(name=name))).splits[0].files[0].file.uri[7:]
    )
    path.write_bytes(path.read_bytes().replace(b"What", b"Thus"))
    error = await refused(audited(world, name, "evalSets/a"))
    assert (error.reason, path.name in error.message) == ("ARTIFACT_CORRUPT", True)


async def test_a_derived_dataset_keeps_the_rows_of_its_parent(world: Exporting) -> None:
    near = v1.Deduplication(method=v1.Deduplication.METHOD_NEAR, threshold=0.6)
    alike = [
        trace(prompt=QUESTION.replace("24", str(30 + i)), steps=[step(0)], final_answer="7")
        for i in range(40)
    ]
    await world.add(alike[:6])
    first = await world.build("base", deduplication=near, splits=ALL_TRAIN)
    assert first.splits[0].row_count == 1
    (kept,) = rows(await world.read(first.name))
    await world.add(alike[6:])
    derived = await world.build("derived", deduplication=near, splits=ALL_TRAIN, parent=first.name)
    assert derived.state == STATE.STATE_SUCCEEDED
    assert (derived.spec.parent, derived.parent_digest) == (first.name, first.digest)
    assert [row["id"] for row in rows(await world.read(derived.name))] == [kept["id"]]
    for change, reason, field in (
        ({"parent": "datasets/none@1"}, "DATASET_NOT_FOUND", "spec.parent"),
        ({"parent": "base"}, "SPEC_INVALID", "spec.parent"),
        ({"parent": first.name, "seed": 5}, "PARENT_SPLITS_DIFFER", "spec.seed"),
        ({"parent": first.name, "splits": []}, "PARENT_SPLITS_DIFFER", "spec.splits"),
    ):
        error = await refused(world.create("other", **{"splits": ALL_TRAIN, **change}))
        assert (error.reason, fields(error)) == (reason, [field]), change


async def test_a_resource_shows_what_it_was_made_by(world: Exporting) -> None:
    await world.add([trace(i) for i in range(9)])
    dataset = await world.build(
        split_group=v1.SplitGroup(metadata_field="number", near_duplicate_threshold=0.9),
        deduplication=v1.Deduplication(method=v1.Deduplication.METHOD_NEAR, threshold=0.75),
        decontamination=v1.Decontamination(ngram_words=0),
        splits=ALL_TRAIN,
    )
    assert dataset.spec.split_group.metadata_field == "number"
    assert dataset.spec.split_group.near_duplicate_threshold == 0.9
    assert dataset.spec.deduplication.threshold == 0.75
    assert (
        dataset.spec.decontamination.HasField("ngram_words"),
        dataset.spec.decontamination.ngram_words,
    ) == (True, 0)
    assert {"tunix-rt", "python", "numpy", "datasketch"} <= set(dataset.builder_versions)
    plain = await world.build("plain", splits=ALL_TRAIN)
    assert plain.spec.deduplication == v1.Deduplication(method=v1.Deduplication.METHOD_EXACT)
    assert plain.spec.split_group == v1.SplitGroup(prompt=True)
    assert plain.spec.decontamination.ngram_words == 13

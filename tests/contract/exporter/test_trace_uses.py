"""Which datasets hold a trace, or left it out and why."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import delete, insert, select, update

from support.exporting import ALL_TRAIN, Exporting, rows
from support.serving import fields, refused
from support.traces import step, trace
from tunix_rt import v1
from tunix_rt_exporter.tables import dataset_rows, datasets
from tunix_rt_kit.database import Database

LEAKED = "Tom buys seven red apples and three green pears; how much fruit does he own?"
HELD_OUT = [v1.SplitFraction(split="train", fraction=0.5), v1.SplitFraction(split="test", fraction=0.5)]


async def uses(world: Exporting, digest: str, **page: object) -> v1.ListTraceUsesResponse:
    request = v1.ListTraceUsesRequest(content_digest=digest, **page)  # type: ignore[arg-type]
    return await world.exporter.ListTraceUses(request)


async def digests(world: Exporting, *traces: v1.Trace) -> list[str]:
    return [result.content_digest for result in await world.add(traces)]


def forget_rows(world: Exporting) -> None:
    """Leave the database as an earlier version left it."""
    database = Database(world.settings.database)
    with database.write() as session:
        session.execute(delete(dataset_rows))
        session.execute(update(datasets).values(rows_indexed=False))
    database.close()


async def test_a_trace_is_found_in_each_dataset_by_split_and_line(world: Exporting) -> None:
    found = await digests(world, *(trace(i) for i in range(20)))
    await world.build("a", splits=HELD_OUT)
    await world.build("b", splits=ALL_TRAIN, filter=v1.TraceFilter(prompt_contains="1"))
    written = {
        (name, split): [row["id"] for row in rows(await world.read(f"datasets/{name}@1", split))]
        for name, split in [("a", "train"), ("a", "test"), ("b", "train")]
    }
    assert written["a", "train"] and written["a", "test"]
    for digest in found:
        row_id = digest.removeprefix("sha256:")
        expected = {
            (f"datasets/{name}@1", split, ids.index(row_id) + 1)
            for (name, split), ids in written.items()
            if row_id in ids
        }
        answer = await uses(world, digest)
        assert {(use.dataset, use.split, use.row_number) for use in answer.trace_uses} == expected
        names = [use.dataset for use in answer.trace_uses]
        assert names in (["datasets/b@1", "datasets/a@1"], ["datasets/a@1"])
        assert {(use.row_id, use.stage, use.reason) for use in answer.trace_uses} == {(row_id, "", "")}
        assert (await uses(world, row_id)).trace_uses == answer.trace_uses


@pytest.mark.one_database
async def test_what_was_left_out_says_why(world: Exporting) -> None:
    world.eval_sets.known["evalSets/exam"] = [LEAKED]
    *alike, leak, answer, unwritable, plain = await digests(
        world,
        trace(1, prompt="How many?"),
        trace(1, prompt="how  MANY?"),
        trace(2, prompt=LEAKED),
        trace(3, source="evaluation"),
        trace(4, steps=[step(0, content="<start_of_turn>")]),
        trace(5),
    )
    await world.build(splits=ALL_TRAIN, eval_sets=["evalSets/exam"])
    told = {}
    for name, digest in [("leak", leak), ("answer", answer), ("unwritable", unwritable)]:
        (told[name],) = (await uses(world, digest)).trace_uses
        assert (name, told[name].split, told[name].row_number) == (name, "", 0)
    # Of two alike the one with the lower digest is kept.
    row, copied = [(await uses(world, digest)).trace_uses[0] for digest in sorted(alike)]
    assert (row.split, row.stage) == ("train", "")
    assert (copied.split, copied.stage, copied.kept_row_id) == ("", "duplicate", row.row_id)
    assert row.row_id[:12] in copied.reason
    assert (told["leak"].stage, told["leak"].eval_set) == ("contaminated", "evalSets/exam")
    assert told["leak"].eval_item == "item-0"
    assert "item item-0 of evalSets/exam" in told["leak"].reason
    assert (told["answer"].stage, told["answer"].reason) == (
        "model_answer",
        "a model's answer in an evaluation",
    )
    assert told["unwritable"].stage == "unrenderable"
    assert "<start_of_turn>" in told["unwritable"].reason
    assert (await uses(world, plain)).trace_uses[0].split == "train"


@pytest.mark.one_database
async def test_traces_that_were_not_selected_and_others(world: Exporting) -> None:
    found = await digests(world, *(trace(i) for i in range(6)))
    await world.build(splits=ALL_TRAIN, selection=v1.Selection(latest=2))
    stages = [[use.stage for use in (await uses(world, digest)).trace_uses] for digest in found]
    assert stages == [["selection"]] * 4 + [[""]] * 2
    assert list((await uses(world, "sha256:" + "0" * 64)).trace_uses) == []


async def test_datasets_of_earlier_versions_are_read_once(
    world: Exporting, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.eval_sets.known["evalSets/exam"] = ["Is this leaked to us?"]
    found = await digests(world, *(trace(i) for i in range(8)), trace(9, prompt="Is this leaked to us?"))
    for name in "abc":
        await world.build(name, splits=HELD_OUT, eval_sets=["evalSets/exam"])
    before = [await uses(world, digest) for digest in found]
    assert [len(answer.trace_uses) for answer in before] == [3] * 9
    forget_rows(world)
    # No time is left for a second one: the page says that it goes on.
    monkeypatch.setattr("tunix_rt_exporter.datasets.service._INDEXING_S", -1.0)
    answer = await uses(world, found[0])
    assert (list(answer.trace_uses), bool(answer.next_page_token)) == ([], True)
    monkeypatch.setattr("tunix_rt_exporter.datasets.service._INDEXING_S", 60.0)
    rest = await uses(world, found[0], page_token=answer.next_page_token)
    assert rest == before[0]
    Path(world.settings.artifacts).rename(Path(world.settings.artifacts).with_name("away"))
    rows_only = [answer.trace_uses for answer in before[:8]]
    assert [(await uses(world, digest)).trace_uses for digest in found[:8]] == rows_only


@pytest.mark.one_database
async def test_a_dataset_that_cannot_be_read_is_named(world: Exporting) -> None:
    found = await digests(world, *(trace(i) for i in range(4)), trace(5, source="evaluation"))
    await world.build("good", splits=ALL_TRAIN)
    await world.build("bad", splits=ALL_TRAIN, seed=7)
    forget_rows(world)
    dataset = await world.exporter.GetDataset(v1.GetDatasetRequest(name="datasets/bad@1"))
    digest = dataset.splits[0].files[0].file.digest.removeprefix("sha256:")
    (Path(world.settings.artifacts) / "sha256" / digest[:2] / digest).unlink()
    answer = await uses(world, found[0])
    assert [use.dataset for use in answer.trace_uses] == ["datasets/good@1"]
    assert list(answer.unreadable_datasets) == ["datasets/bad@1"]


@pytest.mark.one_database
async def test_pages(world: Exporting) -> None:
    (digest,) = await digests(world, trace(1))
    for name in "abcde":
        await world.build(name, splits=ALL_TRAIN)
    token, names = "", []
    while True:
        page = await uses(world, digest, page_size=2, page_token=token)
        names.append([use.dataset for use in page.trace_uses])
        if not (token := page.next_page_token):
            break
    assert [[f"datasets/{name}@1" for name in group] for group in ("ed", "cb", "a")] == names


@pytest.mark.parametrize("digest", ["", "sha256:12", "x" * 64, "a" * 10_000])
@pytest.mark.one_database
async def test_what_is_no_digest_is_refused(world: Exporting, digest: str) -> None:
    error = await refused(uses(world, digest))
    assert (error.code, error.reason) == ("INVALID_ARGUMENT", "CONTENT_DIGEST_INVALID")
    assert fields(error) == ["content_digest"]
    assert len(error.message) < 400


@pytest.mark.one_database
async def test_a_dataset_that_failed_and_was_built_again_is_listed_once(world: Exporting) -> None:
    (digest,) = await digests(world, trace(1))
    await world.build("d", splits=ALL_TRAIN, filter=v1.TraceFilter(sources=["none"]))
    dataset = await world.build("d", splits=ALL_TRAIN)
    assert dataset.state == v1.Dataset.STATE_SUCCEEDED
    assert len((await uses(world, digest)).trace_uses) == 1


@pytest.mark.one_database
async def test_a_deleted_dataset_holds_nothing(world: Exporting) -> None:
    (digest,) = await digests(world, trace(1))
    for name in "ab":
        await world.build(name, splits=ALL_TRAIN)
    await world.exporter.DeleteDataset(v1.DeleteDatasetRequest(name="datasets/a@1"))
    assert [use.dataset for use in (await uses(world, digest)).trace_uses] == ["datasets/b@1"]
    forget_rows(world)
    answer = await uses(world, digest)
    assert [use.dataset for use in answer.trace_uses] == ["datasets/b@1"]
    assert not answer.unreadable_datasets


async def test_rows_are_kept_in_parts_over_what_was_left(
    world: Exporting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunix_rt_exporter.datasets.repository._ROWS_AT_ONCE", 3)
    found = await digests(world, *(trace(i) for i in range(9)))
    await world.build("d", splits=HELD_OUT)
    before = [await uses(world, digest) for digest in found]
    assert [len(answer.trace_uses) for answer in before] == [1] * 9
    database = Database(world.settings.database)
    with database.write() as session:
        (number,) = session.execute(select(datasets.c.number)).scalars()
        # As another server has it that is not done, and a build that failed left it.
        session.execute(update(datasets).values(rows_indexed=False))
        session.execute(update(dataset_rows).values(row_number=99))
        for byte in (b"\0", b"\xff"):
            row = {"dataset_number": number, "digest": byte * 32, "place": 0, "row_number": 1}
            session.execute(insert(dataset_rows).values(row))
    assert [await uses(world, digest) for digest in found] == before
    assert not (await uses(world, "0" * 64)).trace_uses
    assert not (await uses(world, "f" * 64)).trace_uses
    database.close()

"""A dataset of conversations, through the exporter's calls."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from support.arbitrary_conversations import made as hostile
from support.conversations import ADD, adding, call, conversation, turn
from support.exporting import ALL_TRAIN, Exporting, failure, real_store, rows
from support.serving import served_at
from support.tiny_model import make_tiny_model
from support.traces import trace
from tunix_rt import v1
from tunix_rt.formats import read_records, read_traces
from tunix_rt.wire import open_aio_channel
from tunix_rt_kit.artifacts import ArtifactStore
from tunix_rt_kit.models.tokenizer import load_tokenizer

pytestmark = pytest.mark.one_database
EXAMPLE = v1.DATASET_FORMAT_CONVERSATION_EXAMPLE
CHATML = v1.ChatTemplate(builtin="chatml")
DEPLOYING = conversation(
    turn("user", "Deploy", " it.\n"),
    turn(
        "assistant",
        "",
        tool_calls=[call("deploy", '{"z": 1.50, "a": {"y": 12345678901234567890, "b": "\\u00e9"}}', "c")],
        train=v1.Message.TRAIN_YES,
    ),
    tools=[{"name": "deploy", "parameters": {"type": "object", "properties": {"z": {}, "a": {}}}}],
    metadata={"team": "a"},
)


async def built(world: Exporting, **spec: Any) -> v1.Dataset:
    await world.add([DEPLOYING, adding(), trace(3)])
    return await world.build(**{"splits": ALL_TRAIN, "chat_template": CHATML, **spec})


async def test_the_format_trace_holds_a_conversation_to_the_byte(world: Exporting) -> None:
    dataset = await built(world)
    assert dataset.spec.train_on == v1.TRAIN_ON_ALL_ASSISTANTS
    assert dataset.spec.changed_history == v1.CHANGED_HISTORY_EACH_TURN
    assert [file.format for file in dataset.splits[0].files] == [1, 2, 3, EXAMPLE]
    data = await world.read(dataset.name, kind=v1.DATASET_FORMAT_TRACE)
    found = [read for read in read_traces(io.BytesIO(data), "dataset") if read.messages]
    # What is read back is the content that was stored, but for source and version, which rows do not have.
    sent = {made.messages[0].content[0].text: made for made in (DEPLOYING, adding())}
    for read in found:
        made = sent.pop(read.messages[0].content[0].text)
        assert (read.messages, read.tools, read.metadata) == (made.messages, made.tools, made.metadata)
    assert not sent


async def test_rows_of_the_format_trace_are_the_same_contents_in_a_fresh_store(
    world: Exporting, tmp_path: Path
) -> None:
    made = [hostile(number, hostile=True) for number in range(40)]
    lines = [json.dumps({"messages": each.messages, "tools": each.tools}) for each in made]
    # A message of white space alone is no part of a trace.
    read = read_records(io.BytesIO("\n".join(lines).encode()), "openai")
    sent = [record.trace for record in read if record.trace]
    answer = trace(3)
    # Rows do not have it; `traces export` does.
    answer.ClearField("source")
    await world.add([*sent, answer])
    dataset = await world.build(splits=ALL_TRAIN, chat_template=CHATML)
    data = await world.read(dataset.name, kind=v1.DATASET_FORMAT_TRACE)
    assert len(rows(data)) > 20
    async with (
        served_at(real_store(tmp_path / "fresh")) as address,
        open_aio_channel(address) as channel,
    ):
        request = v1.BatchCreateTracesRequest(traces=read_traces(io.BytesIO(data), "dataset"))
        stored = (await v1.TraceStoreStub(channel).BatchCreateTraces(request)).results
    assert [each.content_digest for each in stored] == [f"sha256:{row['id']}" for row in rows(data)]


async def test_chats_are_what_trainers_take(world: Exporting) -> None:
    dataset = await built(world, chat_template=v1.ChatTemplate(builtin="chatml", system_instruction="Think."))
    chats = await world.read(dataset.name, kind=v1.DATASET_FORMAT_CHAT)
    (adds,) = (row for row in rows(chats) if len(row["messages"]) == 5)
    assert adds["tools"] == [ADD]
    assert adds["messages"][0] == {"role": "system", "content": "Be brief."}
    call_of = {"type": "function", "function": {"name": "add", "arguments": {"b": 3, "a": 2}}}
    assert adds["messages"][2:4] == [
        {
            "role": "assistant",
            "content": "",
            "reasoning_content": "I had better add.",
            "tool_calls": [{"id": "c1", **call_of}],
        },
        {"role": "tool", "content": "5", "tool_call_id": "c1", "name": "add"},
    ]
    (deploys,) = (line for line in chats.splitlines() if b"Deploy" in line)
    # In the order of the model, and to the last digit.
    assert b'"arguments":{"z":1.5,"a":{"y":12345678901234567890,"b":"\xc3\xa9"}}' in deploys
    assert b'"properties":{"z":{},"a":{}}' in deploys
    assert b'"train"' not in deploys
    assert json.loads(deploys)["messages"][0] == {"role": "system", "content": "Think."}
    assert json.loads(deploys)["metadata"]["team"] == "a"


async def test_chats_in_parquet_have_texts_for_objects(world: Exporting) -> None:
    dataset = await built(world)
    table = pq.read_table(io.BytesIO(await world.read(dataset.name, kind=v1.DATASET_FORMAT_CHAT_PARQUET)))
    found = {row["messages"][0]["content"]: row for row in table.to_pylist()}
    adds = found["Be brief."]
    assert json.loads(adds["tools"]) == [ADD]
    assert adds["messages"][2]["tool_calls"][0]["function"] == {"name": "add", "arguments": '{"b":3,"a":2}'}
    assert [each["reasoning_content"] for each in adds["messages"]] == [
        None,
        None,
        "I had better add.",
        None,
        None,
    ]
    assert found["What is 3 + 1?"]["tools"] is None


async def test_turns_that_the_dataset_does_not_teach_weigh_nothing_in_chats(world: Exporting) -> None:
    template = v1.ChatTemplate(builtin="chatml", system_instruction="Think.")
    await world.add([adding(), trace(3)])
    dataset = await world.build(splits=ALL_TRAIN, chat_template=template, train_on=v1.TRAIN_ON_LAST_ASSISTANT)
    chats = await world.read(dataset.name, kind=v1.DATASET_FORMAT_CHAT)
    weights = {len(row["messages"]): [turn.get("weight") for turn in row["messages"]] for row in rows(chats)}
    assert weights == {5: [None, None, 0, None, None], 3: [None] * 3}
    data = await world.read(dataset.name, kind=v1.DATASET_FORMAT_CHAT_PARQUET)
    table = pq.read_table(io.BytesIO(data)).to_pylist()
    assert {len(row["messages"]): [turn["weight"] for turn in row["messages"]] for row in table} == weights
    # Read back, it is as much to be learned as here.
    for read in (read_traces(io.BytesIO(chats), "openai"), read_traces(io.BytesIO(data), "parquet")):
        (found,) = (each for each in read if len(each.messages) == 5)
        assert [turn.train for turn in found.messages] == [0, 0, v1.Message.TRAIN_NO, 0, 0]
        assert found.messages[2].tool_calls[0].arguments_text == '{"b":3,"a":2}'
        assert len(found.metadata["source_trace_id"]) == 64
        assert [json.loads(tool.definition_text) for tool in found.tools] == [ADD]


async def test_a_dataset_without_conversations_can_be_read_as_examples_too(world: Exporting) -> None:
    await world.add([trace(3)])
    dataset = await world.build(splits=ALL_TRAIN, chat_template=CHATML)
    (example,) = rows(await world.read(dataset.name, kind=v1.DATASET_FORMAT_TRAINING_EXAMPLE))
    assert rows(await world.read(dataset.name, kind=EXAMPLE)) == [
        {
            "id": example["id"],
            "metadata": example["metadata"],
            "segments": [
                {"learned": False, "text": example["prompt"]},
                {"learned": True, "text": example["response"]},
            ],
        }
    ]


async def test_audits_look_into_conversations(world: Exporting, tmp_path: Path) -> None:
    dataset = await built(world)
    world.eval_sets.known["evalSets/e"] = ["what is 2 + 3?", "Nothing like it."]
    leaks = world.exporter.AuditContamination(
        v1.AuditContaminationRequest(name=dataset.name, eval_set="evalSets/e")
    )
    found = [row async for part in leaks for row in part.rows]
    assert [(row.eval_item, row.match) for row in found] == [("item-0", v1.ContaminatedRow.MATCH_EXACT)]
    near = await world.exporter.FindNearestRows(
        v1.FindNearestRowsRequest(name=dataset.name, texts=["What is 2 + 3?"], row_count=1)
    )
    assert (near.nearest[0].rows[0].row_id, near.nearest[0].rows[0].final_answer) == (
        found[0].row_id,
        "It is 5.",
    )
    model = make_tiny_model(tmp_path / "tiny")
    stored = ArtifactStore(world.settings.artifacts).put_file(model / "tokenizer.json")
    request = v1.AuditSupervisionRequest(
        name=dataset.name,
        base_model="tiny",
        tokenizer=v1.ArtifactFile(digest=stored.digest),
        max_length=4_096,
    )
    (audit,) = [part.audit async for part in world.exporter.AuditSupervision(request) if part.audit.name]
    tokenizer = load_tokenizer(model)
    segments = [
        part for row in rows(await world.read(dataset.name, kind=EXAMPLE)) for part in row["segments"]
    ]
    assert audit.splits[0].row_count == 3
    assert audit.splits[0].supervised_token_count == sum(
        len(tokenizer.encode(part["text"])) for part in segments if part["learned"]
    )
    assert not audit.splits[0].end_unsupervised.row_count


async def test_a_conversation_that_leaks_is_left_out(world: Exporting) -> None:
    world.eval_sets.known["evalSets/e"] = ["what is 2 + 3?"]
    dataset = await built(world, eval_sets=["evalSets/e"], train_on=v1.TRAIN_ON_MARKED)
    assert [(entry.stage, entry.row_count) for entry in dataset.dropped] == [("unmarked", 1)]
    dataset = await world.build(version="2", splits=ALL_TRAIN, chat_template=CHATML, eval_sets=["evalSets/e"])
    assert [(entry.stage, entry.row_count) for entry in dataset.dropped] == [("contaminated", 1)]


async def test_a_template_without_tools_leaves_nothing(world: Exporting) -> None:
    await world.add([adding()])
    dataset = await world.build(splits=ALL_TRAIN)
    reason, message = failure(dataset)
    assert (reason, "1 as unrenderable" in message) == ("DATASET_EMPTY", True)

"""The derived formats and bad chat templates over a real channel, on both databases."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from support.exporting import Exporting, exporting
from support.serving import fields, refused
from support.startup.checked_documents import check
from support.traces import trace
from tunix_rt import v1

pytestmark = pytest.mark.one_database

ALL_TRAIN = [v1.SplitFraction(split="train", fraction=1.0)]
DERIVED = (
    v1.DATASET_FORMAT_CHAT,
    v1.DATASET_FORMAT_TRAINING_EXAMPLE_PARQUET,
    v1.DATASET_FORMAT_CHAT_PARQUET,
)


@pytest.fixture
async def world(database_url: str, tmp_path: Path) -> AsyncIterator[Exporting]:
    async with exporting(tmp_path, database_url) as opened:
        yield opened


async def header(world: Exporting, name: str, kind: int) -> v1.DownloadHeader:
    call = world.exporter.ReadDataset(v1.ReadDatasetRequest(name=name, split="train", format=kind))
    message: v1.ReadDatasetResponse = await call.read()
    call.cancel()
    return message.header


async def test_every_derived_format_is_read(world: Exporting) -> None:
    await world.add([trace(i) for i in range(30)])
    template = v1.ChatTemplate(builtin="llama-3", system_instruction="Think.")
    name = (await world.build(splits=ALL_TRAIN, chat_template=template)).name
    lines = [json.loads(line) for line in (await world.read(name, kind=v1.DATASET_FORMAT_CHAT)).splitlines()]
    assert [[message["role"] for message in line["messages"]] for line in lines] == [
        ["system", "user", "assistant"]
    ] * 30
    table = pq.read_table(io.BytesIO(await world.read(name, kind=v1.DATASET_FORMAT_CHAT_PARQUET)))
    assert [row["messages"] for row in table.to_pylist()] == [line["messages"] for line in lines]
    examples = await world.read(name, kind=v1.DATASET_FORMAT_TRAINING_EXAMPLE)
    data = await world.read(name, kind=v1.DATASET_FORMAT_TRAINING_EXAMPLE_PARQUET)
    table = pq.read_table(io.BytesIO(data))
    assert table.column("id").to_pylist() == [json.loads(line)["id"] for line in examples.splitlines()]


async def test_rows_are_as_their_schema_says(world: Exporting) -> None:
    await world.add([trace(i, metadata={"n": [1.5, None, {"a": True}]}) for i in range(2)])
    name = (await world.build(splits=ALL_TRAIN)).name
    for form, kind in (
        ("TRAINING_EXAMPLE", "training-example-line"),
        ("TUNIX_SFT", "tunix-sft-line"),
        ("TRACE", "dataset-trace-line"),
        ("CHAT", "chat-line"),
    ):
        lines = (await world.read(name, kind=v1.DatasetFormat.Value(f"DATASET_FORMAT_{form}"))).splitlines()
        assert len(lines) == 2
        for line in lines:
            check(json.loads(line), [kind])


async def test_a_derived_file_has_a_header_and_offsets_like_any_other(world: Exporting) -> None:
    await world.add([trace(i) for i in range(5)])
    name = (await world.build(splits=ALL_TRAIN)).name
    for kind, suffix, media in zip(
        DERIVED,
        ("train.chat.jsonl", "train.training_example.parquet", "train.chat.parquet"),
        ("application/jsonl", "application/vnd.apache.parquet", "application/vnd.apache.parquet"),
        strict=True,
    ):
        first = await header(world, name, kind)
        whole = await world.read(name, kind=kind)
        assert first.digest == "sha256:" + hashlib.sha256(whole).hexdigest()
        assert (first.size_bytes, first.file_name, first.media_type) == (len(whole), f"d@1-{suffix}", media)
        assert await world.read(name, kind=kind, offset=7) == whole[7:]
        error = await refused(world.read(name, kind=kind, offset=len(whole) + 1))
        assert (error.reason, fields(error)) == ("OFFSET_INVALID", ["offset"])
        error = await refused(world.read(name, "dev", kind=kind))
        assert (error.reason, fields(error)) == ("SPLIT_UNKNOWN", ["split"])


async def test_first_readers_at_the_same_time_get_the_same_bytes(world: Exporting) -> None:
    await world.add([trace(i) for i in range(200)])
    name = (await world.build(splits=ALL_TRAIN)).name
    found = await asyncio.gather(*(world.read(name, kind=v1.DATASET_FORMAT_CHAT_PARQUET) for _ in range(6)))
    assert len(set(found)) == 1


async def test_a_damaged_source_of_a_derived_file_is_named(world: Exporting) -> None:
    await world.add([trace(0)])
    dataset = await world.build(splits=ALL_TRAIN)
    path = Path(dataset.splits[0].files[0].file.uri.removeprefix("file://"))
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"What", b"Thus"))
    error = await refused(world.read(dataset.name, kind=v1.DATASET_FORMAT_CHAT))
    assert (error.code, error.reason) == ("DATA_LOSS", "ARTIFACT_CORRUPT")
    assert path.name in error.message
    path.write_bytes(whole)
    assert await world.read(dataset.name, kind=v1.DATASET_FORMAT_CHAT)


BAD_TEMPLATES: dict[str, tuple[str, str]] = {
    "fails": ("{{ 1 / 0 }}", "ZeroDivisionError"),
    "loops": ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "s of CPU"),
    "reaches out": ("{{ messages.__class__.__mro__ }}", "reaches for '__class__'"),
    "grows": ("{% for i in range(99999) %}{{ 'x' * 1000 }}{% endfor %}", "characters"),
}


@pytest.mark.parametrize("case", BAD_TEMPLATES)
async def test_a_bad_template_is_one_clear_error(world: Exporting, case: str) -> None:
    source, problem = BAD_TEMPLATES[case]
    await world.add([trace(0)])
    wanted: dict[str, Any] = {"chat_template": v1.ChatTemplate(jinja=source, eos_token="</s>")}
    error = await refused(world.create(**wanted))
    assert (error.code, error.reason) == ("INVALID_ARGUMENT", "CHAT_TEMPLATE_INVALID")
    assert fields(error) == ["spec.chat_template"]
    assert problem in error.message
    assert "\n" not in error.message
    assert not (await world.exporter.ListDatasets(v1.ListDatasetsRequest())).datasets

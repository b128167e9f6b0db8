"""Rows as a model learns them, over a real channel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from support.conversations import adding, conversation, turn
from support.exporting import ALL_TRAIN, Exporting, rows
from support.serving import refused
from support.tiny_model import make_tiny_model
from support.traces import trace
from tunix_rt import v1
from tunix_rt.cli.dataset_preview import Example, examples
from tunix_rt_kit.artifacts import ArtifactStore
from tunix_rt_kit.loss_mask import encode, parse_example
from tunix_rt_kit.models.tokenizer import load_tokenizer

pytestmark = pytest.mark.one_database
CHATML = v1.ChatTemplate(builtin="chatml")


async def shown(world: Exporting, name: str, **asked: Any) -> list[Example]:
    call = world.exporter.PreviewRows(v1.PreviewRowsRequest(name=name, **asked))
    return examples([part async for part in call])


async def test_what_is_shown_as_learned_is_what_is_trained_on(world: Exporting, tmp_path: Path) -> None:
    model = make_tiny_model(tmp_path / "tiny")
    stored = ArtifactStore(world.settings.artifacts).put_file(model / "tokenizer.json")
    long = conversation(turn("user", "é" * 70_000), turn("assistant", "<b>\x1b[31m</b> 5 ✓"))
    await world.add([adding(), long, trace(3)])
    dataset = await world.build(splits=ALL_TRAIN, chat_template=CHATML)
    found = await shown(world, dataset.name, tokenizer=v1.ArtifactFile(digest=stored.digest))
    lines = await world.read(dataset.name, kind=v1.DATASET_FORMAT_CONVERSATION_EXAMPLE)
    trained = [parse_example(line, "file", 1) for line in lines.splitlines()]
    assert [one.row_id for one in found] == [one.id for one in trained]
    for one, example in zip(found, trained, strict=True):
        assert "".join(part.text for part in one.segments) == "".join(part.text for part in example.segments)
        learned = [part.text for part in one.segments if part.learned]
        assert learned == [part.text for part in example.segments if part.learned]
    for one, coded in zip(found, encode(trained, load_tokenizer(model)), strict=True):
        assert [token.id for token in one.tokens] == list(coded.ids)
        mask = {place for start, end in coded.learned for place in range(start, end)}
        assert {place for place, token in enumerate(one.tokens) if token.learned} == mask
        assert one.fault == ""


async def test_one_row_is_found_by_the_beginning_of_its_id(world: Exporting) -> None:
    await world.add([trace(number) for number in range(300)])
    splits = [v1.SplitFraction(split="train", fraction=0.5), v1.SplitFraction(split="test", fraction=0.5)]
    dataset = await world.build(splits=splits)
    row = rows(await world.read(dataset.name, split="test", kind=v1.DATASET_FORMAT_TRAINING_EXAMPLE))[7]
    for begun in (row["id"], f"sha256:{row['id']}", row["id"][:12]):
        (found,) = await shown(world, dataset.name, row_id=begun)
        assert (found.row_id, found.split) == (row["id"], "test")
        assert [part.text for part in found.segments] == [row["prompt"], row["response"]]
    assert not found.tokens
    assert len(await shown(world, dataset.name)) == 3
    assert len(await shown(world, dataset.name, split="test", row_count=9)) == 9


async def test_each_example_of_a_row_is_shown(world: Exporting) -> None:
    # Earlier thoughts are left out.
    forgetful = (
        "{%- set last = namespace(user=0) -%}"
        "{%- for m in messages -%}{%- if m.role == 'user' -%}{%- set last.user = loop.index0 -%}{%- endif -%}"
        "{%- endfor -%}{%- for m in messages -%}<|im_start|>{{ m.role }}\n"
        "{%- if m.reasoning_content and loop.index0 > last.user -%}{{ m.reasoning_content }}. {% endif -%}"
        "{{ m.content }}<|im_end|>{%- endfor -%}"
        "{%- if add_generation_prompt -%}<|im_start|>assistant\n{%- endif -%}"
    )
    template = v1.ChatTemplate(jinja=forgetful, eos_token="<|im_end|>")
    talk = [turn("user", "One?"), turn("assistant", "1", reasoning="First"), turn("user", "Two?")]
    await world.add([conversation(*talk, turn("assistant", "2", reasoning="Second"))])
    dataset = await world.build(splits=ALL_TRAIN, chat_template=template)
    found = await shown(world, dataset.name)
    assert [one.number for one in found] == [1, 2]
    assert len({one.row_id for one in found}) == 1
    learned = [[part.text for part in one.segments if part.learned] for one in found]
    assert learned == [["First. 1<|im_end|>"], ["Second. 2<|im_end|>"]]


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"split": "tran"}, "SPLIT_UNKNOWN"),
        ({"row_count": 1001}, "PREVIEW_INVALID"),
        ({"row_id": "xyz"}, "PREVIEW_INVALID"),
        ({"row_id": "0" * 64}, "ROW_NOT_FOUND"),
        ({"row_id": "0" * 64, "row_count": 2}, "PREVIEW_INVALID"),
        (
            {"tokenizer": v1.ArtifactFile(digest="sha256:" + "0" * 64)},
            "TOKENIZER_NOT_FOUND",
        ),
    ],
)
async def test_a_wrong_question_is_refused(world: Exporting, asked: dict[str, Any], reason: str) -> None:
    await world.add([trace(3)])
    dataset = await world.build(splits=ALL_TRAIN)
    error = await refused(shown(world, dataset.name, **asked))
    assert error.reason == reason

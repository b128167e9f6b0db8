"""How much of what each role says is learned, over a real channel."""

from __future__ import annotations

import io
import json
import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

from support.arbitrary_conversations import made as hostile
from support.conversations import ADD, adding, call, conversation, turn
from support.exporting import ALL_TRAIN, Exporting, rows
from support.tiny_model import SPECIAL_TOKENS, make_tiny_model
from support.traces import trace
from tunix_rt import v1
from tunix_rt.cli.dataset_preview import Example, examples
from tunix_rt.formats import read_records
from tunix_rt_kit.artifacts import ArtifactStore
from tunix_rt_kit.chat import RenderedConversation, Segment

pytestmark = pytest.mark.one_database
CHATML = v1.ChatTemplate(builtin="chatml", system_instruction=" Think, then speak. ")
BLOCK = re.compile(r"<\|im_start\|>(\w+)\n(.*?)<\|im_end\|>\n", re.DOTALL)
RESULT = re.compile(r"<tool_response>\n(.*?)\n</tool_response>", re.DOTALL)
Told = dict[str, Counter[str]]


@pytest.fixture
def tokenizer(world: Exporting, tmp_path: Path) -> v1.ArtifactFile:
    """Of bytes; as many do, it does not tell that a blank is a token's."""
    data = json.loads((make_tiny_model(tmp_path / "tiny") / "tokenizer.json").read_bytes())
    data["post_processor"] = {**data["pre_tokenizer"], "trim_offsets": True}
    stored = ArtifactStore(world.settings.artifacts).put_bytes(json.dumps(data).encode())
    return v1.ArtifactFile(digest=stored.digest)


async def audited(world: Exporting, name: str, tokenizer: v1.ArtifactFile) -> v1.SplitSupervision:
    request = v1.AuditSupervisionRequest(
        name=name, base_model="tiny", tokenizer=tokenizer, max_length=1 << 16
    )
    (audit,) = [part.audit async for part in world.exporter.AuditSupervision(request) if part.audit.name]
    split: v1.SplitSupervision = audit.splits[0]
    assert sum(role.token_count for role in split.roles) == split.token_count
    assert sum(role.supervised_token_count for role in split.roles) == split.supervised_token_count
    return split


def told(split: v1.SplitSupervision) -> Told:
    """The figures of each role that are not 0."""
    return {
        v1.RoleSupervision.Part.Name(role.part).removeprefix("PART_").lower(): Counter(
            {field.name: value for field, value in role.ListFields() if field.name != "part"}
        )
        for role in split.roles
    }


def by_character(example: Example) -> tuple[str, list[list[bool]]]:
    """The text, and at each character whether the tokens that begin there are learned: one for each byte, and
    one for a control text."""
    text = "".join(part.text for part in example.segments)
    begin: list[list[bool]] = [[] for _ in text]
    at = place = 0
    while place < len(text):
        control = next((each for each in SPECIAL_TOKENS if text.startswith(each, place)), "")
        count = 1 if control else len(text[place].encode())
        begin[place] = [token.learned for token in example.tokens[at : at + count]]
        at += count
        place += len(control) or 1
    assert at == len(example.tokens)
    return text, begin


def read_by_eye(example: Example, *, developer: bool, last_alone: bool) -> Told:
    """The figures of an example in ChatML, as a reader of its text finds them.

    With ``developer`` a developer speaks after the template's instruction; ChatML calls both "system". With
    ``last_alone`` the assistant's last turn alone is taught, and the others have no thoughts and no calls.
    """
    text, begin = by_character(example)
    found: Told = defaultdict(Counter)

    def count(role: str, start: int, end: int, **other: int) -> None:
        learned = [flag for flags in begin[start:end] for flag in flags]
        found[role].update(token_count=len(learned), supervised_token_count=sum(learned), **other)
        if role != "template" and start < end:
            found[role].update(turn_count=1, supervised_turn_count=any(learned))

    blocks, at = list(BLOCK.finditer(text)), 0
    last = [block for block in blocks if block[1] == "assistant"][-1]
    for number, block in enumerate(blocks):
        start, end = block.span(2)
        role = "developer" if developer and number == 1 else block[1]
        spans = [(start, end)]
        if role == "user" and block[2].startswith("<tool_response>\n"):
            role, spans = "tool", [(start + m.start(1), start + m.end(1)) for m in RESULT.finditer(block[2])]
        elif number == 0 and "# Tools\n" in block[2]:
            spans = [(start, start + max(block[2].index("# Tools\n") - 2, 0))]
        elif role == "assistant":
            # The mark, and behind the last turn that is taught a line break.
            spans = [(start, block.end() - (last_alone and block is not last))]
            (mark,) = begin[end]
            calls = block[2].count('<tool_call>\n{"name": ')
            found[role].update(
                end_mark_count=1,
                supervised_end_mark_count=mark,
                tool_call_count=calls,
                supervised_tool_call_count=calls if mark else 0,
            )
        for start, end in spans:
            count("template", at, start)
            count(role, start, end)
            at = end
    count("template", at, len(text))
    return found


def without_zeros(figures: Told) -> Told:
    return {role: +counts for role, counts in figures.items() if counts.total()}


@pytest.mark.parametrize("train_on", [v1.TRAIN_ON_ALL_ASSISTANTS, v1.TRAIN_ON_LAST_ASSISTANT])
async def test_the_figures_are_those_that_a_reader_of_the_tokens_finds(
    world: Exporting, tokenizer: v1.ArtifactFile, train_on: v1.TrainOn.ValueType
) -> None:
    last_alone = train_on == v1.TRAIN_ON_LAST_ASSISTANT
    made = [hostile(number, hostile=True) for number in range(120)]
    made = [each for each in made if each.is_plain or not last_alone]
    lines = [json.dumps({"messages": each.messages, "tools": each.tools}) for each in made]
    read = read_records(io.BytesIO("\n".join(lines).encode()), "openai")
    await world.add([record.trace for record in read if record.trace] + [trace(i) for i in range(5)])
    dataset = await world.build(splits=ALL_TRAIN, chat_template=CHATML, train_on=train_on)
    has_developer = {
        row["id"]: "messages" in row and row["messages"][0]["role"] == "developer"
        for row in rows(await world.read(dataset.name, kind=v1.DATASET_FORMAT_TRACE))
    }
    request = v1.PreviewRowsRequest(name=dataset.name, row_count=1_000, tokenizer=tokenizer)
    shown = examples([part async for part in world.exporter.PreviewRows(request)])
    expected: Told = defaultdict(Counter)
    for example in shown:
        seen = read_by_eye(example, developer=has_developer[example.row_id], last_alone=last_alone)
        for role, counts in seen.items():
            expected[role].update(counts)
    split = await audited(world, dataset.name, tokenizer)
    assert told(split) == without_zeros(expected)
    assert len(shown) > 20
    assert set(told(split)) >= {"system", "user", "assistant", "template"}
    assert ("tool" in told(split)) != last_alone
    found = (split.supervised_elsewhere, split.end_mark_masked, split.unproved_roles)
    assert [rows.row_count for rows in found] == [0, 0, 0]


async def built(world: Exporting, *traces: v1.Trace, **spec: Any) -> str:
    await world.add(traces)
    return (await world.build(**{"splits": ALL_TRAIN, "chat_template": CHATML, **spec})).name


async def test_a_turn_that_is_marked_as_not_to_be_learned_is_not(
    world: Exporting, tokenizer: v1.ArtifactFile
) -> None:
    called = turn("assistant", "", tool_calls=[call("add", "{}", "c")], train=v1.Message.TRAIN_NO)
    talk = [turn("user", "Add."), called, turn("tool", "5", tool_call_id="c", name="add")]
    name = await built(world, conversation(*talk, turn("assistant", "It is 5."), tools=[ADD]))
    split = await audited(world, name, tokenizer)
    figures = told(split)["assistant"]
    assert {key: figures[key] for key in figures if not key.endswith("token_count")} == {
        "turn_count": 2,
        "supervised_turn_count": 1,
        "end_mark_count": 2,
        "supervised_end_mark_count": 1,
        "tool_call_count": 1,
    }
    # A byte is a token, and so is an end mark, here "|".
    assert figures["supervised_token_count"] == len("It is 5.|\n")
    untaught = figures["token_count"] - figures["supervised_token_count"]
    assert untaught == len('add", "arguments": {}}\n</tool_call>|')


def corrupted(segments: tuple[Segment, ...], asked: str) -> tuple[Segment, ...]:
    """A mask that is nearly right."""
    if asked == "the user is learned":
        return (Segment(segments[0].text, True), *segments[1:])
    if asked == "an end is not":
        first, said, *rest = segments
        at = said.text.index("<|im_end|>")
        return (first, Segment(said.text[:at], True), Segment(said.text[at:], False), *rest)
    # What the tool gave back, up to the turn behind it.
    return tuple(Segment(part.text, part.learned or "tool_response" in part.text) for part in segments)


@pytest.mark.parametrize(
    ("asked", "learned", "elsewhere", "masked"),
    [
        ("the user is learned", {"system", "user"}, 1, 0),
        ("an end is not", set(), 0, 1),
        ("the tool is learned", {"tool"}, 1, 0),
    ],
)
async def test_a_mask_that_a_builder_makes_wrong_is_a_fault(
    world: Exporting,
    tokenizer: v1.ArtifactFile,
    monkeypatch: pytest.MonkeyPatch,
    asked: str,
    learned: set[str],
    elsewhere: int,
    masked: int,
) -> None:
    right = RenderedConversation.segments.fget
    assert right is not None
    monkeypatch.setattr(
        RenderedConversation, "segments", property(lambda example: corrupted(right(example), asked))
    )
    name = await built(world, adding(), trace(3))
    split = await audited(world, name, tokenizer)
    figures = told(split)
    assert {role for role in figures if figures[role]["supervised_token_count"]} - {
        "assistant",
        "template",
    } == learned
    assert [rows.row_count for rows in (split.supervised_elsewhere, split.end_mark_masked)] == [
        elsewhere,
        masked,
    ]
    marks = figures["assistant"]
    assert marks["end_mark_count"] - marks["supervised_end_mark_count"] == masked


async def test_where_roles_cannot_be_proved_the_row_is_counted_as_such(
    world: Exporting, tokenizer: v1.ArtifactFile
) -> None:
    forgetful = (
        "{%- for m in messages -%}<|im_start|>{{ m.role }}\n{{ m.content.split('THEN')[-1] }}<|im_end|>\n"
        "{%- endfor -%}{%- if add_generation_prompt -%}<|im_start|>assistant\n{%- endif -%}"
    )
    template = v1.ChatTemplate(jinja=forgetful, eos_token="<|im_end|>")
    talk = [turn("user", "One?"), turn("assistant", "first THEN 1"), turn("user", "Two?")]
    plain = [turn("user", "Three?"), turn("assistant", "3"), turn("user", "Four?")]
    name = await built(
        world,
        conversation(*talk, turn("assistant", "2")),
        conversation(*plain, turn("assistant", "4")),
        chat_template=template,
        train_on=v1.TRAIN_ON_LAST_ASSISTANT,
    )
    split = await audited(world, name, tokenizer)
    assert split.unproved_roles.row_count == 1
    assert told(split)["unproved"]["supervised_token_count"] == len("2|\n")
    assert told(split)["assistant"]["turn_count"] == 2
    assert told(split)["user"] == Counter(token_count=len("Three?Four?"), turn_count=2)
    assert not split.supervised_elsewhere.row_count


async def test_a_blank_that_the_tokenizer_leaves_out_is_nobody_elses(
    world: Exporting, tokenizer: v1.ArtifactFile
) -> None:
    store = ArtifactStore(world.settings.artifacts)
    data = json.loads(store.read_bytes(tokenizer.digest))
    data["normalizer"] = {"type": "Strip", "strip_left": False, "strip_right": True}
    stripping = v1.ArtifactFile(digest=store.put_bytes(json.dumps(data).encode()).digest)
    bare = (
        "{%- for m in messages -%}{{ m.content }}{%- if m.role == 'assistant' -%}<|im_end|>{%- endif -%}"
        "{%- endfor -%}"
    )
    template = v1.ChatTemplate(jinja=bare, eos_token="<|im_end|>")
    name = await built(
        world, conversation(turn("user", "Sum: "), turn("assistant", "5")), chat_template=template
    )
    split = await audited(world, name, stripping)
    assert told(split)["user"] == Counter(token_count=len("Sum:"), turn_count=1)
    assert not split.supervised_elsewhere.row_count

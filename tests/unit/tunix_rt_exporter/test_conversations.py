"""What becomes of conversations in a dataset."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from support.conversations import adding, call, conversation, turn
from support.datasets import built, eval_set, read, source, spoken
from tunix_rt import v1
from tunix_rt_exporter.datasets.decontaminate import EvalIndex, MatchKind
from tunix_rt_exporter.datasets.model import FORMATS, BuildResult, DatasetFormat
from tunix_rt_kit.artifacts import ArtifactStore
from tunix_rt_kit.errors import FailedPrecondition

LONG = "Maya bakes 24 muffins for the fair and sells 15 of them at noon; how many are left for the evening?"


CHATML = {"builtin": "chatml"}
ONLY_TRAIN = [{"split": "train", "fraction": 1}]
# Leaves out what was thought before the last message of the user's, as Qwen3's own template does.
FORGETFUL = {
    "jinja": "{%- set last = namespace(user=0) -%}"
    "{%- for m in messages -%}{%- if m.role == 'user' -%}{%- set last.user = loop.index0 -%}{%- endif -%}"
    "{%- endfor -%}"
    "{%- for m in messages -%}<|im_start|>{{ m.role }}\n"
    "{%- if m.reasoning_content and loop.index0 > last.user -%}"
    "<think>{{ m.reasoning_content }}</think>{%- endif -%}"
    "{{ m.content }}<|im_end|>{%- endfor -%}"
    "{%- if add_generation_prompt -%}<|im_start|>assistant\n{%- endif -%}",
    "eos_token": "<|im_end|>",
}
USER, REPLY = turn("user", "Hello"), turn("assistant", "Hi")
THINKING = conversation(
    turn("user", "One?"),
    turn("assistant", "First.", reasoning="Thought A."),
    turn("user", "Two?"),
    turn("assistant", "Second.", reasoning="Thought B."),
)


def lines(folder: Path, result: BuildResult, kind: DatasetFormat, split: str = "train") -> list[Any]:
    return [json.loads(line) for line in read(folder, result, split, kind).splitlines()]


def learned(row: Any) -> list[str]:
    return [part["text"] for part in row["segments"] if part["learned"]]


def test_a_conversation_is_a_row_in_each_format(tmp_path: Path) -> None:
    trace = spoken(adding())
    result = built(tmp_path, [[trace]], splits=ONLY_TRAIN, chat_template=CHATML)
    row_id = trace.digest.hex()
    assert lines(tmp_path, result, "trace") == [
        {"id": row_id, "messages": trace.messages, "metadata": {}, "tools": list(trace.tools)}
    ]
    (example,) = lines(tmp_path, result, "training_example")
    (whole,) = lines(tmp_path, result, "conversation_example")
    first = '{"name": "add", "arguments": {"b": 3, "a": 2}}'
    assert [text.count("<|im_end|>") for text in learned(whole)] == [1, 1]
    assert first in learned(whole)[0] and "I had better add." in learned(whole)[0]
    assert (whole["id"], learned(whole)[1]) == (row_id, "It is 5.<|im_end|>\n")
    # The result of the tool is asked, and the instruction.
    assert example["response"] == "It is 5.<|im_end|>\n"
    assert example["prompt"] + example["response"] == "".join(part["text"] for part in whole["segments"])
    assert example["metadata"] == whole["metadata"] == {"source_trace_id": row_id}
    (text,) = lines(tmp_path, result, "tunix_sft")
    assert text == {
        "id": row_id,
        "final_answer": "It is 5.",
        "metadata": {},
        "prompts": example["prompt"] + example["response"],
    }
    assert result.statistics.steps.maximum == 2
    assert result.statistics.response_characters.maximum == sum(map(len, learned(whole)))


@pytest.mark.parametrize(
    ("train_on", "expected"),
    [
        ("all_assistants", [["Hi<|im_end|>\n"], ["Hi<|im_end|>\n"]]),
        ("last_assistant", [None, ["Hi<|im_end|>\n"]]),
        ("marked", [["Hi<|im_end|>\n"], None]),
    ],
)
def test_the_spec_says_which_turns_are_learned(
    tmp_path: Path, train_on: str, expected: Sequence[list[str] | None]
) -> None:
    """Never one that is marked as not to be learned; without any a conversation is left out by name."""
    marked = conversation(
        USER,
        turn("assistant", "Hi", train=v1.Message.TRAIN_YES),
        turn("user", "Well?"),
        turn("assistant", "Yes", train=v1.Message.TRAIN_NO),
    )
    traces = [spoken(marked), spoken(conversation(turn("user", "Other"), REPLY), 2)]
    result = built(tmp_path, [traces], splits=ONLY_TRAIN, chat_template=CHATML, train_on=train_on)
    rows = {row["id"]: learned(row) for row in lines(tmp_path, result, "conversation_example")}
    assert [rows.pop(trace.digest.hex(), None) for trace in traces] == expected
    assert not rows
    left_out = expected.count(None)
    assert [(entry.stage, entry.row_count) for entry in result.dropped] == [("unmarked", 1)] * left_out
    assert not result.notices


def test_what_differs_in_what_it_teaches_is_no_duplicate(tmp_path: Path) -> None:
    turns = (USER, turn("assistant", "Hi"), turn("user", "Well?"))
    kept = conversation(*turns, turn("assistant", "Yes"))
    masked = conversation(*turns, turn("assistant", "Yes", train=v1.Message.TRAIN_NO))
    traces = [spoken(kept), spoken(masked, 2)]
    result = built(tmp_path, [traces], splits=ONLY_TRAIN, chat_template=CHATML)
    assert len(lines(tmp_path, result, "conversation_example")) == 2


def test_where_earlier_turns_change_each_turn_is_an_example_of_what_was_seen(tmp_path: Path) -> None:
    trace = spoken(THINKING)
    result = built(tmp_path, [[trace, source(1)]], splits=ONLY_TRAIN, chat_template=FORGETFUL)
    rows = {row["id"]: row for row in lines(tmp_path, result, "conversation_example")}
    first, second = (rows.pop(f"{trace.digest.hex()}:{number}") for number in (1, 3))
    assert learned(first) == ["<think>Thought A.</think>First.<|im_end|>"]
    assert learned(second) == ["<think>Thought B.</think>Second.<|im_end|>"]
    assert "Thought A." not in json.dumps(second)
    # Rows of the other form are in the file too.
    (plain,) = rows.values()
    examples = {row["id"]: row for row in lines(tmp_path, result, "training_example")}
    assert [part["text"] for part in plain["segments"]] == [
        examples[plain["id"]]["prompt"],
        examples[plain["id"]]["response"],
    ]
    assert result.splits[0].row_count == len(examples) == 2
    assert examples[trace.digest.hex()]["response"] == learned(second)[0]


def test_changed_history_may_be_refused(tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match=r"refuses: 1 as changed_history") as refused:
        built(tmp_path, [[spoken(THINKING)]], chat_template=FORGETFUL, changed_history="refuse")
    assert refused.value.reason == "CHAT_TEMPLATE_HISTORY"
    # One turn changes no other.
    result = built(tmp_path, [[spoken(adding())]], chat_template=CHATML, changed_history="refuse")
    assert result.dropped == ()


def test_what_a_template_does_not_write_is_left_out_by_name(tmp_path: Path) -> None:
    traces = [
        source(1),
        spoken(adding()),
        spoken(conversation(USER, turn("assistant", "Say <end_of_turn>")), 2),
        spoken(conversation(USER, turn("assistant", " Hi ")), 3),
    ]
    result = built(tmp_path, [traces], splits=ONLY_TRAIN)
    assert {entry.stage: entry.row_count for entry in result.dropped} == {"unrenderable": 2, "target_lost": 1}
    assert result.dropped_rows is not None
    report = ArtifactStore(tmp_path / "artifacts").read_bytes(result.dropped_rows.digest)
    told = {row["id"]: row for row in map(json.loads, report.splitlines())}
    assert "tool" in told[traces[1].digest.hex()]["problem"]
    assert told[traces[2].digest.hex()]["control_text"] == "<end_of_turn>"
    assert told[traces[3].digest.hex()]["lost"] == ["messages[1].content"]
    with pytest.raises(FailedPrecondition, match="2 as unrenderable"):
        built(tmp_path, [traces], unwritable_rows="refuse")


def test_a_dataset_without_conversations_is_what_it_was(tmp_path: Path) -> None:
    traces = [source(number) for number in range(9)]
    alone = built(tmp_path, [traces], chat_template=CHATML)
    mixed = built(tmp_path, [[*traces[:4], spoken(adding(), 99), *traces[4:]]], chat_template=CHATML)
    assert [*alone.splits[0].files] == ["trace", "tunix_sft", "training_example"]
    assert [*mixed.splits[0].files] == [*alone.splits[0].files, "conversation_example"]
    for kind in FORMATS:
        rows = [
            line for name in ("train", "validation", "test") for line in lines(tmp_path, alone, kind, name)
        ]
        others = [
            line for name in ("train", "validation", "test") for line in lines(tmp_path, mixed, kind, name)
        ]
        assert [row for row in others if row["id"] != spoken(adding()).digest.hex()] == rows
    store = ArtifactStore(tmp_path / "artifacts")
    before, after = (json.loads(store.read_bytes(made.digest)) for made in (alone, mixed))
    assert after["spec"].keys() - before["spec"].keys() == {"train_on", "changed_history"}
    assert after["row_formats"].keys() - before["row_formats"].keys() == {
        "conversation",
        "conversation_example",
    }


def test_order_of_arrival_and_batches_change_nothing(tmp_path: Path) -> None:
    traces = [spoken(adding(f"What is {number} + 3?"), number + 1) for number in range(30)]
    traces += [source(number, number + 100) for number in range(30)]
    one = built(tmp_path, [traces], chat_template=CHATML)
    other = built(tmp_path, [traces[40:], traces[:40]], chat_template=CHATML)
    assert one.digest == other.digest


def test_which_conversations_are_duplicates(tmp_path: Path) -> None:
    def made(**changes: Any) -> v1.Trace:
        asking = turn(
            "assistant",
            tool_calls=[
                call(changes.get("name", "add"), changes.get("arguments", "{}"), changes.get("id", "c"))
            ],
        )
        answer = turn("tool", changes.get("result", "5"), tool_call_id=changes.get("id", "c"))
        return conversation(turn("user", "2 + 3?"), asking, answer, turn("assistant", "It is 5."))

    traces = [
        spoken(trace, number)
        for number, trace in enumerate(
            [
                made(),
                made(id="other"),
                made(result="5 "),
                made(name="sum"),
                made(result="6"),
                made(arguments='{"a": 1}'),
            ],
            start=1,
        )
    ]
    result = built(tmp_path, [traces], splits=ONLY_TRAIN, chat_template=CHATML)
    assert [(entry.stage, entry.row_count) for entry in result.dropped] == [("duplicate", 2)]


def test_conversations_that_are_alike_and_questions_that_are_share_a_split(tmp_path: Path) -> None:
    system = turn("system", " ".join(f"rule{number}" for number in range(300)))
    traces = [
        spoken(
            conversation(system, turn("user", f"What of {word}?"), turn("assistant", f"{word} it is.")), at
        )
        for at, word in enumerate(["ants", "bees", "cats"], start=1)
    ]
    near = {"method": "near"}
    result = built(tmp_path, [traces], splits=ONLY_TRAIN, chat_template=CHATML, deduplication=near)
    # The same instruction makes them no more like each other.
    assert result.dropped == ()
    same = [
        spoken(conversation(turn("user", "Why?"), turn("assistant", f"So {number}.")), number)
        for number in range(1, 20)
    ]
    result = built(
        tmp_path, [[*same, *(source(number, number + 50) for number in range(30))]], chat_template=CHATML
    )
    ids = {trace.digest.hex() for trace in same}
    held = [
        {row["id"] for row in lines(tmp_path, result, "trace", split.split)} & ids for split in result.splits
    ]
    assert sorted(map(len, held)) == [0, 0, 19]


def asked(*messages: v1.Message) -> tuple[MatchKind, str] | None:
    trace = spoken(conversation(*messages))
    items = EvalIndex([eval_set("e", LONG, "What is 3 + 4?", "Why?")], 13)
    (match,) = items.matches([trace.texts], [trace.questions])
    return None if match is None else (match.kind, match.item)


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([USER, REPLY], None),
        ([turn("user", LONG[:30], LONG[30:]), REPLY], (MatchKind.EXACT, "item-0")),
        ([USER, REPLY, turn("user", "why?"), REPLY], (MatchKind.EXACT, "item-2")),
        (
            [turn("user", "Now what is 3 + 4?"), REPLY, turn("user", "5"), REPLY],
            (MatchKind.CONTAINED, "item-1"),
        ),
        ([turn("system", f"Asked: {LONG}"), USER, REPLY], (MatchKind.NGRAM, "item-0")),
        ([USER, turn("assistant", "Hi", reasoning=f"So: {LONG}")], (MatchKind.NGRAM, "item-0")),
        (
            [USER, REPLY, turn("user", LONG.replace("fair", "fete").replace("noon", "six")), REPLY],
            (MatchKind.NUMBERS, "item-0"),
        ),
        (
            [USER, turn("assistant", tool_calls=[call("ask", json.dumps({"q": LONG.replace(" ", "\n")}))])],
            (MatchKind.NGRAM, "item-0"),
        ),
        (
            [
                USER,
                turn("assistant", tool_calls=[call("ask", "{}", "c")]),
                turn("tool", json.dumps([{"text": LONG.replace(" ", "\t")}]), tool_call_id="c"),
                REPLY,
            ],
            (MatchKind.NGRAM, "item-0"),
        ),
    ],
)
def test_an_eval_item_is_found_wherever_it_is_said(
    messages: list[v1.Message], expected: tuple[MatchKind, str] | None
) -> None:
    assert asked(*messages) == expected


def test_a_message_is_taken_with_all_that_it_says() -> None:
    trace = spoken(adding())
    assert trace.messages == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is 2 + 3?"},
        {
            "role": "assistant",
            "reasoning": "I had better add.",
            "tool_calls": [{"id": "c1", "name": "add", "arguments": '{"b": 3, "a": 2}'}],
        },
        {"role": "tool", "content": "5", "tool_call_id": "c1", "name": "add"},
        {"role": "assistant", "content": "It is 5."},
    ]
    marked = turn("assistant", "", "a", train=v1.Message.TRAIN_NO)
    assert spoken(conversation(USER, marked)).messages[1] == {
        "role": "assistant",
        "content": ["", "a"],
        "train": False,
    }
    assert (trace.prompt, trace.final_answer, trace.steps) == ("What is 2 + 3?", "It is 5.", [])
    assert trace.said == 'What is 2 + 3?\nI had better add.\nadd\n{"b": 3, "a": 2}\n5\nIt is 5.'

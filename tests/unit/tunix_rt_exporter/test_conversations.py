"""What becomes of conversations in a dataset."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.conversations import adding, call, conversation, turn
from support.datasets import built, eval_set, source, spoken
from tunix_rt import v1
from tunix_rt_exporter.datasets.decontaminate import EvalIndex, MatchKind
from tunix_rt_kit.artifacts import ArtifactStore
from tunix_rt_kit.errors import FailedPrecondition

LONG = "Maya bakes 24 muffins for the fair and sells 15 of them at noon; how many are left for the evening?"


def test_a_conversation_is_left_out_by_name_and_others_are_as_without_it(tmp_path: Path) -> None:
    traces = [source(number) for number in range(9)]
    alone = built(tmp_path, [traces])
    result = built(tmp_path, [[*traces[:4], spoken(adding(), 99), *traces[4:]]])
    assert [(entry.stage, entry.row_count) for entry in result.dropped] == [("conversation", 1)]
    assert (result.trace_count, result.splits) == (10, alone.splits)
    assert result.dropped_rows is not None
    lines = ArtifactStore(tmp_path / "artifacts").read_bytes(result.dropped_rows.digest)
    assert json.loads(lines) == {"id": spoken(adding()).digest.hex(), "stage": "conversation"}


def test_a_dataset_of_conversations_alone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match="1 as conversation"):
        built(tmp_path, [[spoken(adding())]])
    with pytest.raises(FailedPrecondition, match=r"refuses: 1 as conversation"):
        built(tmp_path, [[source(1), spoken(adding())]], unwritable_rows="refuse")


def asked(*messages: v1.Message) -> tuple[MatchKind, str] | None:
    trace = spoken(conversation(*messages))
    items = EvalIndex([eval_set("e", LONG, "What is 3 + 4?", "Why?")], 13)
    (match,) = items.matches([trace.texts], [trace.questions])
    return None if match is None else (match.kind, match.item)


USER, REPLY = turn("user", "Hello"), turn("assistant", "Hi")


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

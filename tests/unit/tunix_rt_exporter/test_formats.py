"""Each format, byte for byte."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from syrupy.assertion import SnapshotAssertion

from support.datasets import built, eval_set, read, source
from tunix_rt_exporter.datasets.model import FORMATS, DatasetFormat, SourceTrace
from tunix_rt_exporter.datasets.render import RenderedRow, RowRenderer, Unwritable
from tunix_rt_kit.artifacts import ArtifactStore
from tunix_rt_kit.canonical import canonical_json
from tunix_rt_kit.chat import ChatTemplate, render_response, trace_messages
from tunix_rt_kit.errors import FailedPrecondition

TRACES = [
    source(0),
    source(
        1,
        prompt='  "Quote" \\ line\nbreak \U0001f600 é  ',
        steps=[
            {"i": 3, "type": "recall", "content": "one\ntwo"},
            {"i": 1, "type": "compute", "content": "1/3 = 0.333"},
        ],
        metadata={"z": 1.5, "a": [None, True, {"k": "v"}], "\ufb33": 1e21, "\U0001f600": -0.0},
    ),
]
ONLY_TRAIN = [{"split": "train", "fraction": 1}]


@pytest.mark.parametrize("kind", FORMATS)
def test_lines_of_each_format(tmp_path: Path, kind: DatasetFormat, snapshot: SnapshotAssertion) -> None:
    result = built(
        tmp_path,
        [TRACES],
        splits=ONLY_TRAIN,
        chat_template={"builtin": "gemma-it", "system_instruction": "Think."},
    )
    assert read(tmp_path, result, "train", kind).decode() == snapshot


def test_lines_in_chatml(tmp_path: Path, snapshot: SnapshotAssertion) -> None:
    result = built(tmp_path, [TRACES], splits=ONLY_TRAIN, chat_template={"builtin": "chatml"})
    assert read(tmp_path, result, "train", "training_example").decode() == snapshot


# No control text of a template.
texts = st.text(st.characters(exclude_characters="<", codec="utf-8"), max_size=30)
metadata = st.dictionaries(
    st.sampled_from(["", "a", "source", "source_trace_id", "source_trace_ie", "z", "\ufb33", "\U0001f600"])
    | texts,
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(-1e9, 1e9) | texts,
    max_size=4,
)


@given(prompt=texts, contents=st.lists(texts, max_size=3), answer=texts.filter(bool), metadata=metadata)
@settings(deadline=None)
@pytest.mark.parametrize("builtin", ["gemma-it", "chatml"])
def test_lines_are_canonical_and_hold_what_was_given(
    builtin: str, prompt: str, contents: list[str], answer: str, metadata: dict[str, Any]
) -> None:
    steps = [{"i": i, "type": content[:3], "content": content} for i, content in enumerate(contents)]
    trace = SourceTrace(1, bytes(range(32)), prompt, steps, answer, metadata)
    (row,) = RowRenderer(ChatTemplate.built_in(builtin), "numbered").render([trace])
    reply = render_response(contents, answer)
    if builtin == "gemma-it" and reply != reply.strip():
        assert row == Unwritable("target_lost", {"lost": ["answer"]})
        return
    assert isinstance(row, RenderedRow)
    read = [json.loads(line) for line in row.lines]
    assert [canonical_json(each) + b"\n" for each in read] == list(row.lines)
    shared = {"id": bytes(range(32)).hex(), "final_answer": answer, "metadata": metadata}
    assert read[0] == {**shared, "prompts": prompt, "trace_steps": steps}
    in_gemma = f"user\n{prompt}<end_of_turn>\n<start_of_turn>model\n{reply}<end_of_turn>\n"
    assert read[1] == {**shared, "prompts": f"<start_of_turn>{in_gemma}"}
    assert read[2]["metadata"] == {**metadata, "source_trace_id": shared["id"]}
    assert ChatTemplate.built_in(builtin).split_examples([trace_messages(prompt, contents, answer)]) == [
        (read[2]["prompt"], read[2]["response"])
    ]


def test_manifest(tmp_path: Path, snapshot: SnapshotAssertion) -> None:
    traces = [*TRACES, *(source(number) for number in range(2, 12)), source(2, sequence=99)]
    marked = source(50, final_answer="<start_of_turn>")
    result = built(tmp_path, [[*traces, marked]], [eval_set("a", "what is 4 + 1?")], seed=(1 << 63) + 1)
    data = ArtifactStore(tmp_path / "artifacts").read_bytes(result.digest)
    assert json.loads(data) == snapshot
    # A sentence may be put better without making another dataset.
    assert not [entry.reason for entry in result.dropped if entry.reason.encode() in data]
    assert [(entry.stage, entry.row_count) for entry in result.dropped] == [
        ("duplicate", 1),
        ("contaminated", 1),
        ("unrenderable", 1),
    ]


def test_statistics(tmp_path: Path) -> None:
    steps = [{"i": i, "type": "t", "content": "x"} for i in range(101)]
    traces = [source(count, steps=steps[:count]) for count in range(1, 101)]
    spread = built(tmp_path, [traces], splits=ONLY_TRAIN).statistics.steps
    assert (spread.minimum, spread.mean, spread.median, spread.p95, spread.maximum) == (
        1,
        50.5,
        50.5,
        95,
        100,
    )


def test_an_empty_dataset_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match="no trace of snapshot 5 matches"):
        built(tmp_path, [], as_of=5)
    with pytest.raises(FailedPrecondition, match=r"every matching trace was dropped: 1 as contaminated"):
        built(tmp_path, [[source(1)]], [eval_set("a", "What is 1 + 1?")])
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_failure_while_rows_are_written_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunix_rt_exporter.datasets.rows.RowStore.lines", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        built(tmp_path, [TRACES])
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]

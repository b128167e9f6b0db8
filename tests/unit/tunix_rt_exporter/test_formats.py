"""Each format, byte for byte."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from syrupy.assertion import SnapshotAssertion

from support.datasets import built, eval_set, read, source
from tunix_rt_exporter.model import FORMATS, DatasetFormat
from tunix_rt_kit.artifacts import ArtifactStore
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


def test_manifest(tmp_path: Path, snapshot: SnapshotAssertion) -> None:
    traces = [*TRACES, *(source(number) for number in range(2, 12)), source(2, sequence=99)]
    marked = source(50, final_answer="<start_of_turn>")
    result = built(tmp_path, [[*traces, marked]], [eval_set("a", "what is 4 + 1?")], seed=(1 << 63) + 1)
    data = ArtifactStore(tmp_path / "artifacts").read_bytes(result.digest)
    assert json.loads(data) == snapshot
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
    monkeypatch.setattr("tunix_rt_exporter.spool.RowSpool.lines", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        built(tmp_path, [TRACES])
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]

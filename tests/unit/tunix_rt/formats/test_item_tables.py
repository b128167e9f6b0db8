"""Eval items in CSV and TSV, and in lines of a prompt and its answer."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tunix_rt import v1
from tunix_rt.formats import FormatError, ItemReading, eval_items, read_eval_items


def items(text: str, format: Any = "csv", **options: Any) -> list[v1.EvalItem]:
    return read_eval_items(io.BytesIO(text.encode()), ItemReading(format, **options))


def refusal(text: str, format: Any = "csv", **options: Any) -> str:
    with pytest.raises(FormatError) as caught:
        items(text, format, **options)
    return str(caught.value)


def test_a_table_holds_every_field_of_an_item() -> None:
    (item,) = items(
        "id,prompt,accepted_answers,grader,tolerance,category,difficulty,cluster,page,train\n"
        'a,q,4|four,"{""kind"": ""numeric""}",0.5,sums,easy,c,7,false\n',
        answer_separator="|",
    )
    expected = v1.EvalItem(
        id="a",
        prompt="q",
        accepted_answers=["4", "four"],
        grader=v1.Grader(numeric=v1.NumericGrader(tolerance=0.5)),
        category="sums",
        difficulty="easy",
        cluster="c",
    )
    expected.metadata.update({"page": "7", "train": "false"})
    assert item == expected


@pytest.mark.parametrize(
    ("answer", "options", "kind", "accepted"),
    [
        ("4", {}, "numeric", ["4"]),
        ("Paris", {}, "text", ["Paris"]),
        (r"\sqrt{2}", {}, "math", [r"\sqrt{2}"]),
        ("Paris", {"grader": "math"}, "math", ["Paris"]),
        ('"one\n#### 1,200"', {}, "numeric", ["1200"]),
        ("<think>r</think>x", {}, "text", ["x"]),
        ("4 | four", {"answer_separator": "|"}, "text", ["4", "four"]),
        ("4 | four", {"answer_separator": "none"}, "text", ["4 | four"]),
        ('"[""4"", ""5""]"', {"answer_separator": "json"}, "numeric", ["4", "5"]),
    ],
)
def test_answers_and_their_grader(
    answer: str, options: dict[str, Any], kind: str, accepted: list[str]
) -> None:
    (item,) = items(f"question,answer\nq,{answer}\n", **options)
    assert (item.grader.WhichOneof("kind"), list(item.accepted_answers)) == (kind, accepted)


def test_an_item_without_an_id_has_that_of_its_prompt() -> None:
    (table,), (line,) = items("question,answer\nq,4\n"), items('{"prompt": "q", "completion": 4}', "auto")
    assert table == line
    assert len(table.id) == 16


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("question,answer\nq,4|four\n", "line 2: accepted_answers: '4|four' may be several answers"),
        ('question,answer\nq,"[""4"", ""5""]"\n', "--answer-separator 'json'"),
        ('question,answer\nq,"a\nb"\n', "if each cell is one answer: --answer-separator none"),
        ("question,answer\nq,4\nr,5\nq,5\n", "line 4: prompt: is the same as on line 2"),
        ("prompt,answer,grader\nq,4,numerik\n", "line 2: grader: kind is 'numerik'"),
        ("prompt,answer,tolerance\nq,4,much\n", "line 2: tolerance: is 'much', not a number"),
        ("prompt,answer\nq,\n", "accepted_answers: needs at least 1"),
        ("question,answer,choices\nq,4,x\n", "'choices' may be a part of the question"),
        ("question,answer\n", "holds no eval items"),
        ("question,answer\nq\n", "line 2: has 1 cell, the header 2"),
        ("question,answer\n,4\n", "line 2: prompt: is missing or empty"),
        ("question,answer\nq,4\nQuestion,Answer\n", "line 3: is the header once more"),
    ],
)
def test_a_table_that_leaves_a_doubt_is_refused(text: str, said: str) -> None:
    assert said in refusal(text)


def test_more_items_than_a_set_holds_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eval_items, "MAX_ITEMS", 3)
    read = 0

    def rows() -> Iterator[bytes]:
        nonlocal read
        yield b"prompt,answer\n"
        for read in range(1, 1_000):
            yield b"q%d,4\n" % read

    def first(limit: int | None) -> list[str]:
        return [item.prompt for item in read_eval_items(Lines(rows()), ItemReading("csv"), limit)]

    assert first(2) == ["q1", "q2"]
    for limit in (None, 4):
        with pytest.raises(FormatError, match="line 5: holds more than 3 items"):
            first(limit)
    assert read < 1_000
    monkeypatch.setattr(eval_items, "MAX_EVAL_SET_BYTES", 50)
    with pytest.raises(FormatError, match="line 3: up to here, its items are more than the 50 bytes"):
        first(None)


class Lines(io.BytesIO):
    """A file whose lines are made when they are read."""

    def __init__(self, lines: Iterator[bytes]) -> None:
        super().__init__()
        self._lines = lines

    def readline(self, _: int | None = -1, /) -> bytes:
        return next(self._lines, b"")

    def peek(self, _: int = 0) -> bytes:
        return b"prompt"


def test_one_grader_per_row_may_need_no_answer() -> None:
    (item,) = items('prompt,grader\nq,"{""kind"": ""json_schema"", ""schema"": {}}"\n')
    assert item.grader.WhichOneof("kind") == "json_schema"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"trace_version": "1.0", "prompt": "q", "steps": [], "final_answer": "a"}, "--format native"),
        ({"messages": []}, "--format chat"),
        ({"question": "q", "answer": "4"}, "--format gsm8k"),
        ({"prompts": "q", "trace_steps": []}, "--format dataset"),
        ({"task": "q", "solution": "4"}, "--format prompt-completion --column prompt=KEY"),
    ],
)
def test_lines_of_something_else_say_what_takes_them(line: dict[str, Any], said: str) -> None:
    assert said in refusal(json.dumps(line), "auto")


def test_other_keys_are_named_and_parquet_is_told_of(tmp_path: Path) -> None:
    line = json.dumps({"task": "q", "solution": ["4", "5"], "n": 1})
    columns = {"prompt": "task", "accepted_answers": "solution"}
    (item,) = items(line, "prompt-completion", columns=columns)
    assert (list(item.accepted_answers), dict(item.metadata)) == (["4", "5"], {"n": 1})
    (tmp_path / "x").write_bytes(b"PAR1")
    with pytest.raises(FormatError, match="--format parquet"):
        read_eval_items(tmp_path / "x")
    own = json.dumps({"id": "a", "prompt": "q", "accepted_answers": ["4"], "grader": "numeric"})
    assert "have no columns" in refusal(own, "auto", columns={"prompt": "x"})

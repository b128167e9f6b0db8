"""Traces in Parquet files."""

from __future__ import annotations

import datetime
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.traces import trace
from tunix_rt import v1
from tunix_rt.formats import FormatError, read_records, read_traces, row_count, trace_to_json

MAPPED = {"prompt": "problem", "steps": "solution", "final_answer": "answer"}
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=30)


def file_of(**columns: Any) -> io.BytesIO:
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    file.seek(0)
    return file


def problems(**changes: Any) -> io.BytesIO:
    columns = {"problem": ["1 + 1?"], "solution": ["One.\n\nAnd one."], "answer": ["2"]} | changes
    return file_of(**columns)


def steps(entry: v1.Trace) -> list[str]:
    return [step.content for step in entry.steps]


@settings(deadline=None)
@given(st.lists(st.tuples(TEXTS, st.lists(TEXTS, min_size=1, max_size=4), TEXTS), min_size=1, max_size=5))
def test_native_rows_are_the_same_traces_as_native_lines(rows: list[tuple[str, list[str], str]]) -> None:
    written = [
        trace(
            0,
            prompt=prompt,
            final_answer=answer,
            steps=[v1.TraceStep(i=i, type="t", content=text) for i, text in enumerate(contents)],
        )
        for prompt, contents, answer in rows
    ]
    documents = [json.loads(trace_to_json(entry)) for entry in written]
    file = file_of(**{key: [document[key] for document in documents] for key in documents[0]})
    assert list(read_traces(file)) == written


def test_columns_are_named_and_the_rest_is_not_read() -> None:
    file = problems(other=[b"\xff"], level=[3], when=[datetime.date(2026, 1, 31)])
    columns = MAPPED | {"metadata.level": "level", "metadata.when": "when", "source": "problem"}
    (read,) = read_traces(file, columns=columns)
    assert (read.trace_version, read.prompt, read.final_answer, read.source) == (
        "1.0",
        "1 + 1?",
        "2",
        "1 + 1?",
    )
    assert [(step.i, step.type, step.content) for step in read.steps] == [
        (0, "reason", "One."),
        (1, "reason", "And one."),
    ]
    assert dict(read.metadata) == {"level": 3, "when": "2026-01-31"}


@pytest.mark.parametrize(
    ("solution", "expected"),
    [
        (["a\n\nb"], ["a", "b"]),
        ([["a", "b c"]], ["a", "b c"]),
        ([[{"i": 4, "type": "t", "content": "a"}]], ["a"]),
        ([b"a\n\nb"], ["a", "b"]),
        (["all:\n\tcc a.c\n\n\t./a\n\nb "], ["all:\n\tcc a.c\n\n\t./a", "b "]),
    ],
)
def test_steps_are_a_text_or_a_list_of_texts_or_of_steps(solution: Any, expected: list[str]) -> None:
    (read,) = read_traces(problems(solution=solution), columns=MAPPED)
    assert steps(read) == expected


def test_a_whole_number_is_an_answer() -> None:
    (read,) = read_traces(problems(answer=[42]), columns=MAPPED)
    assert read.final_answer == "42"


def test_gsm8k_and_chats_are_told_by_their_columns() -> None:
    (first,) = read_traces(file_of(question=["q"], answer=["One.\n#### 1"]))
    assert (first.source, first.final_answer) == ("gsm8k", "1")
    # Columns of structures have every field in every row, null where there is none.
    messages = [
        [
            {"role": "user", "content": "q", "thinking": None},
            {"role": "assistant", "content": "a", "thinking": "r"},
        ]
    ]
    (second,) = read_traces(file_of(messages=messages, id=["x"]))
    assert (second.prompt, steps(second), second.final_answer) == ("q", ["r"], "a")
    assert dict(second.metadata) == {"id": "x"}
    (third,) = read_traces(file_of(chat=messages), "chat", columns={"messages": "chat"})
    assert third.prompt == "q"


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (None, "its columns (problem, solution, answer) are not named as the fields of a trace"),
        (
            MAPPED | {"steps": "slution"},
            "has no column 'slution' for steps; it has problem, sol",
        ),
        (MAPPED | {"promt": "problem"}, "column 'problem': 'promt' is no field; one of prompt, steps"),
        ({"prompt": "problem"}, "no column is named for steps and final_answer"),
    ],
)
def test_columns_that_make_no_trace_are_refused_before_the_first_row(columns: Any, said: str) -> None:
    with pytest.raises(FormatError) as caught:
        next(read_records(problems(), columns=columns))
    assert said in str(caught.value)
    assert caught.value.line == 0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"answer": [None]}, "line 1: final_answer: is missing"),
        ({"answer": [1.5]}, "line 1: final_answer: is 1.5 (a number); expected string"),
        ({"answer": [b"\xff"]}, "line 1: not JSON: not UTF-8"),
        ({"solution": [""]}, "line 1: steps: needs at least 1"),
        ({"problem": ["a\0"]}, "line 1: prompt: holds a NUL character"),
    ],
)
def test_a_wrong_row_is_named(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(FormatError) as caught:
        list(read_traces(problems(**changes), columns=MAPPED))
    assert said.replace("not JSON: ", "") in str(caught.value)


def test_rows_behind_a_wrong_one_are_read() -> None:
    file = problems(problem=["a", "", "c"], solution=["s"] * 3, answer=["1"] * 3)
    records = list(read_records(file, columns=MAPPED))
    assert [record.trace.prompt if record.trace else None for record in records] == ["a", None, "c"]
    assert [record.number for record in records] == [1, 2, 3]
    # What was wrong can be mended as a line of JSON.
    mended = records[1].line.replace(b'"prompt": ""', b'"prompt": "b"')
    assert next(read_traces(io.BytesIO(mended))).prompt == "b"


def test_what_is_no_parquet_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1" + bytes(100))
    with pytest.raises(FormatError, match=r"a\.parquet: cannot be read as Parquet"):
        list(read_traces(tmp_path / "a.parquet"))
    with pytest.raises(FormatError, match="cannot be read as Parquet"):
        list(read_traces(io.BytesIO(b"{}"), "parquet"))
    with pytest.raises(FormatError, match="is no Parquet file"):
        list(read_traces(io.BytesIO(b"{}"), columns=MAPPED))


def test_a_pipe_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stdin:
        buffer = io.BufferedReader(problems())  # type: ignore[arg-type]

    monkeypatch.setattr("sys.stdin", Stdin)
    with pytest.raises(FormatError, match="standard input: is Parquet, which cannot be read from a pipe"):
        list(read_traces("-"))


def test_a_large_row_group_is_read_in_parts(tmp_path: Path) -> None:
    count = 20_000
    table = pa.table(
        {
            "problem": [f"{i} {'x' * 4000}" for i in range(count)],
            "solution": ["s"] * count,
            "answer": list(range(count)),
        }
    )
    pq.write_table(
        table, tmp_path / "t.parquet", row_group_size=count, compression="none", use_dictionary=False
    )
    size = table.nbytes
    del table
    before = pa.total_allocated_bytes()
    highest = 0
    for _ in read_traces(tmp_path / "t.parquet", columns=MAPPED):
        highest = max(highest, pa.total_allocated_bytes() - before)
    assert row_count(tmp_path / "t.parquet") == count
    assert 0 < highest < size / 4

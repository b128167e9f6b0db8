"""Traces in CSV and TSV, and in lines of a prompt and its completion."""

from __future__ import annotations

import csv
import gzip
import io
import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunix_rt import v1
from tunix_rt.formats import FormatError, Record, TraceFormat, read_records, read_traces

# A row of blank cells is no row, and a lone carriage return is no line end.
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=30)
PLAIN = TEXTS.filter(lambda text: bool(text.strip()) and not text.lstrip().startswith("["))


def records(text: str | bytes, format: TraceFormat = "csv", **options: Any) -> list[Record]:
    data = text.encode() if isinstance(text, str) else text
    return list(read_records(io.BytesIO(data), format, **options))


def traces(text: str, format: TraceFormat = "csv", **options: Any) -> list[v1.Trace]:
    return list(read_traces(io.BytesIO(text.encode()), format, **options))


def parts(trace: v1.Trace) -> tuple[str, list[str], str]:
    return trace.prompt, [step.content for step in trace.steps], trace.final_answer


def refusal(text: str | bytes, **options: Any) -> str:
    with pytest.raises(FormatError) as caught:
        records(text, **options)
    return str(caught.value)


@settings(deadline=None)
@given(st.lists(st.tuples(PLAIN, PLAIN, PLAIN), min_size=1, max_size=5), st.sampled_from(["csv", "tsv"]))
def test_what_python_writes_is_read_as_it_was(rows: list[tuple[str, str, str]], kind: TraceFormat) -> None:
    file = io.StringIO()
    writer = csv.writer(file, delimiter="," if kind == "csv" else "\t")
    writer.writerows([("prompt", "steps", "answer"), *rows])
    read = traces(file.getvalue(), kind)
    assert [(prompt, "\n\n".join(steps), answer) for prompt, steps, answer in map(parts, read)] == rows


@pytest.mark.parametrize(
    ("header", "row", "expected"),
    [
        ("prompt,completion", 'q,"<think>r\n\ns</think>a"', ("q", ["r", "s"], "a")),
        ("Question, Reasoning ,ANSWER", "q,r,a", ("q", ["r"], "a")),
        ("instruction,output", 'q,"one\ntwo\n#### 1,200"', ("q", ["one", "two"], "1200")),
        ("question,answer", 'q,"<<1+1=2>>two\n#### 2"', ("q", ["two"], "2")),
        ("prompt,steps,final_answer", 'q,"[""r"", ""s""]",a', ("q", ["r", "s"], "a")),
        (
            "messages",
            '"[{""role"":""user"",""content"":""q""},{""role"":""assistant"",""content"":""<think>r</think>a""}]"',
            ("q", ["r"], "a"),
        ),
        ("prompt,steps,answer", 'q,"[1, 2]",a', ("q", ["[1, 2]"], "a")),
    ],
)
def test_columns_are_known_by_their_names(header: str, row: str, expected: tuple[Any, ...]) -> None:
    (read,) = traces(f"\ufeff{header}\r\n{row}\r\n")
    assert parts(read) == expected


def test_gsm8k_in_a_table_is_the_same_traces_as_in_lines() -> None:
    row = {"question": 'How "many"?', "answer": "1 + 1 = <<1+1=2>>2\nso two\n#### 2"}
    file = io.StringIO()
    csv.writer(file).writerows([row.keys(), row.values()])
    assert traces(file.getvalue()) == traces(json.dumps(row), "gsm8k")


def test_other_columns_become_metadata_as_texts_and_empty_cells_are_left_out() -> None:
    text = (
        ',prompt,steps,answer,level,metadata,metadata.a,source\n0,q,r,a,3,"{""b"": 1}",x,mine\n,q,r,a,,,,\n'
    )
    first, second = traces(text)
    assert dict(first.metadata) == {"column_1": "0", "level": "3", "b": 1, "a": "x"}
    assert first.source == "mine"
    assert dict(second.metadata) == {}


def test_columns_that_are_named_win_and_settle_what_is_in_doubt() -> None:
    text = "instruction,input,output,why\nq,i,a,r\n"
    assert "'instruction' and 'input' may each be the prompt" in refusal(text)
    (read,) = traces(text, columns={"prompt": "instruction", "steps": "why", "metadata.in": "input"})
    assert parts(read) == ("q", ["r"], "a")
    assert dict(read.metadata) == {"in": "i"}
    (twice,) = traces("p;c\nq;a\n", delimiter=";", columns={"prompt": "p", "steps": "c", "completion": "c"})
    assert parts(twice) == ("q", ["a"], "a")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty; expected a line that names the columns"),
        ("prompt,x,prompt\n", "line 1: its header names columns 1 and 3 alike: 'prompt'"),
        ("What is 2+2?,4\n", "none of its columns (What is 2+2?, 4) has a name that means the prompt"),
        ("task,result\nq,4\n", "say which are: --column prompt=COLUMN --column completion=COLUMN"),
        ("prompt,answer,response\n", "'answer' and 'response' may each be the completion"),
        ("question,context,answer\n", "'context' may be a part of the question"),
        ("question,A,B,answer\n", "'A' may be a part of the question"),
        ("Prompt;Steps;Answer\n", "--delimiter ';'"),
        ("sep=;\nPrompt;Steps;Answer\n", "is 'sep=;', which tells Excel"),
        ("sep=,\nPrompt,Steps,Answer\n", "is 'sep=,', which tells Excel"),
        ("Prompt\tSteps\tAnswer\n", "--delimiter tab"),
        ('prompt,completion\nq,a\n"q,\nb,c\n', "line 3: a quote that opens in this row is never closed"),
        ('prompt,completion\n"q"x,a\n', "line 2: text follows the quote that closes a cell"),
        ("prompt,completion\rq,a\r", "carriage returns alone"),
        ("prompt,completion\nq,a\n".encode("utf-16"), "is UTF-16, expected UTF-8"),
        ("prompt,completion\nq,a\n".encode("utf-16-le"), "is UTF-16, expected UTF-8"),
        ('{"prompt": "q"}\n', "begins with JSON"),
        ('\n[{"prompt": "q", "completion": "a"}]\n', "line 2: begins with JSON"),
        ("  \n \n", "is empty; expected a line that names the columns"),
        (b"PAR1....PAR1", "give --format parquet"),
        ('prompt,completion\n"' + "x\n" * (5 << 20), "line 2: a row that begins here is longer than 8 MiB"),
        (b"prompt,completio\xf6n\n", "its header holds bytes that are not UTF-8"),
    ],
)
def test_a_table_that_is_wrong_as_a_whole_is_refused(text: str | bytes, said: str) -> None:
    assert said in refusal(text)


@pytest.mark.parametrize(
    "again", ["Prompt , COMPLETION,", "\ufeffprompt,completion,", '\ufeff"prompt","completion",']
)
def test_a_header_in_the_middle_is_no_trace(again: str) -> None:
    text = f"\ufeff\ufeffprompt,completion,\nq,<think>r</think>a,\n{again}\n"
    first, second = records(text, answers_only=True)
    assert first.trace is not None
    assert "line 3: is the header once more" in str(second.error)


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"prompt": "q", "completion": "q"}, "column 'q' is given for both prompt and completion"),
        ({"prompt": "q", "steps": "q", "completion": "a"}, "is given for both prompt and steps"),
        ({"messages": "m", "prompt": "q"}, "messages holds whole chats, so that it is given without prompt"),
        ({"messages": "m", "conversations": "a"}, "is given without conversations"),
    ],
)
def test_columns_that_cannot_be_meant_together_are_refused(columns: dict[str, str], said: str) -> None:
    assert said in refusal("q,a,m\nx,y,[]\n", columns=columns)


def test_half_a_character_is_no_byte_of_a_text() -> None:
    """Two of them in a row would be read as the letter of these bytes."""
    line = '{"prompt": "\\udcc3\\udca9", "completion": "\\ud83d\\ude00"}\n'
    (found,) = records(line, "prompt-completion", answers_only=True)
    assert "half of a character" in str(found.error)
    (whole,) = records(line.replace("\\udcc3\\udca9", "q"), "prompt-completion", answers_only=True)
    assert whole.trace is not None
    assert whole.trace.final_answer == "\U0001f600"


def test_an_empty_cell_and_metadata_given_twice_are_named() -> None:
    rows = records('prompt,completion,metadata,metadata.x\n,a,,\nq,,,\nq,a,"{""x"": 1}",2\n')
    assert [str(row.error).split(": ", 1)[1] for row in rows] == [
        "prompt: is missing or empty",
        "completion: is missing or empty",
        "metadata.x: is in the metadata, and in a column of its own",
    ]


def test_rows_that_are_wrong_are_named_and_the_rest_is_read() -> None:
    rows = (
        b"prompt,steps,answer\nq\nq,r,a,extra\nprompt,steps,answer\nsch\xf6n,r,a\n"
        b"q,\"['r', 's']\",a\nq\0,r,a\n"
        b'"multi\nline",,a\nq,r,a\n'
    )
    *wrong, good = records(rows)
    assert [(record.number, str(record.error).split(": ", 1)[1][:40]) for record in wrong] == [
        (2, "has 1 cell, the header 3; a cell with a "),
        (3, "has 4 cells, the header 3; a cell with a"),
        (4, "is the header once more; files that were"),
        (5, "holds bytes that are not UTF-8; convert "),
        (6, "steps: looks like a list, and is none in"),
        (7, "prompt: holds a NUL character"),
        (8, "completion: has no reasoning; if these a"),
    ]
    assert json.loads(wrong[1].line) == {"prompt": "q", "steps": "r", "answer": "a", "column_4": "extra"}
    assert good.number == 10
    assert good.trace is not None


@pytest.mark.parametrize(("column", "cell"), [("train", "False"), ("weight", "0"), ("masked", "1")])
def test_rows_that_are_not_to_be_learned_are_refused(column: str, cell: str) -> None:
    (wrong,) = records(f"prompt,steps,answer,{column}\nq,r,a,{cell}\n")
    assert "the answer of a trace is learned whole" in str(wrong.error)


def test_a_cell_may_be_as_long_as_a_trace_allows() -> None:
    steps = "\n\n".join("x" * 19_000 for _ in range(10))
    (read,) = traces(f'prompt,steps,answer\nq,"{steps}",a\n')
    assert sum(len(step.content) for step in read.steps) == 190_000


@pytest.mark.parametrize("name", ["t.csv", "t.CSV", "t.tsv", "t.csv.gz", "t.tsv.gz"])
def test_the_name_of_a_file_says_what_it_is(tmp_path: Path, name: str) -> None:
    mark = "\t" if "tsv" in name else ","
    data = "prompt,steps,answer\nq,r,a\n".replace(",", mark).encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    assert [parts(read) for read in read_traces(tmp_path / name)] == [("q", ["r"], "a")]


def test_a_long_table_takes_little_memory() -> None:
    class Endless(io.RawIOBase):
        """A header, and then rows without end."""

        def __init__(self) -> None:
            self.rows: Iterator[bytes] = iter([b"prompt,steps,answer\n"])

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            line = next(self.rows, b'"q, ""r""","' + b"step\n" * 100 + b'",a\n')
            buffer[: len(line)] = line
            return len(line)

    read = read_records(Endless(), "csv")  # type: ignore[arg-type]
    next(read)
    tracemalloc.start()
    for _, record in zip(range(3_000), read, strict=False):
        assert record.error is None
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


CHAT = {"role": "assistant", "content": "<think>r</think>a"}


@pytest.mark.parametrize(
    "line",
    [
        {"prompt": "q", "completion": "<think>r</think>a"},
        {"prompt": [{"role": "user", "content": "q"}], "completion": [CHAT]},
        {"prompt": "q", "completion": [CHAT]},
        {"prompt": "q", "completion": "r\n#### 1", "level": 3},
        {"prompt": "q", "completion": "<think>r</think>a", "reasoning": None, "metadata": {"level": 3}},
    ],
)
def test_prompts_and_completions_are_known_by_their_keys(line: dict[str, Any]) -> None:
    (read,) = traces(json.dumps(line), "auto")
    prompt, steps, answer = parts(read)
    assert (prompt, steps) == ("q", ["r"])
    assert answer in ("a", "1")
    assert dict(read.metadata) in ({}, {"level": 3})


def test_other_keys_are_named() -> None:
    line = json.dumps({"task": "q", "result": "a", "work": ["r", "s"], "n": 3})
    columns = {"prompt": "task", "completion": "result", "steps": "work"}
    (read,) = traces(line, "prompt-completion", columns=columns)
    assert (parts(read), dict(read.metadata)) == (("q", ["r", "s"], "a"), {"n": 3})
    (known,) = traces('{"question": "q", "response": "<think>r</think>a"}', "prompt-completion")
    assert parts(known) == ("q", ["r"], "a")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"prompt": "q", "completion": "a"}, "completion: has no reasoning"),
        ({"prompt": "q", "completion": "Intro\n#### Details"}, "completion: has no reasoning"),
        ({"prompt": "q", "completion": ""}, "completion: is missing or empty"),
        ({"prompt": "q", "completion": None}, "completion: is missing or empty"),
        ({"prompt": "q", "completion": 3}, "completion: is no string"),
        ({"prompt": "q", "completion": "<think>r</think>a", "weight": 0}, "the answer of a trace is learned"),
        ({"prompt": "q", "completion": "<think>r"}, "completion: opens <think> and never closes it"),
        ({"prompt": [{"role": "user", "content": ""}], "completion": [CHAT]}, "prompt[0].content: is empty"),
        ({"prompt": [CHAT], "completion": [CHAT]}, "messages: has no user turn"),
    ],
)
def test_a_wrong_prompt_or_completion_is_named(line: dict[str, Any], said: str) -> None:
    (wrong,) = records(json.dumps(line), "auto")
    assert said in str(wrong.error)


def test_answers_without_reasoning_are_taken_when_asked_for() -> None:
    for text, format in (
        ("prompt,completion\nq,a\n", "csv"),
        ('{"prompt": "q", "completion": "a"}', "auto"),
    ):
        (wrong,) = records(text, format)  # type: ignore[arg-type]
        assert "import them with --answers-only" in str(wrong.error)
        (read,) = traces(text, format, answers_only=True)  # type: ignore[arg-type]
        assert (parts(read), read.steps[0].type) == (("q", ["a"], "a"), "answer")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"%PDF-1.7\n", "is a PDF; expected JSON lines, CSV, TSV or Parquet"),
        (b"PK\x03\x04...", "is a ZIP archive; unpack it"),
        (b"BZh91AY", "bzip2 -dc"),
        (b"ARROW1\0\0", "is an Arrow file"),
        (b"\x89PNG\r\n", "is an image"),
        (b"<!DOCTYPE html>", "is a web page"),
        (b"\x00\x01\x02", "is no text"),
        (b"a/b" + b"\0" * 254 + b"ustar", "is a tar archive"),
        (b"prompt,answer\nq,a\n", "a table is read with --format csv or --format tsv"),
        (
            b'{"id": "a", "prompt": "q", "accepted_answers": ["1"], "grader": "text"}',
            "tunix-rt evalset import",
        ),
        (b'{"prompt": "q", "chosen": "a", "rejected": "b"}', "--column completion=chosen"),
        (b'{"asked": "q", "output": "a"}', "--format prompt-completion"),
        (b'{"question": "q", "answer": "a"}', "--format prompt-completion"),
        (b'{"text": "once upon a time"}', "nothing takes it"),
    ],
)
def test_what_is_something_else_is_named_with_what_takes_it(data: bytes, said: str) -> None:
    with pytest.raises(FormatError) as caught:
        list(read_traces(io.BytesIO(data)))
    assert said in str(caught.value)


def test_a_workbook_and_folders_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.xlsx").write_bytes(b"PK\x03\x04...")
    with pytest.raises(FormatError, match="is an Excel workbook; save the sheet as CSV"):
        list(read_traces(tmp_path / "a.xlsx"))
    (tmp_path / "b.csv.gz").touch()
    with pytest.raises(FormatError, match=r"is a folder; give a file: in it are b\.csv\.gz"):
        list(read_traces(tmp_path))
    (tmp_path / "config.json").touch()
    with pytest.raises(FormatError, match="is the folder of a model"):
        list(read_traces(tmp_path))

"""Reading goes on behind a wrong line, and a file of wrong lines can be mended and read."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.traces import trace
from tunix_rt.formats import BadLine, FormatError, Record, read_records, read_traces, trace_to_json
from tunix_rt.formats import lines as lines_module

GOOD = [trace_to_json(trace(number)).encode() for number in range(3)]


def records(*lines: bytes, format: Any = "auto") -> list[Record]:
    return list(read_records(io.BytesIO(b"\n".join(lines)), format))


def test_each_line_is_a_trace_or_an_error() -> None:
    read = records(GOOD[0], b"{", b"", GOOD[1], b'{"prompt": ""}', GOOD[2])
    assert [(record.number, record.trace is not None) for record in read] == [
        (1, True), (2, False), (4, True), (5, False), (6, True),
    ]  # fmt: skip
    assert [record.error is None for record in read] == [record.trace is not None for record in read]
    assert [record.line for record in read] == [GOOD[0], b"{", GOOD[1], b'{"prompt": ""}', GOOD[2]]


@pytest.mark.parametrize(
    ("line", "key"),
    [
        (GOOD[0][:-1] + b', "final_answer": "43"}', "final_answer"),
        (GOOD[0][:-1] + b', "metadata": {"a": 1, "b": {"c": 1, "\\u0063": 1}}}', "c"),
        (b'{"question": "q", "answer": "r\\n#### 1", "question": "p"}', "question"),
        (b'{"messages": [{"role": "user", "content": "a", "content": "b"}]}', "content"),
    ],
)
def test_a_key_that_stands_twice_in_an_object_is_named(line: bytes, key: str) -> None:
    first, second = records(GOOD[1], line) if line.startswith(GOOD[0][:9]) else [None, *records(line)]
    assert first is None or first.error is None
    assert f"{key}: stands twice in one object" in str(second and second.error)


def test_the_first_line_that_can_be_read_tells_the_format() -> None:
    gsm8k = json.dumps({"question": "q", "answer": "r\n#### 1"}).encode()
    read = records(b"{", b'{"other": 1}', gsm8k, GOOD[0])
    assert [record.trace is not None for record in read] == [False, False, True, False]


def test_a_line_that_is_too_long_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines_module, "MAX_LINE_BYTES", 1000)
    for length in (1001, 1002, 5000):
        read = records(GOOD[0], b"x" * length, GOOD[1])
        assert [record.trace is not None for record in read] == [True, False, True]
        assert "line 2: is longer than" in str(read[1].error)
    assert len(records(GOOD[0], b"x" * 1001)) == 2
    fits = GOOD[0][:-1] + b" " * (1000 - len(GOOD[0])) + b"}"
    assert [record.trace for record in records(fits, GOOD[1])] == [trace(0), trace(1)]


@settings(deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=60).filter(lambda line: line.strip() == line), max_size=4))
def test_any_bytes_come_back_out_of_a_file_of_errors(lines: list[bytes]) -> None:
    kept = [BadLine(number, "why", line).to_json() for number, line in enumerate(lines, 1)]
    read = list(read_records(io.StringIO("\n".join(kept))))
    assert [record.line for record in read] == lines


def test_a_file_of_errors_may_mix_forms_and_is_wrong_line_by_line() -> None:
    gsm8k = json.dumps({"question": "q", "answer": "r\n#### 1"}).encode()
    kept = [BadLine(7, "why", line).to_json().encode() for line in (GOOD[0], gsm8k, b"{")]
    read = records(*kept, GOOD[1])
    assert [record.trace is not None for record in read] == [True, True, False, False]
    assert "line 3: not JSON" in str(read[2].error)
    assert "line 4: is no line of a file of errors" in str(read[3].error)
    with pytest.raises(FormatError, match="line 3"):
        list(read_traces(io.BytesIO(b"\n".join(kept))))


def test_a_line_that_does_not_fit_into_a_file_of_errors_is_cut_there() -> None:
    document = json.loads(BadLine(1, "is wrong", b"\xff" * 2_000_000).to_json())
    assert len(document["text"]) == 1000
    assert document["error"] == "is wrong (here is its beginning alone)"


def test_half_a_character_is_called_so() -> None:
    (read,) = records(b'{"prompt": "\\ud800", "steps": [], "final_answer": "a"}')
    assert (
        str(read.error) == 'line 1: not JSON: "\\ud800" is half of a character, and the other half is missing'
    )


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
def test_another_encoding_is_named_with_what_converts_it(encoding: str) -> None:
    file = io.BytesIO(b"\n".join(GOOD).decode().encode(encoding))
    with pytest.raises(FormatError) as refused:
        list(read_records(file))
    assert f"iconv -f {encoding[:6].upper()} -t UTF-8" in str(refused.value)
    assert refused.value.line == 0


@pytest.mark.parametrize("between", [b"", b" ", b", ", b"\t"])
def test_documents_behind_each_other_get_a_hint(between: bytes) -> None:
    (read,) = records(GOOD[0] + between + GOOD[1])
    assert "jq -c ." in str(read.error)


def test_what_follows_a_document_and_is_none_gets_no_hint() -> None:
    (read,) = records(GOOD[0] + b" // a comment")
    assert "Extra data" in str(read.error)
    assert "jq" not in str(read.error)

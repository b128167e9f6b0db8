"""JSON in the layouts that programs write: lines, arrays, and documents that are broken over lines."""

from __future__ import annotations

import gzip
import io
import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunix_rt.errors import FormatError
from tunix_rt.formats import Lossy, read_records, read_traces

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20)


def row(prompt: str, **facts: Any) -> dict[str, Any]:
    step = {"i": 0, "type": "reason", "content": "It is."}
    return {"trace_version": "1.0", "prompt": prompt, "steps": [step], "final_answer": "a", "metadata": facts}


def layouts(rows: list[Any]) -> list[bytes]:
    return [
        json.dumps(rows).encode(),
        json.dumps(rows, indent=2, ensure_ascii=False).encode(),
        b"\xef\xbb\xbf\n [" + b",\n".join(json.dumps(one).encode() for one in rows) + b"]\n",
        "\n".join(json.dumps(one, indent=1) for one in rows).encode(),
        gzip.compress(json.dumps(rows, indent=4).encode()),
    ]


@settings(deadline=None, max_examples=30)
@given(st.lists(TEXTS, min_size=1, max_size=4))
def test_every_layout_holds_the_same_traces(prompts: list[str]) -> None:
    rows = [row(text, n=1.5, big=2**50, nested={"b": [1, None], "a": text}) for text in prompts]
    lines = "\n".join(map(json.dumps, rows)).encode()
    expected = list(read_traces(io.BytesIO(lines)))
    assert len(expected) == len(rows)
    for data in layouts(rows):
        assert list(read_traces(io.BytesIO(data))) == expected
    assert list(read_traces(io.StringIO(json.dumps(rows)))) == expected


def test_a_wrong_element_is_named_by_its_place_and_the_rest_is_read() -> None:
    records = list(read_records(io.BytesIO(json.dumps([row("a"), 5, row("b"), {"prompt": 1}]).encode())))
    assert [record.number for record in records] == [1, 2, 3, 4]
    assert [record.trace is None for record in records] == [False, True, False, True]
    assert "line 2: is 5" in str(records[1].error) or "expected a JSON object" in str(records[1].error)


@pytest.mark.parametrize(
    ("end", "said"),
    [
        (b"", "ends in the middle"),
        (b', {"prompt": "x', "ends in the middle"),
        (b" oops", "line 2: not JSON"),
        (b', {"prompt": "' + b"x" * (9 << 20) + b'"}]', "line 2: is longer than 8 MiB"),
    ],
)
def test_an_array_that_goes_wrong_ends_after_what_was_whole(end: bytes, said: str) -> None:
    read = read_records(io.BytesIO(b"[" + json.dumps(row("a")).encode() + end))
    assert next(read).trace is not None
    with pytest.raises(FormatError, match=said):
        list(read)


def test_a_first_line_that_was_cut_off_is_one_bad_line() -> None:
    for cut in (b'{"prompt": "a', b'{"prompt":'):
        first, second = read_records(io.BytesIO(cut + b"\n" + json.dumps(row("b")).encode()))
        assert first.trace is None
        assert second.trace is not None


def test_a_long_array_takes_little_memory() -> None:
    class Endless(io.RawIOBase):
        sent = 0

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            piece = b"[" if not self.sent else json.dumps(row("x" * 1000)).encode() + b",\n"
            self.sent += len(piece)
            buffer[: len(piece)] = piece
            return len(piece)

    read = read_records(io.BufferedReader(Endless(), 4096))
    assert sum(1 for _, _ in zip(read, range(1000), strict=False)) == 1000


def test_what_is_lost_is_counted_for_lines_that_became_traces_alone() -> None:
    lossy = Lossy()
    lossy.add("image", count=2)
    lossy.keep()
    lossy.add("image", count=5)
    lossy.drop()
    lossy.add("reply", "to others left out", many="replies")
    lossy.keep()
    assert lossy.lines() == ["2 images left out", "1 reply to others left out"]
    assert lossy.counts == {"images left out": 2, "replies to others left out": 1}


def test_a_key_that_stands_twice_in_a_document_is_named() -> None:
    twice = json.dumps([row("a"), row("b")], indent=1).replace(
        '"prompt": "b"', '"prompt": "b", "prompt": "c"'
    )
    with pytest.raises(FormatError, match=r"2: prompt: stands twice in one object"):
        list(read_traces(io.BytesIO(twice.encode())))


@pytest.mark.parametrize(
    ("lost", "told"),
    [
        ('"metadata": {}, "metadata": {"n": 1}', "2: metadata: stands twice in one object"),
        ('"metadata": {"n": [1e400]}', "is a number beyond 1.8e308"),
        (f'"metadata": {"[" * 40_000}{"]" * 40_000}', "is nested too deep"),
    ],
)
def test_a_document_that_no_parser_keeps_is_named_and_the_others_are_read(lost: str, told: str) -> None:
    whole = json.dumps([row("a"), row("b", n=1), row("c")], indent=1)
    data = re.sub(r'"metadata": \{\s*"n": 1\s*\}', lambda _: lost, whole)
    first, second, third = read_records(io.BytesIO(data.encode()))
    assert told in str(second.error)
    # Its text would lose what it is refused for, if a file of errors had it.
    assert second.line == b""
    assert [one.trace and one.trace.prompt for one in (first, third)] == ["a", "c"]


@pytest.mark.parametrize("half", ["\\ud800", "\\uDC00", "\\ud83d x", "\\ude00\\ud83d"])
def test_half_a_character_is_refused_wherever_it_stands(half: str) -> None:
    for before in (0, 40, 65_500, 65_536, 200_000):
        data = json.dumps([row("x" * before + "HALF"), row("y")]).replace("HALF", half)
        with pytest.raises(FormatError, match="half of a character"):
            list(read_traces(io.BytesIO(data.encode())))


def test_whole_characters_and_escaped_backslashes_are_no_halves() -> None:
    for before in (0, 65_520, 65_530, 65_536):
        text = "x" * before
        rows = [row("p", n=[text + "\U0001f600" * 20, text[:9] + "\\ud800"])]
        (trace,) = read_traces(io.BytesIO(json.dumps(rows).encode()))
        assert trace == next(read_traces(io.BytesIO(json.dumps(rows[0]).encode())))

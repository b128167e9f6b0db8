"""Compressed files, by name and from a pipe."""

from __future__ import annotations

import builtins
import gzip
import io
import json
import os
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from support.traces import trace
from tunix_rt.formats import FormatError, compressing, read_traces, trace_to_json
from tunix_rt.formats.lines import read_lines

TRACES = [trace(number) for number in range(200)]
PLAIN = "".join(trace_to_json(entry) + "\n" for entry in TRACES).encode()
PACK: dict[str, Callable[[bytes], bytes]] = {"gz": gzip.compress, "zst": zstandard.ZstdCompressor().compress}

CHECKED = zstandard.ZstdCompressor(write_checksum=True).compress(PLAIN)

kinds = pytest.mark.parametrize("kind", PACK)


@kinds
def test_compressed_files_are_read_whatever_their_name(tmp_path: Path, kind: str) -> None:
    for name in (f"t.jsonl.{kind}", "t.jsonl"):
        (tmp_path / name).write_bytes(PACK[kind](PLAIN))
        assert list(read_traces(tmp_path / name)) == TRACES


@kinds
def test_a_pipe_is_decompressed(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    class Stdin:
        buffer = io.BufferedReader(io.BytesIO(PACK[kind](PLAIN)))  # type: ignore[arg-type]

    monkeypatch.setattr("sys.stdin", Stdin)
    assert list(read_traces("-")) == TRACES


def test_a_device_that_never_ends_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "link.jsonl").symlink_to("/dev/zero")
    for source in ("/dev/zero", tmp_path / "link.jsonl"):
        with pytest.raises(FormatError, match="is a device; give a file or a pipe"):
            list(read_traces(source))
        with pytest.raises(FormatError, match="give a regular file"):
            list(read_traces(source, "parquet"))
    with Path("/dev/zero").open() as zeros:
        monkeypatch.setattr("sys.stdin", zeros)
        with pytest.raises(FormatError, match="standard input: cannot be read: is a device"):
            list(read_traces("-"))


@kinds
def test_a_named_pipe_is_read_from_its_first_byte(tmp_path: Path, kind: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(PACK[kind](PLAIN),))
    writer.start()
    try:
        assert list(read_traces(tmp_path / "pipe")) == TRACES
    finally:
        writer.join()


@kinds
def test_a_file_that_was_given_open_stays_open(kind: str) -> None:
    file = io.BytesIO(PACK[kind](PLAIN))
    assert list(read_traces(file)) == TRACES
    assert not file.closed


@kinds
def test_parts_one_behind_the_other_are_one_file(kind: str) -> None:
    packed = b"".join(PACK[kind](line) for line in PLAIN.splitlines(keepends=True))
    assert list(read_traces(io.BytesIO(packed))) == TRACES


@kinds
@settings(deadline=None)
@given(share=st.floats(0.01, 0.99))
def test_a_file_that_was_cut_off_is_never_taken_for_a_whole_one(kind: str, share: float) -> None:
    packed = PACK[kind](PLAIN)
    read = 0
    with pytest.raises(FormatError, match="ends in the middle of its compressed data"):
        for read, entry in enumerate(read_traces(io.BytesIO(packed[: max(4, int(len(packed) * share))])), 1):
            assert entry == TRACES[read - 1]
    assert read < len(TRACES)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t.jsonl.zst", b"{}", "is named .zst, but what it holds is not Zstandard"),
        ("t.jsonl.gz", PACK["zst"](PLAIN), "is named .gz, but what it holds is not gzip"),
        ("t.zst", CHECKED[:-4] + b"hash", "its Zstandard data is damaged"),
        ("t.gz", gzip.compress(PLAIN)[:20] + b"\xff" * 2000, "its gzip data is damaged"),
        ("t.gz", gzip.compress(PLAIN) + b"garbage", "Not a gzipped file"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FormatError, match=said) as caught:
        list(read_traces(tmp_path / name))
    assert name in str(caught.value)


@kinds
def test_what_unpacks_to_very_much_takes_little_memory(kind: str) -> None:
    packed = PACK[kind]((b" " * 999_999 + b"\n") * 200)
    tracemalloc.start()
    try:
        assert list(read_lines(io.BytesIO(packed))) == []
        assert tracemalloc.get_traced_memory()[1] < 50_000_000
    finally:
        tracemalloc.stop()


@settings(deadline=None)
@given(st.lists(st.integers(0, 9), max_size=5), st.sampled_from(["a.jsonl", "a.jsonl.gz", "a.ZST"]))
def test_what_is_written_is_read(numbers: list[int], name: str) -> None:
    file = io.BytesIO()
    with compressing(file, name) as stream:
        for number in numbers:
            stream.write(trace_to_json(TRACES[number]).encode() + b"\n")
    file.seek(0)
    assert list(read_traces(file)) == [TRACES[number] for number in numbers]


def test_the_same_traces_are_the_same_compressed_bytes() -> None:
    for name in ("a.gz", "a.zst"):
        files = [io.BytesIO(), io.BytesIO()]
        for file in files:
            with compressing(file, name) as stream:
                stream.write(PLAIN)
        assert files[0].getvalue() == files[1].getvalue()


def test_a_missing_package_is_named_with_its_install_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = builtins.__import__

    def refuse(name: str, *arguments: Any, **options: Any) -> Any:
        if name.partition(".")[0] in ("zstandard", "pyarrow"):
            raise ModuleNotFoundError(name=name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    for content in (PACK["zst"](PLAIN), b"PAR1" + bytes(20)):
        with pytest.raises(FormatError, match=r"pip install 'tunix-rt\[files\]'"):
            list(read_traces(io.BytesIO(content)))
    assert json.loads(trace_to_json(next(read_traces(io.BytesIO(PACK["gz"](PLAIN))))))

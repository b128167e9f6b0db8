"""Files that someone else may have written: regular, bounded, and read as what they say they are."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from tunix_rt_kit.artifacts import ArtifactStore
from tunix_rt_kit.canonical import digest_file
from tunix_rt_kit.regular_files import UnfitFile, open_regular, read_bytes, read_json, read_text


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    for path, kind in {pipe: "pipe", link: "pipe", tmp_path: "folder", Path("/dev/zero"): "device"}.items():
        for read in (
            open_regular,
            read_bytes,
            read_text,
            read_json,
            digest_file,
            ArtifactStore(tmp_path).put_file,
        ):
            with pytest.raises(UnfitFile, match=kind):
                read(path)
    with pytest.raises(FileNotFoundError):
        read_bytes(tmp_path / "none")


def test_no_more_is_read_than_was_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"12345")
    assert read_bytes(file, 5) == b"12345"
    with pytest.raises(UnfitFile, match="larger than 4 bytes"):
        read_bytes(file, 4)
    # The files of the kernel say that they are empty.
    assert len(Path("/proc/self/maps").read_bytes()) > 4
    with pytest.raises(UnfitFile, match="larger than 4 bytes"):
        read_bytes("/proc/self/maps", 4)


def test_a_file_that_becomes_a_pipe_meanwhile_holds_nobody(tmp_path: Path) -> None:
    path, other, ended = tmp_path / "path", tmp_path / "other", threading.Event()
    path.write_bytes(b"{}")
    os.mkfifo(other)

    def exchange() -> None:
        while not ended.is_set():
            for name in (path, other):
                name.rename(tmp_path / "held")
                (other if name == path else path).rename(name)
                (tmp_path / "held").rename(other if name == path else path)

    thread = threading.Thread(target=exchange)
    thread.start()
    try:
        seen = set()
        for _ in range(2_000):
            try:
                seen.add(read_bytes(path))
            except OSError as error:
                seen.add(type(error).__name__.encode())
    finally:
        ended.set()
        thread.join()
    assert seen <= {b"{}", b"UnfitFile", b"FileNotFoundError"}


def test_texts_are_utf_8_with_or_without_a_mark(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b'\xef\xbb\xbf{"a": "\xc3\xa9"}')
    assert read_text(file) == '{"a": "é"}'
    assert read_json(file) == {"a": "é"}
    for data, problem in {
        b"\xff\xfea\0": "UTF-16",
        b"ab\xe9": "not UTF-8 at byte 3",
    }.items():
        file.write_bytes(data)
        with pytest.raises(UnfitFile, match=problem):
            read_text(file)
    for data, problem in {b"{": "not JSON", b"[" * 100_000: "too deep", b"9" * 5_000: "not JSON"}.items():
        file.write_bytes(data)
        with pytest.raises(UnfitFile, match=problem):
            read_json(file)

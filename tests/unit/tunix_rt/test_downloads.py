"""Downloads go on where they broke, and never hand out wrong bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from support.threaded import fake_server
from tunix_rt import AsyncClient, Client, v1
from tunix_rt.errors import DataLossError, NotFoundError, UnavailableError
from tunix_rt.rpc import download

DATA = bytes(range(256)) * 40
CHUNK = 1000


class Exporter(v1.ExporterServicer):
    """Streams DATA; breaks after ``chunks_before_break`` chunks as often as ``breaks`` says."""

    def __init__(self) -> None:
        self.offsets: list[int] = []
        self.breaks = 0
        self.chunks_before_break = 3
        self.sent = DATA
        self.digests = [f"sha256:{hashlib.sha256(DATA).hexdigest()}"]
        self.ends_silently = False

    def ReadDataset(self, request: v1.ReadDatasetRequest, context: Any) -> Iterator[v1.ReadDatasetResponse]:
        if request.split != "train":
            context.abort(grpc.StatusCode.NOT_FOUND, "no such split")
        digest = self.digests[min(len(self.offsets), len(self.digests) - 1)]
        self.offsets.append(request.offset)
        header = v1.DownloadHeader(size_bytes=len(DATA), digest=digest, file_name="train.jsonl")
        yield v1.ReadDatasetResponse(header=header)
        breaking = self.breaks > 0
        self.breaks -= 1
        for number, start in enumerate(range(request.offset, len(self.sent), CHUNK)):
            if breaking and number == self.chunks_before_break:
                if self.ends_silently:
                    return
                context.abort(grpc.StatusCode.UNAVAILABLE, "going away")
            yield v1.ReadDatasetResponse(chunk=self.sent[start : start + CHUNK])


@pytest.fixture
def exporter() -> Exporter:
    return Exporter()


@pytest.fixture
def address(exporter: Exporter) -> Iterator[str]:
    with fake_server(lambda server: v1.add_ExporterServicer_to_server(exporter, server)) as address:
        yield address


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "FIRST_PAUSE", 0.001)


def test_the_bytes_arrive(address: str, exporter: Exporter) -> None:
    with Client(address) as client:
        assert client.exporter.read_dataset("datasets/d@1", "train") == DATA
    assert exporter.offsets == [0]


@pytest.mark.parametrize("ends_silently", [False, True])
def test_a_broken_download_goes_on_where_it_stopped(
    address: str, exporter: Exporter, ends_silently: bool
) -> None:
    exporter.breaks, exporter.ends_silently = 2, ends_silently
    with Client(address) as client:
        assert client.exporter.read_dataset("datasets/d@1", "train") == DATA
    assert exporter.offsets == [0, 3000, 6000]


async def test_a_broken_download_goes_on_in_asyncio(address: str, exporter: Exporter, tmp_path: Path) -> None:
    exporter.breaks = 1
    async with AsyncClient(address) as client:
        assert await client.exporter.read_dataset("datasets/d@1", "train") == DATA
        header = await client.exporter.download_dataset("datasets/d@1", "train", tmp_path / "a" / "b")
    assert header.size_bytes == len(DATA)
    assert (tmp_path / "a" / "b").read_bytes() == DATA
    assert exporter.offsets == [0, 3000, 0]


def test_breaks_without_progress_end_the_download(address: str, exporter: Exporter) -> None:
    exporter.breaks, exporter.chunks_before_break = 1000, 0
    with Client(address) as client, pytest.raises(UnavailableError, match="going away"):
        client.exporter.read_dataset("datasets/d@1", "train")
    assert len(exporter.offsets) >= download.MAX_ATTEMPTS


def test_wrong_bytes_are_refused_and_leave_no_file(address: str, exporter: Exporter, tmp_path: Path) -> None:
    exporter.sent = DATA[:-1] + b"x"
    (tmp_path / "file").write_bytes(b"old")
    with Client(address) as client, pytest.raises(DataLossError) as caught:
        client.exporter.download_dataset("datasets/d@1", "train", tmp_path / "file")
    assert caught.value.reason == "DOWNLOAD_CORRUPT"
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("file", b"old")]


def test_a_folder_is_refused_before_anything_is_downloaded(
    address: str, exporter: Exporter, tmp_path: Path
) -> None:
    with Client(address) as client, pytest.raises(IsADirectoryError, match="is a folder; give a file"):
        client.exporter.download_dataset("datasets/d@1", "train", tmp_path)
    assert exporter.offsets == []


def test_a_file_that_changes_meanwhile_is_refused(address: str, exporter: Exporter) -> None:
    exporter.breaks = 1
    exporter.digests.append("sha256:" + "0" * 64)
    with Client(address) as client, pytest.raises(DataLossError) as caught:
        client.exporter.read_dataset("datasets/d@1", "train")
    assert caught.value.reason == "DOWNLOAD_CHANGED"


def test_other_errors_come_at_once(address: str) -> None:
    with Client(address) as client, pytest.raises(NotFoundError, match="no such split"):
        client.exporter.read_dataset("datasets/d@1", "nope")

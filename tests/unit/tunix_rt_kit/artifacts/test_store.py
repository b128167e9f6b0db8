"""The content-addressed store, on the local file system and on another of fsspec's."""

from __future__ import annotations

import errno
import os
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tunix_rt_kit.artifacts import ArtifactStore
from tunix_rt_kit.canonical import digest_bytes
from tunix_rt_kit.errors import (
    DataLoss,
    DomainError,
    FailedPrecondition,
    InvalidArgument,
    ResourceExhausted,
    Unavailable,
)

DATA = bytes(range(256)) * 5000
MISSING = "sha256:" + "0" * 64


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "store" if request.param == "local" else f"memory://{uuid.uuid4().hex}")


@pytest.fixture
def local(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(f"file://{tmp_path / 'store'}")


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def path_of(store: ArtifactStore, digest: str) -> Path:
    return Path(store.uri(digest).removeprefix("file://"))


def test_what_was_put_is_read_back_by_every_way(store: ArtifactStore, tmp_path: Path) -> None:
    artifact = store.put_bytes(DATA)
    assert artifact.digest == digest_bytes(DATA) and artifact.size == len(DATA)
    assert artifact.uri.endswith(f"/sha256/{artifact.digest[7:9]}/{artifact.digest[7:]}")
    assert store.exists(artifact.digest) and store.stat(artifact.digest) == artifact
    assert store.read_bytes(artifact.digest) == DATA
    store.copy_to(artifact.digest, tmp_path / "deep" / "copy.bin")
    assert (tmp_path / "deep" / "copy.bin").read_bytes() == DATA
    assert files(tmp_path / "deep") == ["copy.bin"]


def test_files_and_pieces_give_the_same_artifact(store: ArtifactStore, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(DATA)
    with store.writer() as writer:
        for start in range(0, len(DATA), 70_001):
            writer.write(DATA[start : start + 70_001])
    assert store.put_file(tmp_path / "source") == writer.artifact == store.put_bytes(DATA)


def test_an_empty_artifact(store: ArtifactStore) -> None:
    digest = store.put_bytes(b"").digest
    assert store.read_bytes(digest) == b"" and list(store.iter_chunks(digest)) == []


@pytest.mark.parametrize("offset", [0, 1, 999, 1000, 1001, len(DATA) - 1, len(DATA)])
def test_chunks_from_an_offset(store: ArtifactStore, offset: int) -> None:
    digest = store.put_bytes(DATA).digest
    chunks = list(store.iter_chunks(digest, offset, chunk_size=1000))
    assert b"".join(chunks) == DATA[offset:]
    assert all(0 < len(chunk) <= 1000 for chunk in chunks)


@pytest.mark.parametrize("offset", [-1, len(DATA) + 1])
def test_an_offset_outside_the_file_is_refused(store: ArtifactStore, offset: int) -> None:
    digest = store.put_bytes(DATA).digest
    with pytest.raises(InvalidArgument) as caught:
        list(store.iter_chunks(digest, offset))
    assert caught.value.reason == "OFFSET_INVALID" and caught.value.violations[0].field == "offset"


def test_a_writer_that_raises_stores_nothing(local: ArtifactStore, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="crash"), local.writer() as writer:
        writer.write(DATA)
        raise ValueError("crash")
    assert not local.exists(digest_bytes(DATA))
    assert files(tmp_path) == []
    with pytest.raises(RuntimeError):
        print(writer.artifact)


def test_nothing_is_visible_before_the_end(local: ArtifactStore, tmp_path: Path) -> None:
    with local.writer() as writer:
        writer.write(DATA)
        assert not local.exists(digest_bytes(DATA))
        assert [name for name in files(tmp_path / "store") if not name.startswith("tmp/")] == []
    assert local.exists(digest_bytes(DATA))


def test_concurrent_puts_of_the_same_and_of_other_bytes(local: ArtifactStore, tmp_path: Path) -> None:
    contents = [bytes([number % 4]) * 100_000 for number in range(32)]
    with ThreadPoolExecutor(8) as pool:
        artifacts = list(pool.map(local.put_bytes, contents))
    assert [local.read_bytes(artifact.digest) for artifact in artifacts] == contents
    assert len(files(tmp_path / "store")) == 4


Read = Callable[[ArtifactStore, str, Path], object]
READS: dict[str, Read] = {
    "read_bytes": lambda store, digest, _: store.read_bytes(digest),
    "copy_to": lambda store, digest, folder: store.copy_to(digest, folder / "copy"),
    "iter_chunks": lambda store, digest, _: list(store.iter_chunks(digest, 500_000)),
}


@pytest.mark.parametrize("how", READS)
@pytest.mark.parametrize("damage", ["flipped", "cut", "longer", "empty"])
def test_damage_is_found_and_the_file_is_named(
    local: ArtifactStore, tmp_path: Path, how: str, damage: str
) -> None:
    digest = local.put_bytes(DATA).digest
    damaged = {
        "flipped": DATA[:100] + b"?" + DATA[101:],
        "cut": DATA[:-1],
        "longer": DATA + b"x",
        "empty": b"",
    }
    path_of(local, digest).write_bytes(damaged[damage])
    with pytest.raises(DataLoss) as caught:
        READS[how](local, digest, tmp_path)
    assert caught.value.reason == "ARTIFACT_CORRUPT"
    assert str(path_of(local, digest)) in str(caught.value)
    assert caught.value.metadata["digest"] == digest
    assert not (tmp_path / "copy").exists()


def test_a_damaged_file_never_streams_to_its_end(local: ArtifactStore) -> None:
    digest = local.put_bytes(DATA).digest
    path_of(local, digest).write_bytes(DATA[:-1] + b"?")
    got = b""
    with pytest.raises(DataLoss):
        for chunk in local.iter_chunks(digest, chunk_size=1000):
            got += chunk
    assert len(got) < len(DATA)


def test_putting_the_bytes_again_mends_a_damaged_file(local: ArtifactStore) -> None:
    digest = local.put_bytes(DATA).digest
    path_of(local, digest).write_bytes(b"damage")
    local.put_bytes(DATA)
    assert local.read_bytes(digest) == DATA


@pytest.mark.parametrize("how", [*READS, "stat"])
def test_a_missing_file_is_named(store: ArtifactStore, tmp_path: Path, how: str) -> None:
    assert not store.exists(MISSING)
    with pytest.raises(DataLoss) as caught:
        if how == "stat":
            store.stat(MISSING)
        else:
            READS[how](store, MISSING, tmp_path)
    assert caught.value.reason == "ARTIFACT_MISSING" and "0" * 64 in str(caught.value)
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    ("number", "kind", "reason"),
    [
        (errno.ENOSPC, ResourceExhausted, "STORAGE_FULL"),
        (errno.EROFS, FailedPrecondition, "STORAGE_READ_ONLY"),
        (errno.ENOTDIR, FailedPrecondition, "STORAGE_UNUSABLE"),
        (errno.EIO, Unavailable, "STORAGE_UNAVAILABLE"),
    ],
)
def test_a_failing_disk_is_one_clear_error_and_leaves_nothing(
    local: ArtifactStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    kind: type[DomainError],
    reason: str,
) -> None:
    def fail(_descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(kind) as caught:
        local.put_bytes(DATA)
    assert caught.value.reason == reason and os.strerror(number) in str(caught.value)
    assert files(tmp_path) == []


def test_a_root_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FailedPrecondition, match="file"):
        ArtifactStore(tmp_path / "file").put_bytes(DATA)


def test_an_unknown_scheme_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="nowhere://x"):
        ArtifactStore("nowhere://x")


def test_leftovers_of_crashed_writers_are_removed_by_age(local: ArtifactStore, tmp_path: Path) -> None:
    assert local.remove_stale() == 0
    local.put_bytes(DATA)
    old, new = tmp_path / "store/tmp/old", tmp_path / "store/tmp/new"
    for path in (old, new):
        path.write_bytes(b"left")
    os.utime(old, (time.time() - 7200, time.time() - 7200))
    assert local.remove_stale(3600) == 1
    assert new.exists() and not old.exists() and local.exists(digest_bytes(DATA))

"""A content-addressed store of immutable files on any fsspec file system.

Below the root are ``sha256/<first two hex digits>/<64 hex digits>``, and ``tmp/`` for files that are being
written. A file appears under its digest when it is whole, and every read checks the digest.
"""

from __future__ import annotations

import errno
import hashlib
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, cast

from tunix_rt_kit.callers import check
from tunix_rt_kit.canonical import check_digest
from tunix_rt_kit.errors import (
    DataLoss,
    DomainError,
    FailedPrecondition,
    InvalidArgument,
    ResourceExhausted,
    Unavailable,
)
from tunix_rt_kit.regular_files import open_regular

CHUNK_SIZE = 1 << 20
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}
# A file where a folder should be, and paths that no file can have.
_UNUSABLE = {errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP, errno.ENAMETOOLONG}


@dataclass(frozen=True, slots=True)
class Artifact:
    """A stored file: its digest, its size in bytes, and the URI where it lies."""

    digest: str
    size: int
    uri: str


def storage_error(error: OSError, where: str) -> DomainError:
    """The domain error for a file system's failure at ``where`` (a path or URI)."""
    detail = error.strerror or str(error)
    if error.errno in _FULL:
        return ResourceExhausted(f"no space left to write {where}: {detail}", reason="STORAGE_FULL")
    # Those of a remote store may have no number.
    if error.errno in _READ_ONLY or isinstance(error, PermissionError):
        return FailedPrecondition(f"no permission to use {where}: {detail}", reason="STORAGE_READ_ONLY")
    if error.errno in _UNUSABLE:
        return FailedPrecondition(f"{where} cannot be used: {detail}", reason="STORAGE_UNUSABLE")
    return Unavailable(f"storage failed at {where}: {detail}", reason="STORAGE_UNAVAILABLE")


@contextmanager
def storage_errors(where: str) -> Iterator[None]:
    """A block in which a failure of the file system at ``where`` (a path or URI) raises its domain error."""
    try:
        yield
    except OSError as error:
        raise storage_error(error, where) from error


class ArtifactStore:
    """Immutable files, named by the SHA-256 of their content.

    Args:
        root_uri: a folder, as a path or an fsspec URI (``file:///data/artifacts``, ``s3://bucket/prefix``).
            It is made on the first write.

    Every method raises ResourceExhausted(STORAGE_FULL), FailedPrecondition(STORAGE_READ_ONLY,
    STORAGE_UNUSABLE) or Unavailable(STORAGE_UNAVAILABLE) when the file system fails, and
    InvalidArgument(DIGEST_INVALID) for a digest that is not ``sha256:<64 hex>``. Safe to use from several
    threads and processes at once.
    """

    def __init__(self, root_uri: str | os.PathLike[str]) -> None:
        # Whoever only takes digests, such as a child process, starts without it.
        import fsspec
        from fsspec.implementations.local import LocalFileSystem

        text = os.fspath(root_uri)
        if "://" not in text:
            text = str(Path(text).absolute())
        try:
            filesystem, root = fsspec.core.url_to_fs(text)
        except (ValueError, ImportError) as error:
            raise InvalidArgument(
                f"artifact store {text!r} cannot be used: {error}", reason="ARTIFACT_STORE_INVALID"
            ) from error
        self._fs: Any = filesystem
        self._root = str(root).rstrip("/")
        self._local = isinstance(filesystem, LocalFileSystem)
        self.root_uri: str = self._uri(self._root)

    def put_bytes(self, data: bytes) -> Artifact:
        """Store ``data``. Storing the same bytes again changes nothing."""
        with self.writer() as writer:
            writer.write(data)
        return writer.artifact

    def put_file(self, path: str | os.PathLike[str]) -> Artifact:
        """Store a copy of a regular local file; raises OSError if the file itself cannot be read."""
        with open_regular(path) as source, self.writer() as writer:
            while chunk := source.read(CHUNK_SIZE):
                check()
                writer.write(chunk)
        return writer.artifact

    def writer(self) -> ArtifactWriter:
        """A context manager that writes one artifact in pieces. An exception inside stores nothing."""
        return ArtifactWriter(self)

    def uri(self, digest: str) -> str:
        """Where the artifact lies, or would lie."""
        return self._uri(self._path(digest))

    def exists(self, digest: str) -> bool:
        """Whether there is a file with this digest. Its content is not read."""
        path = self._path(digest)
        with storage_errors(self._uri(path)):
            return bool(self._fs.isfile(path))

    def stat(self, digest: str) -> Artifact:
        """Size and URI; the content is not read. Raises DataLoss(ARTIFACT_MISSING)."""
        path = self._path(digest)
        with storage_errors(self._uri(path)):
            try:
                info = self._fs.info(path)
            except FileNotFoundError as error:
                raise self._missing(digest) from error
        return Artifact(digest, int(info["size"]), self._uri(path))

    def read_bytes(self, digest: str) -> bytes:
        """The whole content; raises DataLoss(ARTIFACT_MISSING or ARTIFACT_CORRUPT), which names the file."""
        return b"".join(self.iter_chunks(digest))

    def copy_to(self, digest: str, path: str | os.PathLike[str]) -> None:
        """Write the content to the local file ``path``, which appears when it is whole and checked.

        Folders are made, and an existing file is replaced. Raises as ``read_bytes``.
        """
        target = Path(path)
        temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
        with storage_errors(str(target)):
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                with temporary.open("xb") as file:
                    for chunk in self.iter_chunks(digest):
                        file.write(chunk)
                    file.flush()
                    os.fsync(file.fileno())
                temporary.replace(target)
            finally:
                temporary.unlink(missing_ok=True)

    def iter_chunks(self, digest: str, offset: int = 0, chunk_size: int = CHUNK_SIZE) -> Iterator[bytes]:
        """The content from byte ``offset`` on, in pieces of at most ``chunk_size`` bytes.

        The whole file is hashed, and the last piece comes only after the digest was found right: a reader
        that reaches the end has the true content. Raises as ``read_bytes``, and
        InvalidArgument(OFFSET_INVALID) for an offset outside the file.
        """
        if offset < 0:
            raise self._bad_offset(offset, "0 or more")
        position, held, hasher = 0, b"", hashlib.sha256()
        with self._open_raw(digest) as file:
            while True:
                check()
                with storage_errors(self.uri(digest)):
                    chunk = file.read(chunk_size)
                if not chunk:
                    break
                hasher.update(chunk)
                if held:
                    yield held
                held = chunk[max(0, offset - position) :]
                position += len(chunk)
        self._verify(digest, hasher.hexdigest())
        if offset > position:
            raise self._bad_offset(offset, f"at most the file's {position} bytes")
        if held:
            yield held

    def iter_lines(self, digest: str) -> Iterator[bytes]:
        """The lines of a text file, without line breaks; checked and raising as ``iter_chunks``."""
        rest = b""
        for chunk in self.iter_chunks(digest):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                # The reader may take long over each line.
                check()
                yield line
        if rest:
            yield rest

    def remove_stale(self, older_than_s: float = 86_400.0) -> int:
        """Delete the files that crashed writers left in ``tmp/`` that long ago; returns how many."""
        removed, folder = 0, f"{self._root}/tmp"
        with storage_errors(self._uri(folder)):
            if not self._fs.isdir(folder):
                return 0
            for path in self._fs.ls(folder, detail=False):
                if time.time() - self._fs.modified(path).timestamp() > older_than_s:
                    self._fs.rm_file(path)
                    removed += 1
        return removed

    def _path(self, digest: str) -> str:
        hexdigest = check_digest(digest)
        return f"{self._root}/sha256/{hexdigest[:2]}/{hexdigest}"

    def _uri(self, path: str) -> str:
        return str(self._fs.unstrip_protocol(path))

    def _open_raw(self, digest: str) -> BinaryIO:
        path = self._path(digest)
        with storage_errors(self._uri(path)):
            try:
                return open_regular(path) if self._local else cast(BinaryIO, self._fs.open(path, "rb"))
            except FileNotFoundError as error:
                raise self._missing(digest) from error

    def _verify(self, digest: str, actual_hex: str) -> None:
        if digest != f"sha256:{actual_hex}":
            raise DataLoss(
                f"artifact {self.uri(digest)} is damaged: its content has digest sha256:{actual_hex}",
                reason="ARTIFACT_CORRUPT",
                metadata={"digest": digest, "uri": self.uri(digest), "actual_digest": f"sha256:{actual_hex}"},
            )

    def _missing(self, digest: str) -> DataLoss:
        return DataLoss(
            f"artifact {self.uri(digest)} is missing",
            reason="ARTIFACT_MISSING",
            metadata={"digest": digest, "uri": self.uri(digest)},
        )

    @staticmethod
    def _bad_offset(offset: int, right: str) -> InvalidArgument:
        problem = f"{offset} is outside the artifact; it must be {right}"
        return InvalidArgument.of_field("offset", problem, reason="OFFSET_INVALID")


class ArtifactWriter:
    """Writes one artifact, see ``ArtifactStore.writer``."""

    def __init__(self, store: ArtifactStore) -> None:
        self._store = store
        self._hasher = hashlib.sha256()
        self._size = 0
        self._artifact: Artifact | None = None
        self._temporary = f"{store._root}/tmp/{uuid.uuid4().hex}"
        self._file: Any = None

    def __enter__(self) -> ArtifactWriter:
        store = self._store
        with storage_errors(store._uri(self._temporary)):
            store._fs.makedirs(f"{store._root}/tmp", exist_ok=True)
            self._file = store._fs.open(self._temporary, "wb")
        return self

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Append ``data``; returns its length in bytes."""
        with storage_errors(self._store._uri(self._temporary)):
            self._file.write(data)
        self._hasher.update(data)
        self._size += len(data)
        return len(data)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._discard()
            return
        try:
            self._commit()
        except BaseException:
            self._discard()
            raise

    @property
    def artifact(self) -> Artifact:
        """The stored artifact; raises RuntimeError before the ``with`` block has ended well."""
        if self._artifact is None:
            raise RuntimeError("an artifact is stored only when its writer's with block has ended well")
        return self._artifact

    def _commit(self) -> None:
        store, digest = self._store, f"sha256:{self._hasher.hexdigest()}"
        path = store._path(digest)
        with storage_errors(store._uri(path)):
            if store._local:
                self._file.flush()
                os.fsync(self._file.fileno())
            self._file.close()
            store._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
            if store._local:
                Path(self._temporary).replace(path)
                sync(path.rpartition("/")[0])
            else:
                store._fs.mv(self._temporary, path)
        self._artifact = Artifact(digest, self._size, store._uri(path))

    def _discard(self) -> None:
        with storage_errors(self._store._uri(self._temporary)):
            try:
                self._file.close()
            finally:
                if self._store._fs.exists(self._temporary):
                    self._store._fs.rm_file(self._temporary)


def sync(path: str | os.PathLike[str]) -> None:
    """Have a file or the entries of a folder written to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

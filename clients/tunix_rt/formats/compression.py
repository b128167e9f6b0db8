"""Reading and writing of files compressed by gzip or Zstandard, which the content tells."""

from __future__ import annotations

import gzip
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Final, TypeAlias, cast

from tunix_rt.errors import FormatError
from tunix_rt.files import refuse_device

Source: TypeAlias = str | os.PathLike[str] | IO[bytes] | IO[str]

INSTALL: Final = "pip install 'tunix-rt[files]'"
_GZIP: Final = b"\x1f\x8b"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
PARQUET: Final = b"PAR1"
PARQUET_PIPED: Final = "is Parquet, which cannot be read from a pipe; give the file's name"
_PARQUET_NAMED: Final = "is Parquet, whatever its name or --format says; give --format parquet"
_STDIN: Final = "standard input"
_SUFFIXES: Final = {".gz": ("gzip", _GZIP), ".zst": ("Zstandard", _ZSTD)}
# A block of four bytes may stand for 128 KiB, so that what one step writes stays below 16 MiB.
_STEP: Final = 512
_BUFFER: Final = 256 * 1024


def name_of(source: Source) -> str:
    """What messages call ``source``."""
    if isinstance(source, str | os.PathLike):
        return _STDIN if source == "-" else os.fspath(source)
    name = getattr(source, "name", "")
    return name if isinstance(name, str) else ""


@contextmanager
def opened(source: Source) -> Iterator[IO[bytes] | IO[str]]:
    """The content of ``source``, decompressed as it is read.

    Raises FormatError for a name that ends in .gz or .zst over other content, and for Zstandard when
    ``zstandard`` is not installed; OSError and EOFError as reading does, and OSError for a device.
    """
    with _raw(source) as raw:
        if isinstance(raw, io.TextIOBase):
            yield raw
            return
        peekable: Any = raw if hasattr(raw, "peek") else io.BufferedReader(raw)
        try:
            yield _decompressed(peekable, name_of(source))
        finally:
            if peekable is not raw:
                # Else the file that was given is closed with its wrapper. It may be closed already.
                with suppress(ValueError):
                    peekable.detach()


def is_compressed(file: IO[bytes]) -> bool:
    """Whether a file that can peek begins as gzip or Zstandard does."""
    return _head(file).startswith((_GZIP, _ZSTD))


def _head(file: Any) -> bytes:
    head: bytes = file.peek(4)[:4]
    return head


@contextmanager
def _raw(source: Source) -> Iterator[IO[bytes] | IO[str]]:
    if not isinstance(source, str | os.PathLike):
        yield source
    elif source == "-":
        refuse_device(sys.stdin.buffer)
        yield sys.stdin.buffer
    else:
        with Path(source).open("rb", buffering=_BUFFER) as file:
            refuse_device(file)
            yield file


def _decompressed(file: Any, name: str) -> IO[bytes]:
    head = _head(file)
    kind, mark = _SUFFIXES.get(Path(name).suffix.lower(), ("", b""))
    if head and not head.startswith(mark):
        raise FormatError(0, f"is named {Path(name).suffix}, but what it holds is not {kind}", file=name)
    if head.startswith(_GZIP):
        return cast("IO[bytes]", gzip.GzipFile(fileobj=file))
    if head.startswith(_ZSTD):
        return io.BufferedReader(_ZstdReader(file, import_zstandard(name)), _BUFFER)
    if head == PARQUET:
        by_name = file.seekable() and name != _STDIN
        raise FormatError(0, _PARQUET_NAMED if by_name else PARQUET_PIPED, file=name)
    plain: IO[bytes] = file
    return plain


def import_zstandard(name: str) -> Any:
    """The package that reads Zstandard; raises FormatError about the file ``name`` where it is missing."""
    try:
        import zstandard
    except ImportError:
        raise FormatError(
            0, f"Zstandard needs the package zstandard; install it with: {INSTALL}", file=name
        ) from None
    return zstandard


class _ZstdReader(io.RawIOBase):
    """Reads frame after frame. The library's own reader takes a file that was cut off for a whole one."""

    def __init__(self, file: IO[bytes], zstandard: Any) -> None:
        self._file = file
        self._zstandard = zstandard
        self._frame: Any = None
        self._waiting = b""
        self._plain = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._plain:
            self._waiting = self._waiting or self._file.read(_BUFFER)
            if not self._waiting:
                if self._frame is not None:
                    raise EOFError
                return 0
            self._plain = memoryview(self._next())
        taken = min(len(buffer), len(self._plain))
        buffer[:taken] = self._plain[:taken]
        self._plain = self._plain[taken:]
        return taken

    def _next(self) -> bytes:
        step, self._waiting = self._waiting[:_STEP], self._waiting[_STEP:]
        if self._frame is None:
            self._frame = self._zstandard.ZstdDecompressor().decompressobj()
        try:
            plain: bytes = self._frame.decompress(step)
        except self._zstandard.ZstdError as error:
            raise OSError(f"its Zstandard data is damaged ({error})") from None
        if self._frame.eof:
            self._waiting = self._frame.unused_data + self._waiting
            self._frame = None
        return plain


@contextmanager
def compressing(stream: IO[bytes], path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A stream into ``stream``, compressed as the name ``path`` says (.gz, .zst), which stays open.

    The same bytes give the same file. Raises FormatError when ``zstandard`` is not installed.
    """
    suffix = Path(path).suffix.lower()
    if suffix == ".gz":
        with gzip.GzipFile("", "wb", fileobj=stream, mtime=0) as packed:
            yield cast("IO[bytes]", packed)
    elif suffix == ".zst":
        zstandard = import_zstandard(os.fspath(path))
        with zstandard.ZstdCompressor().stream_writer(stream, closefd=False) as packed:
            yield packed
    else:
        yield stream

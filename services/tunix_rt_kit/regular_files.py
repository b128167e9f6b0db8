"""Reads files that somebody else may have written: regular files of bounded size alone.

Opening a named pipe waits for its writer, a device may never end, and a large file fills the memory. Nothing
here waits, and nothing reads more than it is told to.
"""

from __future__ import annotations

import codecs
import errno
import json
import os
import stat
from contextlib import suppress
from io import BufferedReader
from pathlib import Path
from typing import Any, Final

SMALL: Final = 1 << 20
"""Most bytes of a file of settings."""

_KINDS: Final = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)
_LFS_POINTER: Final = b"version https://git-lfs.github.com/spec/"
_HEAD_BYTES: Final = 64
_UTF_16: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class UnfitFile(OSError):
    """A file that is there but is not what was asked for; ``strerror`` says what is wrong with it."""

    def __init__(self, problem: str, path: str | os.PathLike[str]) -> None:
        super().__init__(errno.EINVAL, problem, os.fspath(path))


def open_regular(path: str | os.PathLike[str]) -> BufferedReader:
    """A regular file, open for reading; symbolic links are followed.

    Raises:
        UnfitFile: it is something else, such as a named pipe or a device.
        OSError: it is not there, or cannot be opened.
    """
    # Opening a device may already do something; and the file may be replaced between the two looks.
    _require_regular(Path(path).stat(), path)
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        _require_regular(os.fstat(descriptor), path)
    except BaseException:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")


def tree_bytes(path: Path) -> int:
    """Bytes of a file, or of all files below a folder, without what others take away meanwhile; links are not
    followed."""
    if not path.is_dir() or path.is_symlink():
        with suppress(OSError):
            return path.lstat().st_size
        return 0
    total = 0
    for root, _, names in os.walk(path):
        for name in names:
            with suppress(OSError):
                total += Path(root, name).lstat().st_size
    return total


def read_bytes(path: str | os.PathLike[str], most: int = SMALL) -> bytes:
    """The content of a regular file of at most ``most`` bytes.

    Raises:
        UnfitFile: it is something else, larger, or a pointer of Git LFS in place of the file.
        OSError: it is not there, or cannot be read.
    """
    with _open_bounded(path, most) as file:
        data = file.read(most + 1)
    if len(data) > most:
        # It has grown.
        raise _too_large(path, most)
    refuse_pointer(data, path)
    return data


def check(path: str | os.PathLike[str], most: int) -> None:
    """Raise what ``read_bytes`` raises, without reading the file."""
    with _open_bounded(path, most) as file:
        refuse_pointer(file.read(_HEAD_BYTES), path)


def _open_bounded(path: str | os.PathLike[str], most: int) -> BufferedReader:
    file = open_regular(path)
    if os.fstat(file.fileno()).st_size > most:
        file.close()
        raise _too_large(path, most)
    return file


def _too_large(path: str | os.PathLike[str], most: int) -> UnfitFile:
    return UnfitFile(f"is larger than {most:,} bytes", path)


def refuse_pointer(head: bytes, path: str | os.PathLike[str]) -> None:
    """Raise UnfitFile if a file that begins with ``head`` is a pointer of Git LFS."""
    if head.startswith(_LFS_POINTER):
        raise UnfitFile("is a Git LFS pointer in place of the file itself; fetch it with: git lfs pull", path)


def read_text(path: str | os.PathLike[str], most: int = SMALL) -> str:
    """The text of a file in UTF-8, without a byte-order mark.

    Raises as ``read_bytes``, and UnfitFile for another encoding.
    """
    data = read_bytes(path, most)
    if data.startswith(_UTF_16):
        raise UnfitFile("is UTF-16; save it as UTF-8", path)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnfitFile(f"is not UTF-8 at byte {error.start + 1}", path) from None


def read_json(path: str | os.PathLike[str], most: int = SMALL) -> Any:
    """The value in a JSON file; raises as ``read_text``, and UnfitFile for text that is not JSON."""
    try:
        return json.loads(read_text(path, most))
    except ValueError as error:
        raise UnfitFile(f"is not JSON: {error}", path) from None
    except RecursionError:
        raise UnfitFile("is not JSON: it nests too deep", path) from None


def _require_regular(status: os.stat_result, path: str | os.PathLike[str]) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = next((name for is_kind, name in _KINDS if is_kind(status.st_mode)), "something else")
        raise UnfitFile(f"is {kind}, not a regular file", path)

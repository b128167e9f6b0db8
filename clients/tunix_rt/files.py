"""Writing files whole or not at all, and reading files that users name."""

from __future__ import annotations

import errno
import os
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO


@contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file that appears at ``path`` when the block ends, and not at all when it raises.

    Its folder is made if it is not there. What is no regular file, such as a named pipe or a device, is
    written as the bytes come; a symbolic link stays, and its target is written. Raises OSError as writing
    does, before the block begins for a folder.
    """
    given = Path(path)
    if given.is_dir():
        raise IsADirectoryError(errno.EISDIR, "is a folder; give a file", str(given))
    if given.exists() and not given.is_file():
        with given.open("wb") as stream:
            yield stream
        return
    final = Path(os.path.realpath(given)) if given.is_symlink() else given
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = final.with_name(f".{final.name}.{uuid.uuid4().hex}")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(final)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Write ``data`` to ``path``, whole or not at all."""
    with atomic_file(path) as file:
        file.write(data)


@contextmanager
def folder_lock(folder: str | os.PathLike[str], *, alone: bool) -> Iterator[bool]:
    """Use a folder beside others that do, or ``alone``; nothing is written into it, and nobody waits.

    Yields whether it is to be had so; always where folders cannot be locked, as on some network drives.
    """
    descriptor, free = None, True
    # Windows has no such locks.
    with suppress(ImportError, OSError):
        import fcntl

        descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError:
            free = False
    try:
        yield free
    finally:
        if descriptor is not None:
            os.close(descriptor)


def open_regular(path: str | os.PathLike[str]) -> BufferedReader:
    """A regular file, open for reading. Raises OSError, for a named pipe or a device too, without waiting."""
    _require_regular(Path(path).stat().st_mode, path)
    # What is opened may be another file than was looked at.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        _require_regular(os.fstat(descriptor).st_mode, path)
    except BaseException:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")


def read_text(path: str | os.PathLike[str], most: int) -> str:
    """The text of a regular file of at most ``most`` bytes of UTF-8, without a byte-order mark.

    Raises OSError; its ``strerror`` says what is wrong with the file.
    """
    with open_regular(path) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise OSError(errno.EFBIG, f"is larger than {most:,} bytes", os.fspath(path))
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        problem = f"is not UTF-8 at byte {error.start + 1}"
        raise OSError(errno.EILSEQ, problem, os.fspath(path)) from None


def refuse_device(stream: object) -> None:
    """Raise OSError if an open file is a device, which may never end; a terminal is none."""
    try:
        descriptor = stream.fileno()  # type: ignore[attr-defined]
        mode = os.fstat(descriptor).st_mode
    except (AttributeError, OSError):
        # Not a file of the system's.
        return
    if stat.S_ISBLK(mode) or (stat.S_ISCHR(mode) and not os.isatty(descriptor)):
        raise OSError(errno.EINVAL, "is a device; give a file or a pipe")


def _require_regular(mode: int, path: str | os.PathLike[str]) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "is a folder; give a file", os.fspath(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "is a pipe or a device; give a regular file", os.fspath(path))

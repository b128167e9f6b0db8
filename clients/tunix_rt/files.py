"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
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

"""Folders that appear whole or not at all, and the errors of a file system."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from tunix_rt_kit.artifacts.store import storage_error, sync

_PARTIAL = ".partial"
_OS_ERROR = re.compile(r"os error (\d+)")


@contextmanager
def storing(path: Path) -> Iterator[None]:
    """Turn a failure of the file system into the domain error that names ``path``."""
    try:
        yield
    except OSError as error:
        raise storage_error(error, str(path)) from error
    except SafetensorError as error:
        raise storage_error(system_error(error), str(path)) from error


def system_error(error: SafetensorError) -> OSError:
    """The system's error behind one of safetensors, which names it in its text alone; raises any other."""
    number = _OS_ERROR.search(str(error))
    if number is None:
        raise error
    return OSError(int(number[1]), os.strerror(int(number[1])))


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """An empty folder to fill, which becomes ``path`` when the block ends well and all is on the disk.

    It replaces what was at ``path``. When the block fails, nothing of it stays.

    Raises:
        ResourceExhausted: STORAGE_FULL, and the other errors of a file system, naming ``path``.
    """
    partial = path.with_name(f"{path.name}{_PARTIAL}")
    with storing(path):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            yield partial
            for entry in (*sorted(partial.rglob("*")), partial):
                sync(entry)
            shutil.rmtree(path, ignore_errors=True)
            partial.rename(path)
            sync(path.parent)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise


def is_partial(path: Path) -> bool:
    """Whether a folder was being filled when its writer was killed."""
    return path.name.endswith(_PARTIAL)

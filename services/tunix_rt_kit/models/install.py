"""Puts a model's folder under the models folder: once, whole, and with errors that say what is full."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from tunix_rt_kit.errors import FailedPrecondition, ResourceExhausted


def install(name: str, models_dir: Path, build: Callable[[Path], Path], *, needed_bytes: int = 0) -> Path:
    """Make ``models_dir / name`` what ``build`` builds, unless it is there, and return it.

    Of two calls at the same time one waits for the other. Nothing half-built is ever visible under the name,
    and what a killed call left is removed by the next.

    Args:
        name: of the folder.
        models_dir: created if absent.
        build: given an empty folder to work in, returns a folder in it.
        needed_bytes: free space without which it is not tried.

    Raises:
        FailedPrecondition: MODELS_DIR_NOT_WRITABLE.
        ResourceExhausted: DISK_FULL.
    """
    folder = models_dir / name
    if folder.is_dir():
        return folder
    with _disk_errors(name, models_dir, needed_bytes):
        models_dir.mkdir(parents=True, exist_ok=True)
        with FileLock(models_dir / f".{name}.lock"):
            if not folder.is_dir():
                _remove_leftovers(name, models_dir)
                if shutil.disk_usage(models_dir).free < needed_bytes:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                with tempfile.TemporaryDirectory(prefix=f".{name}.", dir=models_dir) as staging:
                    build(Path(staging)).rename(folder)
    return folder


def _remove_leftovers(name: str, models_dir: Path) -> None:
    for staging in models_dir.glob(f".{name}.*/"):
        if staging.is_dir():
            shutil.rmtree(staging)


@contextmanager
def _disk_errors(name: str, models_dir: Path, needed_bytes: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            needed = f": {needed_bytes / 1e6:.0f} MB are needed" if needed_bytes else ""
            raise ResourceExhausted(
                f"no space left for {name} under {models_dir}{needed}",
                reason="DISK_FULL",
                metadata={"models_dir": str(models_dir)},
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            raise FailedPrecondition(
                f"cannot write to the models folder {models_dir}: {error.strerror}",
                reason="MODELS_DIR_NOT_WRITABLE",
                metadata={"models_dir": str(models_dir)},
            ) from error
        raise

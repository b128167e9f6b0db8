"""The data folder of an embedded server: one server at a time, and it must be writable."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from tunix_rt.errors import FailedPreconditionError
from tunix_rt_kit.regular_files import read_json

_LOCK = "server.lock"
_HOLDER = "server.json"


class DataDirLocked(FailedPreconditionError):
    """Another server uses the data folder: ``metadata`` holds ``path``; ``pid`` and ``address`` if known."""


class DataDirUnusable(FailedPreconditionError):
    """The data folder cannot be made or written."""


def require_free(data_dir: Path) -> None:
    """Check that no server uses ``data_dir``; a folder that is not there is free.

    Raises:
        DataDirLocked: a server uses it.
        DataDirUnusable: it cannot be written.
    """
    if data_dir.exists():
        with _locked(data_dir):
            pass


@contextmanager
def held(data_dir: Path) -> Iterator[Callable[[str], None]]:
    """Keep ``data_dir`` for this process, making it if need be.

    Yields a function that takes the address of the server, for the error of the next one that comes.

    Raises:
        DataDirLocked, DataDirUnusable: as ``require_free``.
    """
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable(data_dir, error) from error
    holder = data_dir / _HOLDER

    def announce(address: str) -> None:
        try:
            holder.write_text(json.dumps({"pid": os.getpid(), "address": address}))
        except OSError as error:
            raise _unusable(data_dir, error) from error

    with _locked(data_dir):
        try:
            yield announce
        finally:
            with suppress(OSError):
                holder.unlink(missing_ok=True)


@contextmanager
def _locked(data_dir: Path) -> Iterator[None]:
    lock = FileLock(data_dir / _LOCK, blocking=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise _in_use(data_dir) from error
    except OSError as error:
        raise _unusable(data_dir, error) from error
    try:
        yield
    finally:
        lock.release()


def _in_use(data_dir: Path) -> DataDirLocked:
    try:
        holder = read_json(data_dir / _HOLDER)
        facts = {"pid": str(holder["pid"]), "address": str(holder["address"])}
        who = f"the server at {facts['address']} (process {facts['pid']}); use --server {facts['address']}"
    except (OSError, ValueError, KeyError, TypeError):
        # The other server is just starting or ending.
        facts, who = {}, "another server"
    return DataDirLocked(
        f"data folder {data_dir} is in use by {who}, or stop it, or choose another folder with --data-dir",
        reason="DATA_DIR_LOCKED",
        metadata={"path": str(data_dir), **facts},
    )


def _unusable(data_dir: Path, error: OSError) -> DataDirUnusable:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        why = "the disk is full; make room"
    elif error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        why = "it cannot be written; mend its permissions"
    else:
        why = (error.strerror or str(error)).lower()
    return DataDirUnusable(
        f"data folder {data_dir}: {why}, or choose another folder with --data-dir",
        reason="DATA_DIR_UNUSABLE",
        metadata={"path": str(data_dir)},
    )

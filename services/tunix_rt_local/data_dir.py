"""Who uses a data folder: one server or command that changes it, and any number that only read."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tunix_rt.errors import FailedPreconditionError
from tunix_rt_kit.regular_files import read_json

_LOCK = "server.lock"
_HOLDER = "server.json"
_PATIENCE_S = 0.2


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
        with locked(data_dir):
            pass


@contextmanager
def held(data_dir: Path) -> Iterator[Callable[[str], None]]:
    """Keep ``data_dir`` for this process, making it if need be.

    Yields a function that takes the address of the server, for the error of the next one that comes.

    Raises:
        DataDirLocked, DataDirUnusable: as ``require_free``.
    """
    _make(data_dir)
    holder = data_dir / _HOLDER

    def announce(address: str) -> None:
        from tunix_rt_kit.jobs.files import process_start

        pid = os.getpid()
        try:
            holder.write_text(json.dumps({"pid": pid, "start": process_start(pid), "address": address}))
        except OSError as error:
            raise unusable(data_dir, error) from error

    with locked(data_dir):
        try:
            yield announce
        finally:
            with suppress(OSError):
                holder.unlink(missing_ok=True)


@contextmanager
def shared(data_dir: Path) -> Iterator[Callable[[str], None]]:
    """As ``held``, beside any others: what only reads needs no more than the database's own locks."""
    _make(data_dir)
    if not os.access(data_dir, os.W_OK | os.X_OK):
        # SQLite cannot read a database in write-ahead mode without its files beside it.
        raise unusable(data_dir, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
    yield lambda _: None


def _make(data_dir: Path) -> None:
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unusable(data_dir, error) from error


@contextmanager
def locked(data_dir: Path) -> Iterator[None]:
    from filelock import FileLock, Timeout

    lock = FileLock(data_dir / _LOCK)
    try:
        # A command that only looks whether the folder is in use holds the lock for a moment.
        lock.acquire(timeout=_PATIENCE_S, poll_interval=0.02)
    except Timeout as error:
        raise in_use_error(data_dir) from error
    except OSError as error:
        raise unusable(data_dir, error) from error
    try:
        yield
    finally:
        lock.release()


def in_use(data_dir: Path) -> bool:
    """Whether a server, or a command that changes something, uses ``data_dir``."""
    try:
        require_free(data_dir)
    except DataDirLocked:
        return True
    return False


def server_of(data_dir: Path) -> str | None:
    """The address of the server that runs the jobs of ``data_dir``; None if there is none."""
    try:
        holder = read_json(data_dir / _HOLDER)
        pid, address = int(holder["pid"]), str(holder["address"])
        start = float(holder["start"])
    except (OSError, ValueError, KeyError, TypeError):
        # There is none, or it was of an earlier version.
        return None
    from tunix_rt_kit.jobs.files import is_process

    # What a server that was killed left says nothing; another one may have its address by now.
    return address or None if is_process(pid, start) else None


def in_use_error(data_dir: Path) -> DataDirLocked:
    try:
        holder = read_json(data_dir / _HOLDER)
        facts = {"pid": str(holder["pid"]), "address": str(holder["address"])}
        who = f"the server at {facts['address']} (process {facts['pid']}); use --server {facts['address']}"
        if not facts["address"]:
            del facts["address"]
            who = f"another command (process {facts['pid']}); wait until it has ended"
    except (OSError, ValueError, KeyError, TypeError):
        # The other server is just starting or ending.
        facts, who = {}, "another server; wait until it has ended"
    return DataDirLocked(
        f"data folder {data_dir} is in use by {who}, or stop it, or choose another folder with --data-dir",
        reason="DATA_DIR_LOCKED",
        metadata={"path": str(data_dir), **facts},
    )


def unusable(data_dir: Path, error: OSError) -> DataDirUnusable:
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

"""Who uses a data folder (one server or command that changes it, and any number that only read), and what it
knows by which name."""

from __future__ import annotations

import errno
import json
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from tunix_rt.errors import FailedPreconditionError
from tunix_rt_kit.regular_files import read_json, tree_bytes

_LOCK = "server.lock"
_HOLDER = "server.json"
_PATIENCE_S = 0.2
# By collection: the database, the table, its columns of ids and display names, and one that grows.
_NAMES: Final = {
    "traces": ("trace-store", "traces", "id", "", "sequence"),
    "datasets": ("exporter", "datasets", "dataset_id || '@' || version", "display_name", "number"),
    "trainingJobs": ("trainer", "training_jobs", "id", "display_name", "id"),
    "evalSets": ("evaluator", "eval_sets", "id", "display_name", "create_time"),
    "evaluations": ("evaluator", "evaluations", "id", "display_name", "id"),
    "comparisonReports": ("evaluator", "comparison_reports", "id", "display_name", "create_time"),
}


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


def could_be_made(data_dir: Path) -> bool:
    """Whether ``data_dir`` is not there, and could be; False if it is there.

    Raises DataDirUnusable: it cannot be made.
    """
    try:
        data_dir.lstat()
    except FileNotFoundError:
        above = next(folder for folder in data_dir.absolute().parents if folder.exists())
        if not os.access(above, os.W_OK | os.X_OK):
            raise unusable(data_dir, PermissionError(errno.EACCES, os.strerror(errno.EACCES))) from None
        return True
    except OSError as error:
        raise unusable(data_dir, error) from error
    return False


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


def known_names(data_dir: Path, collection: str, begun: str, most: int) -> list[tuple[str, str]]:
    """Ids and display names in ``data_dir`` of which one begins with ``begun``, up to ``most``,
    for the shell, which completes a word while somebody waits: no server is started, and others may use the
    databases meanwhile.

    Args:
        data_dir: the data folder.
        collection: one such as "trainingJobs", or "baseModels".
        begun: what an id or a display name begins with.
        most: how many.

    Raises:
        sqlite3.Error: there is no such database, or it is of an earlier version.
    """
    if collection == "baseModels":
        from tunix_rt_kit.models.store import ModelStore

        return [(name, "") for name in ModelStore(data_dir / "models").names() if name.startswith(begun)]
    database, table, name, label, last = _NAMES[collection]
    where = f"{name} >= :begun AND {name} < :begun || char(1114111)"
    if label:
        where = f"({where} OR substr({label}, 1, length(:begun)) = :begun) AND delete_time IS NULL"
    query = f"SELECT {name}, {label or repr('')} FROM {table} WHERE {where} ORDER BY {last} DESC LIMIT :most"
    return _read(data_dir, database, query, {"begun": begun, "most": most})


def known_tags(data_dir: Path, collection: str, begun: str, most: int) -> list[str]:
    """Tags of a collection in ``data_dir`` that begin with ``begun``, as ``known_names`` gives names."""
    database, table, *_ = _NAMES[collection]
    query = (
        f"SELECT DISTINCT value FROM {table}, json_each({table}.tags) WHERE delete_time IS NULL "
        "AND substr(value, 1, length(:begun)) = :begun ORDER BY value LIMIT :most"
    )
    return [tag for (tag,) in _read(data_dir, database, query, {"begun": begun, "most": most})]


def _read(data_dir: Path, database: str, query: str, values: Mapping[str, Any]) -> list[Any]:
    address = f"{(data_dir / database).absolute().as_uri()}.db?mode=ro"
    with closing(sqlite3.connect(address, uri=True, timeout=0.2)) as connection:
        return list(connection.execute(query, values))


def display_names(data_dir: Path) -> dict[str, str]:
    """What people called the resources in ``data_dir``, by resource name; without a server, as
    ``known_names``."""
    found: dict[str, str] = {}
    for collection, (database, table, name, label, _) in _NAMES.items():
        if label and (data_dir / f"{database}.db").exists():
            query = f"SELECT {name}, {label} FROM {table} WHERE {label} != ''"
            found |= {f"{collection}/{key}": said for key, said in _read(data_dir, database, query, {})}
    return found


def folder_bytes(data_dir: Path) -> int:
    """What all files in ``data_dir`` take."""
    return tree_bytes(data_dir)

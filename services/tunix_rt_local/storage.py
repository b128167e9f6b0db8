"""What takes the space of a data folder, and what of it nothing names.

The services keep the record of what was deleted; its artifacts, which others may name by the same digest, are
freed here, where the records of all services are at hand and none of them runs.
"""

from __future__ import annotations

import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from tunix_rt.errors import FailedPreconditionError
from tunix_rt_evaluator import wiring as evaluator
from tunix_rt_exporter import wiring as exporter
from tunix_rt_kit.regular_files import tree_bytes
from tunix_rt_kit.serving.settings import SHARED_MARK, ArtifactSettings
from tunix_rt_trainer import wiring as trainer

# What services name so is theirs; what has another name somebody else put there.
_UUID: Final = "[0-9a-f]{8}(-?[0-9a-f]{4}){3}-?[0-9a-f]{12}"
_TEMPORARY: Final = "[a-z0-9_]{8}"
_JOB_FOLDERS: Final = {"training-jobs": _UUID, "evaluations": _UUID}
# Only a server that runs has anything in them.
_WORK_FOLDERS: Final = {
    "exporter-builds": rf"{_UUID}(\.{_TEMPORARY})?",
    "exports": f"tmp{_TEMPORARY}",
    "artifacts/tmp": _UUID,
}
_STAGED_MODEL: Final = rf"\..+\.{_TEMPORARY}"
_ARTIFACT: Final = re.compile(r"([0-9a-f]{2})/\1[0-9a-f]{62}")
_CACHE: Final = "cache"
# With two data folders behind one of them, either knows only some of what is in there.
_NOT_LINKED: Final = ("artifacts", "artifacts/sha256", *_JOB_FOLDERS, *_WORK_FOLDERS, _CACHE)
_MODELS: Final = "models"
_DATABASES: Final = ("trace-store", "exporter", "trainer", "evaluator")
# Less is filled again soon.
_LEAST_SPACE: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Usage:
    """What one thing takes.

    Args:
        kind: what it is, in words.
        name: its resource name, or a path in the data folder.
        size_bytes: of its files.
        own_bytes: of those that nothing else names: what deleting it frees.
    """

    kind: str
    name: str
    size_bytes: int
    own_bytes: int


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Garbage:
    """A file or a folder that nothing needs.

    Args:
        path: where it is.
        kind: what it is, in words.
        size_bytes: of it and all in it.
        free: deletes it; raises OSError.
    """

    path: Path
    kind: str
    size_bytes: int
    free: Callable[[Path], None] = _delete


class Storage:
    """The data folder ``data_dir``, as it lies while nobody changes it.

    ``migrate`` brings databases of an earlier version up to date, which no server may use then.

    Raises FailedPreconditionError(NOT_A_DATA_FOLDER).
    """

    def __init__(self, data_dir: Path, *, migrate: bool) -> None:
        self._data_dir = data_dir.absolute()
        exports = exporter.ExporterSettings(data_dir=data_dir)
        trains = trainer.TrainerSettings(data_dir=data_dir)
        evaluates = evaluator.EvaluatorSettings(data_dir=data_dir)
        for settings in (exports, trains, evaluates):
            self._require_here(settings)
        if migrate:
            exporter.migrate(exports)
            trainer.migrate(trains)
            evaluator.migrate(evaluates)
        self._stored = [
            *exporter.stored(exports),
            *trainer.stored(trains),
            *evaluator.stored(evaluates),
        ]
        self._artifacts = {
            f"sha256:{path.name}": path
            for path in (self._data_dir / "artifacts" / "sha256").glob("??/*")
            if _ARTIFACT.fullmatch(f"{path.parent.name}/{path.name}") and path.is_file()
        }

    def usage(self) -> list[Usage]:
        """What takes the space, by resource; all files of the folder are in exactly one ``own_bytes`` or in
        "shared files"."""
        sizes = {digest: tree_bytes(path) for digest, path in self._artifacts.items()}
        living = [entry for entry in self._stored if not entry.deleted]
        named: dict[str, int] = {}
        for entry in living:
            for digest in entry.digests:
                named[digest] = named.get(digest, 0) + 1
        found = []
        for entry in living:
            folder = tree_bytes(Path(entry.folder)) if entry.folder else 0
            files = sum(sizes.get(digest, 0) for digest in entry.digests)
            own = sum(sizes.get(digest, 0) for digest in entry.digests if named[digest] == 1)
            if folder or files:
                found.append(Usage(entry.kind, entry.name, folder + files, folder + own))
        shared = sum(size for digest, size in sizes.items() if named.get(digest, 0) > 1)
        if shared:
            found.append(Usage("shared files", "artifacts", shared, shared))
        found += [
            Usage("unused", str(g.path.relative_to(self._data_dir)), g.size_bytes, g.size_bytes)
            for g in self._unneeded(caches=False)
        ]
        for path in sorted(self._data_dir.glob("*.db*")):
            size = tree_bytes(path)
            found.append(Usage("database", path.name, size, size))
        for path in sorted((self._data_dir / _CACHE).glob("*")):
            size = tree_bytes(path)
            found.append(Usage("cache", f"{_CACHE}/{path.name}", size, size))
        rest = tree_bytes(self._data_dir) - sum(entry.own_bytes for entry in found)
        if rest > 0:
            found.append(Usage("other files", ".", rest, rest))
        return sorted(found, key=lambda entry: (-entry.size_bytes, entry.name))

    def garbage(self, *, caches: bool = False) -> list[Garbage]:
        """What nothing names: artifacts, folders of jobs that are not there, half-written files of servers
        that have ended, and the empty space in databases.

        Args:
            caches: also what can be made again: exports, derived formats, cached answers, compiled functions.

        Raises:
            FailedPreconditionError: JOBS_UNFINISHED, caches may be in use; RECORDS_MISSING, the databases of
                this folder do not know its files; FILES_ELSEWHERE, a folder in it is a link.
        """
        self._require_known()
        unfinished = [entry.name for entry in self._stored if entry.unfinished]
        if caches and unfinished:
            raise FailedPreconditionError(
                f"what has not ended may use the caches: {', '.join(unfinished[:5])}; cancel it first, or "
                "leave --caches out",
                reason="JOBS_UNFINISHED",
                metadata={"names": ",".join(unfinished[:5]), "count": str(len(unfinished))},
            )
        found = [*self._unneeded(caches=caches), *self._empty_space()]
        if caches:
            cached = (self._data_dir / _CACHE).glob("*")
            found += [Garbage(path, "cache", tree_bytes(path)) for path in sorted(cached)]
        return found

    def freeable(self) -> list[Garbage]:
        """Of the garbage, what was named by resources that were deleted; raises as ``garbage``."""
        self._require_known()
        deleted = {digest for entry in self._stored if entry.deleted for digest in entry.digests}
        return [
            Garbage(path, "artifact", tree_bytes(path))
            for digest, path in sorted(self._artifacts.items())
            if digest in deleted - self._named(caches=False)
        ]

    def _named(self, *, caches: bool) -> set[str]:
        living = (entry for entry in self._stored if not entry.deleted)
        kept = [entry for entry in living if not (caches and entry.derived)]
        return {digest for entry in kept for digest in entry.digests | entry.needs}

    def _unneeded(self, *, caches: bool) -> list[Garbage]:
        named = self._named(caches=caches)
        found = [
            Garbage(path, "artifact", tree_bytes(path))
            for digest, path in sorted(self._artifacts.items())
            if digest not in named
        ]
        kept = {entry.folder for entry in self._stored if entry.folder and not entry.deleted}
        for root, name in _JOB_FOLDERS.items():
            for folder in _called(self._data_dir / root, name):
                if str(folder) not in kept:
                    found.append(Garbage(folder, "job folder", tree_bytes(folder)))
        for root, name in _WORK_FOLDERS.items():
            for path in _called(self._data_dir / root, name):
                found.append(Garbage(path, "unfinished write", tree_bytes(path)))
        for folder in _called(self._data_dir / _MODELS, _STAGED_MODEL):
            # Whoever fetches this model, or deletes it, holds the lock beside it.
            if folder.is_dir() and _is_free(folder):
                found.append(Garbage(folder, "unfinished write", tree_bytes(folder), _delete_locked))
        return found

    def _empty_space(self) -> Iterator[Garbage]:
        for name in _DATABASES:
            path = self._data_dir / f"{name}.db"
            if (size := _empty_bytes(path)) >= _LEAST_SPACE:
                yield Garbage(path, "empty space in a database", size, _compact)

    def _require_known(self) -> None:
        """Raise FailedPreconditionError if files of others may be among those of this folder."""
        if self._artifacts and not any(entry.kind != "base model" for entry in self._stored):
            raise FailedPreconditionError(
                f"the databases in {self._data_dir} know of nothing, and there are {len(self._artifacts):,} "
                "artifacts: another database may know them, so nothing is freed",
                reason="RECORDS_MISSING",
                metadata={"path": str(self._data_dir)},
            )
        for name in _NOT_LINKED:
            if (self._data_dir / name).is_symlink():
                raise FailedPreconditionError(
                    f"{self._data_dir / name} is a link: another data folder may keep its files there, too, "
                    "so nothing is freed; move the whole data folder instead",
                    reason="FILES_ELSEWHERE",
                    metadata={"path": str(self._data_dir / name)},
                )

    def _require_here(self, settings: ArtifactSettings) -> None:
        """Raise FailedPreconditionError unless a service keeps, and kept, all it has in this folder."""
        database = Path(settings.database.removeprefix("sqlite:///"))
        problem = ""
        if not settings.keeps_all_here:
            problem = "its databases or artifacts are set to be elsewhere"
        elif not database.exists():
            problem = f"it has no {database.name}"
        elif (Path(settings.artifacts) / SHARED_MARK).exists():
            problem = "a server with a database elsewhere has used its artifacts"
        if problem:
            raise FailedPreconditionError(
                f"{self._data_dir} cannot be looked through: {problem}; only a data folder with databases "
                "and artifacts of its own can",
                reason="NOT_A_DATA_FOLDER",
                metadata={"path": str(self._data_dir)},
            )


def _empty_bytes(database: Path) -> int:
    # Where no trace was ever stored there is no trace store.
    if not database.exists():
        return 0
    try:
        with closing(sqlite3.connect(database)) as opened:
            (pages,) = opened.execute("PRAGMA freelist_count").fetchone()
            (size,) = opened.execute("PRAGMA page_size").fetchone()
            return int(pages) * int(size)
    except sqlite3.Error:
        # It is in use, or damaged: whoever works with it says so.
        return 0


def _compact(database: Path) -> None:
    try:
        with closing(sqlite3.connect(database)) as opened:
            opened.execute("VACUUM")
    except sqlite3.Error as error:
        # It needs room for another one meanwhile.
        raise OSError(None, f"{database.name} could not be made smaller: {error}") from error


def free_garbage(garbage: Sequence[Garbage]) -> int:
    """Delete it, and say how many bytes that freed; raises OSError if something stays, after the rest."""
    freed, problems = 0, []
    for entry in garbage:
        try:
            entry.free(entry.path)
            freed += entry.size_bytes
        except OSError as error:
            problems.append(error)
    if problems:
        raise problems[0]
    return freed


_HAS_DELETE_TIME: Final = "SELECT 1 FROM pragma_table_info(?) WHERE name = 'delete_time'"


def deleted_since(data_dir: Path, moment: datetime) -> bool:
    """Whether the databases of a data folder say that something was deleted since; without an engine."""
    tables = {
        "exporter": ("datasets",),
        "trainer": ("training_jobs", "training_checkpoints"),
        "evaluator": ("evaluations", "comparison_reports"),
    }
    # As columns of times are written.
    text = moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
    for service, names in tables.items():
        path = data_dir / f"{service}.db"
        if not path.exists():
            continue
        # A database of an earlier version that no service has opened yet has no such column: nothing was
        # deleted from it.
        with suppress(sqlite3.Error), closing(sqlite3.connect(path)) as database:
            for name in names:
                if not database.execute(_HAS_DELETE_TIME, (name,)).fetchone():
                    # Of an earlier version: no service was called that would have migrated it.
                    continue
                query = f"SELECT 1 FROM {name} WHERE delete_time >= ? LIMIT 1"
                if database.execute(query, (text,)).fetchone():
                    return True
    return False


def _called(folder: Path, name: str) -> list[Path]:
    """What in a folder has a name of that pattern."""
    return sorted(path for path in folder.glob("*") if re.fullmatch(name, path.name))


def _is_free(folder: Path) -> bool:
    try:
        with FileLock(_lock_of(folder), blocking=False):
            return True
    except (Timeout, OSError):
        return False


def _delete_locked(folder: Path) -> None:
    with FileLock(_lock_of(folder), blocking=False):
        _delete(folder)


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name.rpartition('.')[0]}.lock")

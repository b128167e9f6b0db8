"""What takes the space of a data folder, and what of it nothing names.

The services keep the record of what was deleted; its artifacts, which others may name by the same digest, are
freed here, where the records of all services are at hand and none of them runs.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, suppress
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

_JOB_FOLDERS: Final = ("training-jobs", "evaluations")
# Only a server that runs has anything in them.
_WORK_FOLDERS: Final = ("exporter-builds", "exports", "artifacts/tmp")
_CACHE: Final = "cache"
_MODELS: Final = "models"


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


@dataclass(frozen=True, slots=True)
class Garbage:
    """A file or a folder that nothing needs.

    Args:
        path: where it is.
        kind: what it is, in words.
        size_bytes: of it and all in it.
    """

    path: Path
    kind: str
    size_bytes: int


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
            if path.is_file()
        }

    def usage(self) -> list[Usage]:
        """What takes the space, by resource; all files of the folder are in exactly one ``own_bytes`` or in
        "shared files"."""
        sizes = {digest: path.stat().st_size for digest, path in self._artifacts.items()}
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
            for g in self.garbage()
        ]
        for path in sorted(self._data_dir.glob("*.db*")):
            found.append(Usage("database", path.name, path.stat().st_size, path.stat().st_size))
        for path in sorted((self._data_dir / _CACHE).glob("*")):
            size = tree_bytes(path)
            found.append(Usage("cache", f"{_CACHE}/{path.name}", size, size))
        rest = tree_bytes(self._data_dir) - sum(entry.own_bytes for entry in found)
        if rest > 0:
            found.append(Usage("other files", ".", rest, rest))
        return sorted(found, key=lambda entry: (-entry.size_bytes, entry.name))

    def garbage(self, *, caches: bool = False) -> list[Garbage]:
        """What nothing names: artifacts, folders of jobs that are not there, and half-written files of
        servers that have ended.

        Args:
            caches: also what can be made again: exports, derived formats, cached answers, compiled functions.

        Raises:
            FailedPreconditionError: JOBS_UNFINISHED, caches may be in use; RECORDS_MISSING, the databases of
                this folder do not know its files.
        """
        unfinished = [entry.name for entry in self._stored if entry.unfinished]
        if caches and unfinished:
            raise FailedPreconditionError(
                f"what has not ended may use the caches: {', '.join(unfinished[:5])}; cancel it first, or "
                "leave --caches out",
                reason="JOBS_UNFINISHED",
                metadata={"names": ",".join(unfinished[:5]), "count": str(len(unfinished))},
            )
        found = [
            *self._unnamed_artifacts(caches),
            *self._job_folders(),
            *(Garbage(path, "unfinished write", tree_bytes(path)) for path in self._work()),
        ]
        if caches:
            cached = (self._data_dir / _CACHE).glob("*")
            found += [Garbage(path, "cache", tree_bytes(path)) for path in sorted(cached)]
        return found

    def freeable(self) -> list[Garbage]:
        """Of the garbage, what was named by resources that were deleted."""
        deleted = {digest for entry in self._stored if entry.deleted for digest in entry.digests}
        return [
            Garbage(path, "artifact", path.stat().st_size)
            for digest, path in sorted(self._artifacts.items())
            if digest in deleted - self._named(caches=False)
        ]

    def _named(self, *, caches: bool) -> set[str]:
        living = (entry for entry in self._stored if not entry.deleted)
        kept = [entry for entry in living if not (caches and entry.derived)]
        return {digest for entry in kept for digest in entry.digests | entry.needs}

    def _unnamed_artifacts(self, caches: bool) -> Iterator[Garbage]:
        named = self._named(caches=caches)
        if self._artifacts and not any(entry.kind != "base model" for entry in self._stored):
            raise FailedPreconditionError(
                f"the databases in {self._data_dir} know of nothing, and there are {len(self._artifacts):,} "
                "artifacts: another database may know them, so nothing is freed",
                reason="RECORDS_MISSING",
                metadata={"path": str(self._data_dir)},
            )
        for digest, path in sorted(self._artifacts.items()):
            if digest not in named:
                yield Garbage(path, "artifact", path.stat().st_size)

    def _job_folders(self) -> Iterator[Garbage]:
        kept = {entry.folder for entry in self._stored if entry.folder and not entry.deleted}
        for root in _JOB_FOLDERS:
            for folder in sorted((self._data_dir / root).glob("*")):
                if str(folder) not in kept:
                    yield Garbage(folder, "job folder", tree_bytes(folder))

    def _work(self) -> Iterator[Path]:
        for name in _WORK_FOLDERS:
            yield from sorted((self._data_dir / name).glob("*"))
        for folder in sorted((self._data_dir / _MODELS).glob(".*/")):
            # Whoever fetches this model, or deletes it, holds the lock beside it.
            if folder.is_dir() and folder.name != ".digests" and _is_free(folder):
                yield folder

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


def free_garbage(garbage: Sequence[Garbage]) -> int:
    """Delete it, and say how many bytes that freed; raises OSError."""
    freed = 0
    for entry in garbage:
        with ExitStack() as stack:
            if entry.path.parent.name == _MODELS:
                stack.enter_context(FileLock(_lock_of(entry.path), blocking=False))
            if entry.path.is_dir() and not entry.path.is_symlink():
                shutil.rmtree(entry.path)
            else:
                entry.path.unlink(missing_ok=True)
        freed += entry.size_bytes
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


def _is_free(folder: Path) -> bool:
    try:
        with FileLock(_lock_of(folder), blocking=False):
            return True
    except (Timeout, OSError):
        return False


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name.rpartition('.')[0]}.lock")

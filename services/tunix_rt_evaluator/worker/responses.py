"""Answers that are kept: what was generated once is not generated again.

An answer is found by a digest of all that it depends on (weights, template, prompt tokens, decoding, engine,
device), never by a name. The file is SQLite's, which several processes may write to.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Self

from pydantic import ValidationError

from tunix_rt_evaluator.grading.reasoning.model import Answer
from tunix_rt_evaluator.worker.engine import Request
from tunix_rt_kit.artifacts import canonical_json, digest_json

_TABLE: Final = (
    "CREATE TABLE IF NOT EXISTS responses (key TEXT PRIMARY KEY, answer TEXT NOT NULL) WITHOUT ROWID"
)
_PATIENCE_S: Final = 30.0
_GROUP: Final = 256
_GROUP_S: Final = 5.0


class Responses:
    """The answers in ``path``, for an engine that is ``identity``; a context that writes all when it ends.

    Answers are written in groups: a process that is killed loses those of the last seconds, which are then
    generated again. A file that cannot be used (damaged, read-only, a full disk) keeps nothing: ``broken``
    then says why.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self._path = path
        self._engine = digest_json(dict(identity))
        self._unwritten: dict[str, str] = {}
        self._written = time.monotonic()
        self._database: sqlite3.Connection | None = None
        self.broken = ""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(path, timeout=_PATIENCE_S)
            self._set_up(self._database)
        except (OSError, sqlite3.Error) as error:
            self._give_up(error)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._write()
        self._disconnect()

    def find(self, request: Request) -> Answer | None:
        """The answer to a request that was kept; one that cannot be read is forgotten."""
        key = self._key(request)
        found = self._unwritten.get(key) or self._read(key)
        if found is None:
            return None
        try:
            return Answer.model_validate_json(found)
        except ValidationError:
            self._change("DELETE FROM responses WHERE key = ?", [(key,)])
            return None

    def keep(self, request: Request, answer: Answer) -> None:
        """Keep an answer; one that is there stays."""
        text = canonical_json(answer.model_dump(mode="json")).decode()
        self._unwritten.setdefault(self._key(request), text)
        if len(self._unwritten) >= _GROUP or time.monotonic() - self._written >= _GROUP_S:
            self._write()

    def _key(self, request: Request) -> str:
        return digest_json(
            {"engine": self._engine, "prompt": request.prompt.digest, "sample": request.sample}
        )

    def _set_up(self, database: sqlite3.Connection) -> None:
        # A text that is no UTF-8 is then an answer that cannot be read, and no error of the file.
        database.text_factory = bytes
        # Where another process is at work the file stays as it is.
        with suppress(sqlite3.OperationalError):
            database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        database.execute(_TABLE)

    def _write(self) -> None:
        self._change("INSERT OR IGNORE INTO responses VALUES (?, ?)", list(self._unwritten.items()))
        self._unwritten.clear()
        self._written = time.monotonic()

    def _read(self, key: str) -> bytes | None:
        if self._database is None:
            return None
        try:
            rows = self._database.execute("SELECT answer FROM responses WHERE key = ?", (key,)).fetchall()
        except sqlite3.Error as error:
            self._give_up(error)
            return None
        return bytes(rows[0][0]) if rows else None

    def _change(self, statement: str, rows: Sequence[tuple[str, ...]]) -> None:
        """Do it with each row, in one transaction."""
        if self._database is None or not rows:
            return
        try:
            with self._database:
                self._database.executemany(statement, rows)
        except sqlite3.Error as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self.broken = f"{self._path} cannot be used: {error}"
        self._disconnect()

    def _disconnect(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None

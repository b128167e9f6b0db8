"""Answers that are kept: what was generated once is not generated again.

An answer is found by a digest of all that it depends on (weights, template, prompt tokens, decoding, engine,
device), never by a name. The file is SQLite's, which several processes may write to.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from tunix_rt_evaluator.model import Answer
from tunix_rt_evaluator.worker.engine import Request
from tunix_rt_kit.artifacts import canonical_json, digest_json

_TABLE: Final = (
    "CREATE TABLE IF NOT EXISTS responses (key TEXT PRIMARY KEY, answer TEXT NOT NULL) WITHOUT ROWID"
)
_PATIENCE_S: Final = 30.0


class Responses:
    """The answers in ``path``, for an engine that is ``identity``.

    A file that cannot be used (damaged, read-only, a full disk) keeps nothing: ``broken`` then says why.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self._path = path
        self._engine = digest_json(dict(identity))
        self.broken = ""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            self.broken = f"{path.parent} cannot be made: {error}"
        self._run(_TABLE, ())

    def find(self, request: Request) -> Answer | None:
        """The answer to a request that was kept."""
        found = self._run("SELECT answer FROM responses WHERE key = ?", (self._key(request),))
        return Answer.model_validate_json(found[0][0]) if found else None

    def keep(self, request: Request, answer: Answer) -> None:
        """Keep an answer; one that is there stays."""
        text = canonical_json(answer.model_dump(mode="json")).decode()
        self._run("INSERT OR IGNORE INTO responses VALUES (?, ?)", (self._key(request), text))

    def _key(self, request: Request) -> str:
        return digest_json(
            {"engine": self._engine, "prompt": request.prompt.digest, "sample": request.sample}
        )

    def _run(self, statement: str, values: tuple[str, ...]) -> list[Any]:
        if self.broken:
            return []
        try:
            with closing(sqlite3.connect(self._path, timeout=_PATIENCE_S)) as database, database:
                return database.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            self.broken = f"{self._path} cannot be used: {error}"
            return []

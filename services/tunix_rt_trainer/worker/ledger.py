"""Which rows of the dataset each step learned from."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from tunix_rt_kit.artifacts import canonical_json
from tunix_rt_kit.models.durable import storing
from tunix_rt_trainer.worker.batches import BatchSource


class Ledger:
    """A file of canonical JSON lines ``{"example_ids": [[id, ...], ...], "step": n}``, one for each step,
    whose ids stand by the rows of its batch.

    Args:
        path: the file; what it held is replaced.
        source: of the batches.
        steps: how many steps were taken already.
    """

    def __init__(self, path: Path, source: BatchSource, steps: int) -> None:
        self._path = path
        self._source = source
        self._order = hashlib.sha256()
        with storing(path):
            self._file = path.open("wb")
        for step in range(1, steps + 1):
            self.add(step)

    @property
    def data_order_digest(self) -> str:
        """Digest of the ids alone: for each step a line with the rows of ids of its batch."""
        return f"sha256:{self._order.hexdigest()}"

    def add(self, step: int) -> None:
        """Note the step ``step``, counted from 1; raises ResourceExhausted(STORAGE_FULL)."""
        ids = self._source.example_ids(step - 1)
        self._order.update(canonical_json(ids) + b"\n")
        with storing(self._path):
            self._file.write(canonical_json({"step": step, "example_ids": ids}) + b"\n")

    def copy_to(self, path: Path) -> None:
        """Write the lines so far to ``path``; raises OSError."""
        self._file.flush()
        shutil.copyfile(self._path, path)

"""The rows of a dataset that is complete, read back a batch at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from tunix_rt_exporter.datasets.model import BuildResult, Parent
from tunix_rt_kit.artifacts import ArtifactStore

BATCH: Final = 256


def stored_rows(store: ArtifactStore, result: BuildResult) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The name of a split and some of its rows in the format ``trace``, until all have come.

    Raises DataLoss (ARTIFACT_MISSING, ARTIFACT_CORRUPT), which names the file.
    """
    for split in result.splits:
        batch: list[dict[str, Any]] = []
        for line in store.iter_lines(split.files["trace"].digest):
            batch.append(json.loads(line))
            if len(batch) == BATCH:
                yield split.split, batch
                batch = []
        if batch:
            yield split.split, batch


def parent_of(store: ArtifactStore, result: BuildResult) -> Parent:
    """A dataset as the parent of another; raises as ``stored_rows``."""
    rows = bytearray()
    for _, batch in stored_rows(store, result):
        for row in batch:
            rows += bytes.fromhex(row["id"])
    return Parent(result.digest, bytes(rows))

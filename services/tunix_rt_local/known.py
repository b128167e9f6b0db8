"""What a data folder knows by which name, for the shell, which completes a word while somebody waits.

It starts no server, and looks into databases that others use meanwhile.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

# By collection: the database, the table, its columns of ids and display names, and one that grows.
_NAMES: Final = {
    "traces": ("trace-store", "traces", "id", "", "sequence"),
    "datasets": ("exporter", "datasets", "dataset_id || '@' || version", "display_name", "number"),
    "trainingJobs": ("trainer", "training_jobs", "id", "display_name", "id"),
    "evalSets": ("evaluator", "eval_sets", "id", "display_name", "create_time"),
    "evaluations": ("evaluator", "evaluations", "id", "display_name", "id"),
    "comparisonReports": ("evaluator", "comparison_reports", "id", "display_name", "create_time"),
}


def known_names(data_dir: Path, collection: str, begun: str, most: int) -> list[tuple[str, str]]:
    """Ids and display names in ``data_dir`` of which one begins with ``begun``, up to ``most``.

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
    address = f"{(data_dir / database).absolute().as_uri()}.db?mode=ro"
    with closing(sqlite3.connect(address, uri=True, timeout=0.2)) as connection:
        return list(connection.execute(query, {"begun": begun, "most": most}))

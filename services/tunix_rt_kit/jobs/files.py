"""The files of a job's folder, as parent and child know them."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

SPEC = "spec.json"
EVENTS = "events.jsonl"
LOG = "worker.log"
PID = "worker.pid"
LOCK = "worker.lock"
CANCEL = "cancel"


def write_atomically(path: Path, data: bytes) -> None:
    """Make ``path`` hold ``data``; a crash leaves the old content or the new one. Raises OSError."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)

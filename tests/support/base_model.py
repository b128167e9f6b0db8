"""SmolLM2-135M-Instruct, downloaded and converted for real, for tests that need a model that speaks."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from tunix_rt_kit.models.pull import pull

NAME = "smollm2-135m-instruct"


@dataclass(frozen=True)
class Pulled:
    """A pulled model and the progress that was reported meanwhile: (stage, done, total)."""

    models_dir: Path
    folder: Path
    events: list[tuple[str, int, int]]


@contextmanager
def pulled_smollm2(shared: Path) -> Iterator[Pulled]:
    """The model in ``shared``, a folder that the processes of a test session share: the first one pulls it,
    and it goes with the last one."""
    models_dir, users, told = shared / "smollm2", shared / "smollm2-users", shared / "smollm2-events.json"
    lock, own = FileLock(shared / "smollm2.lock"), users / str(os.getpid())
    with lock:
        users.mkdir(exist_ok=True)
        if not told.exists():
            events: list[tuple[str, int, int]] = []
            pull(NAME, models_dir, lambda *event: events.append(event))
            told.write_text(json.dumps(events), encoding="utf-8")
        own.touch()
    yield Pulled(
        models_dir, models_dir / NAME, [tuple(event) for event in json.loads(told.read_text("utf-8"))]
    )
    with lock:
        own.unlink()
        if not any(users.iterdir()):
            told.unlink()
            shutil.rmtree(models_dir)

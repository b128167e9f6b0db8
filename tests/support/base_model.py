"""SmolLM2-135M-Instruct, downloaded and converted for real, for tests that need a model that speaks."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tunix_rt_kit.models.pull import pull

NAME = "smollm2-135m-instruct"


@dataclass(frozen=True)
class Pulled:
    """A pulled model and the progress that was reported meanwhile: (stage, done, total)."""

    models_dir: Path
    folder: Path
    events: list[tuple[str, int, int]]


@contextmanager
def pulled_smollm2() -> Iterator[Pulled]:
    """The model in a folder of its own, which goes when the context ends."""
    events: list[tuple[str, int, int]] = []
    with tempfile.TemporaryDirectory(prefix="tunix-rt-models-") as temporary:
        models_dir = Path(temporary)
        folder = pull(NAME, models_dir, lambda *event: events.append(event))
        yield Pulled(models_dir, folder, events)

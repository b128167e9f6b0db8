"""What can be chosen about a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Dialect = Literal["postgresql", "sqlite"]


@dataclass(frozen=True, slots=True)
class Options:
    """The choices of the command line.

    ``data``: a file that ``tunix_rt.formats.read_traces`` reads, repeated as often as needed; None for
    generated traces. ``count``: traces; None for the benchmark's own number. ``repeats``: of each
    measurement, whose median counts. ``postgres_url``: a server whose user may create databases; empty for
    one of the run's own. ``base_model``: a Hugging Face folder to train; None for the one of the catalogue.
    """

    data: Path | None = None
    count: int | None = None
    repeats: int = 3
    dialects: tuple[Dialect, ...] = ("postgresql", "sqlite")
    postgres_url: str = ""
    base_model: Path | None = None

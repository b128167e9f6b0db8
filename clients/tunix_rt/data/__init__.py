"""Questions that come with the package."""

from __future__ import annotations

from importlib.resources import files

EVAL_V1 = "eval_v1"
"""25 questions of our own over eight categories, each with its accepted answers."""


def read_data(name: str) -> str:
    """The text of the JSON lines file of that name, such as `EVAL_V1`; raises FileNotFoundError."""
    return files(__name__).joinpath(f"{name}.jsonl").read_text("utf-8")

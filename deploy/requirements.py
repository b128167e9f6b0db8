"""Prints what one extra of pyproject.toml requires: an image installs it before the source is there.

python deploy/requirements.py trainer
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PYPROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"


def requirements(project: dict[str, Any], extra: str) -> Iterator[str]:
    """The requirements of `extra`, the extras of our own that it names followed."""
    for requirement in project["optional-dependencies"][extra]:
        own = re.fullmatch(r"tunix-rt\[(.+)\]", requirement)
        if own:
            for name in own[1].split(","):
                yield from requirements(project, name)
        else:
            yield requirement


if __name__ == "__main__":
    project = tomllib.loads(PYPROJECT.read_text())["project"]
    print(*project["dependencies"], *requirements(project, sys.argv[1]), sep="\n")

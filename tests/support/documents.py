"""The commands that README and the guide show, in their order."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = (
    "README.md",
    *(
        f"docs/guide/{page}.md"
        for page in (
            "traces",
            "chats",
            "logs",
            "spans",
            "datasets",
            "training",
            "evaluation",
            "loop",
            "programs",
            "tools",
        )
    ),
    "docs/operations.md",
)
_INDENT = "    "
_ASSIGNMENT = re.compile(r"[A-Z_]+=\S*")


@dataclass(frozen=True)
class Shown:
    """A command of ``tunix-rt`` as a page shows it.

    ``environment`` stands before it, ``piped_from`` and ``piped_into`` around it; ``words`` follow the name.
    """

    page: str
    line: int
    text: str
    environment: dict[str, str]
    piped_from: tuple[str, ...]
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {self.text}"


def shown_commands(page: str) -> Iterator[Shown]:
    """The indented lines of a page that call ``tunix-rt``."""
    lines = iter(enumerate((ROOT / page).read_text().splitlines(), start=1))
    for number, line in lines:
        if not line.startswith(_INDENT):
            continue
        text = line.strip()
        while text.endswith("\\"):
            text = text.removesuffix("\\") + next(lines)[1].strip()
        stages = [shlex.split(stage, comments=True) for stage in _stages(text)]
        for at, words in enumerate(stages):
            environment = {}
            while words and _ASSIGNMENT.fullmatch(words[0]):
                name, _, value = words.pop(0).partition("=")
                environment[name] = value
            if words[:1] == ["tunix-rt"]:
                before = tuple(stages[at - 1]) if at else ()
                yield Shown(page, number, text, environment, before, tuple(words[1:]))


def python_blocks(page: str) -> list[str]:
    """The fenced blocks of Python of a page."""
    return re.findall(r"^```python\n(.*?)^```$", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE)


def _stages(text: str) -> list[str]:
    """The commands of a pipe; a bar in quotation marks is none."""
    return re.split(r"\s\|\s(?=(?:[^']*'[^']*')*[^']*$)", text)

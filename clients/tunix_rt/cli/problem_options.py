"""The options that say which generated problems are meant."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

import typer

from tunix_rt.generate import GeneratedTrace, generate_traces


class Difficulty(StrEnum):
    """How hard generated problems are."""

    EASY = "easy"
    MEDIUM = "medium"
    HARD = "hard"


@dataclass(frozen=True)
class ProblemOptions:
    """A sequence of generated problems, and where in it to begin."""

    seed: Annotated[int, typer.Option("--seed", min=0, help="The same seed gives the same problems.")] = 0
    families: Annotated[
        list[str] | None,
        typer.Option("--families", help="Kinds of problem, joined by commas. Left out: all."),
    ] = None
    difficulty: Annotated[Difficulty, typer.Option("--difficulty", help="How hard they are.")] = (
        Difficulty.EASY
    )
    start: Annotated[
        int,
        typer.Option("--start", min=0, help="Leave out this many: what follows shares no prompt with them."),
    ] = 0

    def generated(self, count: int) -> Iterator[GeneratedTrace]:
        """That many of them; raises typer.BadParameter where there are none such."""
        names = [name.strip() for given in self.families or () for name in given.split(",")]
        try:
            return generate_traces(
                count, self.seed, families=names or None, difficulty=self.difficulty.value, start=self.start
            )
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None

"""How reasoning is told from the answer, and what was told of an output. Plain values, free of transport."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict

from tunix_rt_evaluator.grading.model import Grown

ReasoningState = Literal["none", "closed", "unclosed"]
"""Whether an output holds reasoning, and whether that came to its end."""

Span = tuple[int, int]
"""A part of a text: its first character, and the one behind its last."""


class ReasoningMarks(Grown):
    """What opens and what closes reasoning: a pair by its ``name``, or a caller's own ``start`` and ``end``.

    ``opened`` says that the prompt opens it, so that an output begins within reasoning; None: the chat
    template tells. ``revision`` is that of the rule by which outputs were split, 0 while it is only asked
    for.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    added = frozenset({"start", "end", "opened", "revision"})

    name: str = ""
    start: str = ""
    end: str = ""
    opened: bool | None = None
    revision: int = 0


class Split(BaseModel):
    """Where in an output its reasoning stands, in one or two parts, and its answer; what is left over is
    marks and white space around them.

    Reasoning that is not ``closed`` has no answer behind it. ``tokens`` are those of everything but the
    answer; None where nobody could count them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    reasoning: tuple[Span, ...]
    answer: Span
    closed: bool = True
    tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Parts:
    """What a model wrote, in its two parts; ``tokens`` as of a `Split`, 0 where there is no reasoning."""

    reasoning: str
    answer: str
    state: ReasoningState
    tokens: int | None

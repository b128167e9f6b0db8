"""What a model wrote, and where its reasoning and its answer stand. Plain values, free of transport."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict

from tunix_rt_evaluator.grading.model import Grown
from tunix_rt_kit.values import Value

FinishReason = Literal["stop", "length", "failed"]
ReasoningState = Literal["none", "closed", "unclosed"]
"""Whether an output holds reasoning, and whether that came to its end."""

Span = tuple[int, int]
"""A part of a text: its first character, and the one behind its last."""


class ReasoningMarks(Grown):
    """The marks that open and close reasoning: a pair by ``name``, or a caller's own ``start`` and ``end``.

    ``opened`` says that the prompt opens reasoning already, so that outputs begin within it; None leaves that
    to the chat template. ``revision`` is that of the rule by which outputs were split, 0 before they are.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    added = frozenset({"start", "end", "opened", "revision"})

    name: str = ""
    start: str = ""
    end: str = ""
    opened: bool | None = None
    revision: int = 0


class Split(BaseModel):
    """Where the reasoning (in one or two parts) and the answer stand in an output.

    Reasoning that is not ``closed`` has no answer behind it. ``tokens`` counts everything but the answer; it
    is None if that could not be counted.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    reasoning: tuple[Span, ...]
    answer: Span
    closed: bool = True
    tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Parts:
    """Reasoning and answer as texts; ``tokens`` as in a `Split`, 0 without reasoning."""

    reasoning: str
    answer: str
    state: ReasoningState
    tokens: int | None


class Answer(Grown, Value):
    """One text that a model wrote; ``log_probabilities`` of its tokens only if they were asked for.

    ``reasoning`` and ``reasoning_tokens`` are what an endpoint returned apart from the text.
    """

    added = frozenset({"log_probabilities", "reasoning", "reasoning_tokens"})

    output: str
    output_tokens: int
    finish_reason: FinishReason
    log_probabilities: tuple[float, ...] = ()
    reasoning: str = ""
    reasoning_tokens: int | None = None

    def parts(self, found: Split | None) -> Parts:
        """Its reasoning and its answer as texts; ``found`` is how it was split."""
        if found is None:
            return Parts("", self.output, "none", 0)
        own = [self.output[begin:end] for begin, end in found.reasoning]
        return Parts(
            "\n\n".join(filter(None, [self.reasoning, *own])),
            self.output[found.answer[0] : found.answer[1]],
            "closed" if found.closed else "unclosed",
            found.tokens,
        )

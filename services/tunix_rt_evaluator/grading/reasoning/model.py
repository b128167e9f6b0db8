"""What a model wrote, and how reasoning is told from the answer in it. Plain values, free of transport."""

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


class Answer(Grown, Value):
    """One text that a model wrote; ``log_probabilities`` of its tokens only where they were asked for.

    ``reasoning`` is what an endpoint gave apart from it, ``reasoning_tokens`` what it told of that.
    """

    added = frozenset({"log_probabilities", "reasoning", "reasoning_tokens"})

    output: str
    output_tokens: int
    finish_reason: FinishReason
    log_probabilities: tuple[float, ...] = ()
    reasoning: str = ""
    reasoning_tokens: int | None = None

    def parts(self, found: Split | None) -> Parts:
        """Its reasoning and its answer as texts, where ``found`` is how it was split."""
        if found is None:
            return Parts("", self.output, "none", 0)
        own = [self.output[begin:end] for begin, end in found.reasoning]
        return Parts(
            "\n\n".join(filter(None, [self.reasoning, *own])),
            self.output[found.answer[0] : found.answer[1]],
            "closed" if found.closed else "unclosed",
            found.tokens,
        )

"""Two traces side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import Match, SequenceMatcher
from typing import Any, Literal

from tunix_rt_kit.callers import check
from tunix_rt_kit.text import normalised
from tunix_rt_trace_store.traces.model import Score, StoredTrace, TraceContent, TraceStep

Relation = Literal["same", "changed", "only_base", "only_other"]


@dataclass(frozen=True, slots=True)
class ScoredTrace:
    """A trace with the latest score of each criterion, ordered by criterion."""

    trace: StoredTrace
    content: TraceContent
    scores: Sequence[Score]


@dataclass(frozen=True, slots=True)
class StepPair:
    """One row of two traces side by side: positions from 0, None where a trace has no step."""

    relation: Relation
    base_index: int | None
    other_index: int | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two traces side by side."""

    base: ScoredTrace
    other: ScoredTrace
    alignment: Sequence[StepPair]
    same_final_answer: bool


def compared(base: ScoredTrace, other: ScoredTrace) -> Comparison:
    """Compare two traces."""
    same = normalised(base.content["final_answer"]) == normalised(other.content["final_answer"])
    return Comparison(base, other, align(base.content["steps"], other.content["steps"]), same)


def align(base: Sequence[TraceStep], other: Sequence[TraceStep]) -> list[StepPair]:
    """Every step of both, in reading order.

    Two steps are the same if kind and text are, white space aside. Steps that differ are paired in order as
    changed; those left over on one side stand alone.
    """
    matcher = _Matcher(None, _keys(base), _keys(other), autojunk=False)
    pairs: list[StepPair] = []
    for tag, base_from, base_to, other_from, other_to in matcher.get_opcodes():
        paired = min(base_to - base_from, other_to - other_from)
        for k in range(paired):
            pairs.append(StepPair("same" if tag == "equal" else "changed", base_from + k, other_from + k))
        pairs += [StepPair("only_base", index, None) for index in range(base_from + paired, base_to)]
        pairs += [StepPair("only_other", None, index) for index in range(other_from + paired, other_to)]
    return pairs


class _Matcher(SequenceMatcher[tuple[str, str]]):
    """Stops when its caller has left: a thousand similar steps can take more than ten seconds."""

    def find_longest_match(self, *where: Any, **named: Any) -> Match:
        check()
        return super().find_longest_match(*where, **named)


def _keys(steps: Sequence[TraceStep]) -> list[tuple[str, str]]:
    return [(step["type"], " ".join(step["content"].split())) for step in steps]

"""Generated traces: correct reasoning over small numbers, and conversations with correct calls of tools, the
same for the same seed everywhere."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tunix_rt.generate.arithmetic import ARITHMETIC
from tunix_rt.generate.conversation import Conversation
from tunix_rt.generate.family import DIFFICULTIES, Difficulty, Family
from tunix_rt.generate.sequence import keyed_number, permuted
from tunix_rt.generate.small_talk import SMALL_TALK, TalkFamily
from tunix_rt.generate.tool_calls import TOOL_CALLS, CallFamily
from tunix_rt.generate.word_problems import WORD_PROBLEMS

AnyFamily = Family | CallFamily | TalkFamily

FAMILIES: Final[Mapping[str, Family]] = {family.name: family for family in (*ARITHMETIC, *WORD_PROBLEMS)}
"""Every family of problems by name: those that are meant when none is named."""

CONVERSATION_FAMILIES: Final[Mapping[str, CallFamily | TalkFamily]] = {
    family.name: family for family in (*TOOL_CALLS, SMALL_TALK)
}
"""Every family of conversations with tools by name."""

_ALL: Final[Mapping[str, AnyFamily]] = {**FAMILIES, **CONVERSATION_FAMILIES}

SOURCE: Final = "generator"
"""What the traces say that they come from."""

_TRACE_VERSION: Final = "1.0"
_GENERATOR: Final = "tunix-rt-generate/1"


@dataclass(frozen=True, slots=True)
class GeneratedStep:
    """One reasoning step: its number from 0, its kind (``compute`` or ``recall``) and its text."""

    i: int
    type: str
    content: str


@dataclass(frozen=True, slots=True)
class GeneratedTrace:
    """A prompt, the steps that solve it, the answer, and where it stands in the generator's sequence.

    A ``conversation`` has its first question as prompt, no steps, and what is said last as the answer.
    """

    trace_version: str
    prompt: str
    steps: tuple[GeneratedStep, ...]
    final_answer: str
    family: str
    difficulty: Difficulty
    seed: int
    index: int
    conversation: Conversation | None = None

    @property
    def metadata(self) -> dict[str, Any]:
        """What the trace store keeps beside the trace."""
        return {
            "generator": _GENERATOR,
            "family": self.family,
            "difficulty": self.difficulty,
            "seed": self.seed,
            "index": self.index,
        }

    def to_dict(self) -> dict[str, Any]:
        """The trace as one line of native trace JSONL holds it."""
        return {
            "trace_version": self.trace_version,
            **self._content(),
            "metadata": self.metadata,
            "source": SOURCE,
        }

    def to_json(self) -> str:
        """One line of native trace JSONL."""
        return json.dumps(self.to_dict())

    def to_eval_item(self) -> dict[str, Any]:
        """The problem without its solution, as one line of eval-set JSONL holds it.

        Of a conversation it has the messages before the turn that is asked for, and the tools.
        """
        return {
            "id": f"{self.family}-{self.difficulty}-{self.seed}-{self.index}",
            **self._asked(),
            "category": self.family,
            "difficulty": self.difficulty,
        }

    def _content(self) -> dict[str, Any]:
        if self.conversation is not None:
            return {"messages": list(self.conversation.messages), "tools": list(self.conversation.tools)}
        return {
            "prompt": self.prompt,
            "steps": [{"i": step.i, "type": step.type, "content": step.content} for step in self.steps],
            "final_answer": self.final_answer,
        }

    def _asked(self) -> dict[str, Any]:
        if self.conversation is None:
            return {"prompt": self.prompt, "accepted_answers": [self.final_answer], "grader": "numeric"}
        asked = self.conversation.asked
        return {
            "messages": list(self.conversation.messages[: asked.after]),
            "tools": list(self.conversation.tools),
            "accepted_answers": list(asked.accepted),
            "grader": dict(asked.grader),
        }


def generate_traces(
    count: int,
    seed: int = 0,
    *,
    families: Sequence[str] | None = None,
    difficulty: Difficulty = "easy",
    start: int = 0,
) -> Iterator[GeneratedTrace]:
    """Traces number ``start`` to ``start + count - 1`` of the sequence that the other arguments name.

    Trace k depends only on k and those arguments, and no two traces of one sequence have the same prompt: two
    stretches of one sequence are a training set and a held-out set. The families take turns; within a family
    the numbers of a problem come back, in other words, only when all combinations are used.

    Args:
        families: names out of `FAMILIES` and `CONVERSATION_FAMILIES`; left out, all of the former.
        difficulty: ``easy`` has one to three short steps and small numbers.

    Raises ValueError for an unknown family or difficulty, a negative number, or more traces than there are.
    """
    chosen = _chosen(families)
    if difficulty not in DIFFICULTIES:
        raise ValueError(f"difficulty is {difficulty!r}; one of {', '.join(DIFFICULTIES)} would be right")
    for name, value in (("count", count), ("seed", seed), ("start", start)):
        if value < 0:
            raise ValueError(f"{name} is {value}; 0 or more would be right")
    available = capacity(families, difficulty)
    if start + count > available:
        raise ValueError(
            f"count is {count} from start {start}; "
            f"these families have {available} traces at difficulty {difficulty}"
        )
    return (_trace(index, seed, chosen, difficulty) for index in range(start, start + count))


def capacity(families: Sequence[str] | None = None, difficulty: Difficulty = "easy") -> int:
    """How many traces a sequence of these families has, all their prompts different."""
    chosen = _chosen(families)
    return len(chosen) * min(family.problems(difficulty) * family.wordings for family in chosen)


def _chosen(families: Sequence[str] | None) -> tuple[AnyFamily, ...]:
    names = tuple(FAMILIES) if families is None else tuple(families)
    unknown = [name for name in names if name not in _ALL]
    if unknown:
        raise ValueError(f"families has {unknown[0]!r}; the known ones are {', '.join(_ALL)}")
    if not names or len(set(names)) != len(names):
        raise ValueError(f"families is {list(names)}; one or more names, each once, would be right")
    return tuple(family for name, family in _ALL.items() if name in names)


def _trace(index: int, seed: int, families: Sequence[AnyFamily], difficulty: Difficulty) -> GeneratedTrace:
    block, place = divmod(index, len(families))
    family = families[permuted(place, len(families), seed, "family", block)]
    key = (seed, family.name, difficulty)
    problems = family.problems(difficulty)
    again, turn = divmod(block, problems)
    number = permuted(turn, problems, *key, again)
    wording = (keyed_number(*key, "wording", number) + again) % family.wordings
    problem = family.solved(difficulty, number, wording)
    steps = () if isinstance(problem, Conversation) else problem.steps
    return GeneratedTrace(
        trace_version=_TRACE_VERSION,
        prompt=problem.prompt,
        steps=tuple(GeneratedStep(i, step.type, step.content) for i, step in enumerate(steps)),
        final_answer=problem.answer,
        family=family.name,
        difficulty=difficulty,
        seed=seed,
        index=index,
        conversation=problem if isinstance(problem, Conversation) else None,
    )

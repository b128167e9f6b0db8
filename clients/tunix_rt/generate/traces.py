"""Generated traces: correct reasoning over small numbers, the same for the same seed everywhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final, TypeVar

from tunix_rt.generate.arithmetic import ARITHMETIC
from tunix_rt.generate.family import DIFFICULTIES, Difficulty, Family
from tunix_rt.generate.word_problems import WORD_PROBLEMS

FAMILIES: Final[Mapping[str, Family]] = {family.name: family for family in (*ARITHMETIC, *WORD_PROBLEMS)}
"""Every family by name."""

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
    """A prompt, the steps that solve it, the answer, and where it stands in the generator's sequence."""

    trace_version: str
    prompt: str
    steps: tuple[GeneratedStep, ...]
    final_answer: str
    family: str
    difficulty: Difficulty
    seed: int
    index: int

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
            "prompt": self.prompt,
            "steps": [{"i": step.i, "type": step.type, "content": step.content} for step in self.steps],
            "final_answer": self.final_answer,
            "metadata": self.metadata,
            "source": SOURCE,
        }

    def to_eval_item(self) -> dict[str, Any]:
        """The problem without its solution, as one line of eval-set JSONL holds it."""
        return {
            "id": f"{self.family}-{self.difficulty}-{self.seed}-{self.index}",
            "prompt": self.prompt,
            "accepted_answers": [self.final_answer],
            "grader": "numeric",
            "category": self.family,
            "difficulty": self.difficulty,
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
        families: names out of `FAMILIES`; left out, all of them.
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


def _chosen(families: Sequence[str] | None) -> tuple[Family, ...]:
    names = tuple(FAMILIES) if families is None else tuple(families)
    unknown = [name for name in names if name not in FAMILIES]
    if unknown:
        raise ValueError(f"families has {unknown[0]!r}; the known ones are {', '.join(FAMILIES)}")
    if not names or len(set(names)) != len(names):
        raise ValueError(f"families is {list(names)}; one or more names, each once, would be right")
    return tuple(family for name, family in FAMILIES.items() if name in names)


def _trace(index: int, seed: int, families: Sequence[Family], difficulty: Difficulty) -> GeneratedTrace:
    block, place = divmod(index, len(families))
    family = families[permuted(place, len(families), seed, "family", block)]
    key = (seed, family.name, difficulty)
    problems = family.problems(difficulty)
    again, turn = divmod(block, problems)
    number = permuted(turn, problems, *key, again)
    wording = (keyed_number(*key, "wording", number) + again) % family.wordings
    problem = family.write(
        mixed_radix(number, family.numbers[difficulty]), mixed_radix(wording, family.words)
    )
    return GeneratedTrace(
        trace_version=_TRACE_VERSION,
        prompt=problem.prompt,
        steps=tuple(GeneratedStep(i, step.type, step.content) for i, step in enumerate(problem.steps)),
        final_answer=problem.answer,
        family=family.name,
        difficulty=difficulty,
        seed=seed,
        index=index,
    )


T = TypeVar("T")

_ROUNDS = 6


def keyed_number(*key: int | str) -> int:
    """A number of 64 bits that only ``key`` decides, the same in every process and on every machine."""
    text = "\x1f".join(map(str, key))
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")


def permuted(place: int, size: int, *key: int | str) -> int:
    """Where ``place`` lands in the permutation of ``range(size)`` that ``key`` names.

    A Feistel network over the next even power of two, walked until it lands inside (Black and Rogaway,
    "Ciphers with Arbitrary Finite Domains", 2002): distinct places land on distinct numbers, and no table is
    kept.
    """
    if not 0 <= place < size:
        raise ValueError(f"place is {place}; a number from 0 to {size - 1} would be right")
    half_bits = max(1, ((size - 1).bit_length() + 1) // 2)
    mask = (1 << half_bits) - 1
    while True:
        left, right = place >> half_bits, place & mask
        for turn in range(_ROUNDS):
            left, right = right, left ^ (keyed_number(*key, turn, right) & mask)
        place = left << half_bits | right
        if place < size:
            return place


def mixed_radix(number: int, choices: Sequence[Sequence[T]]) -> tuple[T, ...]:
    """One of each of ``choices``, by the digits of ``number``: another one for each number."""
    picked = []
    for options in choices:
        number, digit = divmod(number, len(options))
        picked.append(options[digit])
    return tuple(picked)

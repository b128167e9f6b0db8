"""Which pattern the text of a wrong answer shows, by rules that look at the text alone.

A pattern says what stands there, never why. ``RULES`` are tried in their order, and the first that fits is
the answer's pattern, so that each answer has exactly one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from tunix_rt_evaluator.comparisons.model import ComparisonContent, Flip, PatternCount, PatternName
from tunix_rt_evaluator.evaluations.model import ItemResult
from tunix_rt_evaluator.grading.model import Answer, CannotGrade, Parts, Question, kinds

REPEATS: Final = 3
"""How often a passage must stand in a row at a text's end."""
REPEATED_CHARACTERS: Final = 60
"""How long those passages must be together."""
GROUP_ITEMS: Final = 10
"""Items that a document shows of a group."""
_TAIL: Final = 3_000
# Longer texts are not graded a second time.
_MOST_CHARACTERS: Final = 20_000
_READS: Final = frozenset({"numeric", "text", "set", "math", "multiple_choice", "token_f1"})
"""Kinds of grader that read one value out of a text."""
# Those of them for which an answer is right that equals an accepted one.
_COMPARES: Final = _READS - {"token_f1"}
_STEP: Final = re.compile(
    r"^[ \t]*(?:\*\*|#+[ \t]*)?(?:step[ \t]+)?\d{1,3}[.):](?=\s|\*)", re.MULTILINE | re.IGNORECASE
)
_NOTHING: Final = Parts("", "", "none", 0)


@dataclass(frozen=True)
class _Answer:
    """The wrong answer to an item, and the right one beside it; of several samples those that are shown."""

    wrong: ItemResult
    right: ItemResult

    @property
    def parts(self) -> Parts:
        return next(iter(self.wrong.parts), _NOTHING)

    @property
    def value(self) -> str:
        """The value that the grader read."""
        return self.wrong.verdict.extracted_answer.strip()

    @property
    def cut(self) -> bool:
        return self.wrong.generation.finish_reason == "length"

    @property
    def reads(self) -> bool:
        """Whether the item's grader reads one value."""
        return self.wrong.grader.partition("/")[0] in _READS

    @cached_property
    def steps(self) -> tuple[int, int]:
        """Numbered lines of the right answer and of the wrong one."""
        right = next(iter(self.right.parts), _NOTHING)
        return _steps(right), _steps(self.parts)


@dataclass(frozen=True, slots=True)
class Rule:
    """A pattern: its heading, its rule in words, and whether it fits an answer."""

    name: PatternName
    heading: str
    rule: str
    fits: Callable[[_Answer], bool]


RULES: Final = (
    Rule(
        "not_generated",
        "No answer was generated",
        "the item failed, so that there is no text",
        lambda answer: answer.wrong.generation.finish_reason == "failed",
    ),
    Rule(
        "not_graded",
        "Could not be graded",
        "the grader gave an error instead of a verdict",
        lambda answer: bool(answer.wrong.verdict.error),
    ),
    Rule(
        "repeats",
        "Repeats itself",
        f"the text ends with the same passage {REPEATS} times in a row or more, "
        f"{REPEATED_CHARACTERS} characters or more in all",
        lambda answer: repeats(answer.wrong.generation.output),
    ),
    Rule(
        "reasoning_unclosed",
        "Reasoning not closed",
        "the reasoning was opened and never closed",
        lambda answer: answer.parts.state == "unclosed",
    ),
    Rule(
        "empty",
        "Empty",
        "no text stands outside of reasoning",
        lambda answer: not answer.parts.answer.strip(),
    ),
    Rule(
        "same_answer",
        "Same value, other verdict",
        "the same value was read on both sides",
        lambda answer: (
            bool(answer.value) and _plain(answer.value) == _plain(answer.right.verdict.extracted_answer)
        ),
    ),
    Rule(
        "other_format",
        "Other format than the grader takes",
        "the item's own grader, which compares values, does not take the text; the grader `numeric` or "
        "`text`, without settings, takes its answer, which is marked or all that it says",
        lambda answer: _right_elsewhere(answer),
    ),
    Rule(
        "cut",
        "Cut at max_new_tokens",
        "the answer reached the most new tokens before the grader read a value in it",
        lambda answer: answer.cut and not (answer.reads and answer.value),
    ),
    Rule(
        "accepted_in_text",
        "No answer found, though an accepted one stands in the text",
        "the grader read no value; an accepted answer stands in the text, and not in the question",
        lambda answer: answer.reads and not answer.value and _holds_accepted(answer),
    ),
    Rule(
        "no_answer",
        "No answer found",
        "the grader read no value",
        lambda answer: answer.reads and not answer.value,
    ),
    Rule(
        "more_steps",
        "Other value, with more steps",
        "another value was read, and both sides number their steps: the wrong one has more of them",
        lambda answer: answer.reads and 0 < answer.steps[0] < answer.steps[1],
    ),
    Rule(
        "fewer_steps",
        "Other value, with fewer steps",
        "another value was read, and both sides number their steps: the wrong one has fewer of them",
        lambda answer: answer.reads and answer.steps[0] > answer.steps[1] > 0,
    ),
    Rule(
        "other_value",
        "Other value",
        "another value was read",
        lambda answer: answer.reads,
    ),
    Rule("other", "Other", "no other rule fits", lambda _: True),
)
"""Every pattern, in the order in which they are tried."""

_SAYS: Final = {
    "contains": "the answer does not hold the accepted text, or not all of them",
    "regex": "no accepted pattern matches",
    "format": "the output has not the form in which datasets write reasoning",
    "json_schema": "the answer is not JSON that the schema allows, or not an accepted value",
    "judge": "the judge says so",
    "python": "the item's own function says so",
}
"""Why an answer is wrong that no other rule fits, by the kind of grader, which reads no value."""


def shown(result: ItemResult) -> ItemResult:
    """A result with the answer to show as its only one: of several, the first that has the item's verdict."""
    for number, (answer, verdict) in enumerate(zip(result.generation.answers, result.verdicts, strict=False)):
        if verdict.correct == result.verdict.correct:
            first = {name: getattr(answer, name) for name in Answer.model_fields}
            told = {"extracted_answer": verdict.extracted_answer, "error": verdict.error}
            return result.model_copy(
                update={
                    "splits": result.splits[number : number + 1],
                    "generation": result.generation.model_copy(update=first),
                    "verdict": result.verdict.model_copy(update=told),
                }
            )
    return result


def pattern(base: ItemResult, candidate: ItemResult) -> PatternName:
    """The pattern of the wrong one of two answers, of which the other one is right."""
    wrong, right = (base, candidate) if candidate.verdict.correct else (candidate, base)
    answer = _Answer(shown(wrong), shown(right))
    return next(rule.name for rule in RULES if rule.fits(answer))


def pattern_counts(flips: Iterable[Flip]) -> tuple[PatternCount, ...]:
    """How often each pattern occurs, in the order of ``RULES``; those that never do are left out."""
    of_each = [
        PatternCount(
            pattern=rule.name,
            regression_count=sum(flip.regressed for flip in found),
            improvement_count=sum(not flip.regressed for flip in found),
        )
        for rule in RULES
        if (found := [flip for flip in flips if flip.pattern == rule.name])
    ]
    return tuple(of_each)


@dataclass(frozen=True, slots=True)
class Group:
    """Items that went one way and whose wrong answers show one pattern, by category and question.

    ``rule`` is None for those of a report of an older version, which has no patterns.
    """

    rule: Rule | None
    flips: Sequence[Flip]

    @property
    def heading(self) -> str:
        """The pattern."""
        return self.rule.heading if self.rule else "Not grouped"

    @property
    def why(self) -> str:
        """The rule, and where it is that no other fits, what the graders of its items say."""
        if self.rule is None or self.rule.name != "other":
            return self.rule.rule if self.rule else ""
        kinds = sorted({flip.base.grader.partition("/")[0] for flip in self.flips})
        said = [f"by the grader `{kind}`, {_SAYS[kind]}" for kind in kinds if kind in _SAYS]
        return "; ".join([self.rule.rule, *said])

    @property
    def count(self) -> int:
        """How many items it has."""
        return len(self.flips)

    @property
    def shown(self) -> Sequence[Flip]:
        """The items that a document shows of it."""
        return self.flips[:GROUP_ITEMS]

    @property
    def left_out(self) -> int:
        """How many items it does not."""
        return self.count - len(self.shown)


def groups(content: ComparisonContent, *, regressed: bool) -> list[Group]:
    """The items that went wrong, or right, by their patterns: the largest group first."""
    flips = in_order(flip for flip in content.flips if flip.regressed is regressed)
    found = [
        Group(rule, members)
        for rule in (*RULES, None)
        if (members := [flip for flip in flips if flip.pattern == (rule.name if rule else None)])
    ]
    return sorted(found, key=lambda group: -group.count)


def in_order(flips: Iterable[Flip]) -> list[Flip]:
    """By category, then by question."""
    return sorted(flips, key=lambda flip: (flip.base.category, flip.base.prompt, flip.base.item_id))


def repeats(text: str) -> bool:
    """Whether a text ends with one passage several times in a row; the last of them may be cut."""
    tail = " ".join(text[-2 * _TAIL :].split())[-_TAIL:]
    for period in range(1, len(tail) // REPEATS + 1):
        # As far as the text is equal to itself moved by a period.
        equal = max((REPEATS - 1) * period, REPEATED_CHARACTERS - period)
        if equal + period <= len(tail) and tail[-equal:] == tail[-equal - period : -period]:
            return True
    return False


def _steps(parts: Parts) -> int:
    return sum(1 for text in (parts.reasoning, parts.answer) for _ in _STEP.finditer(text))


def _plain(value: str) -> str:
    return " ".join(value.casefold().split())


def _right_elsewhere(answer: _Answer) -> bool:
    """Whether the grader ``numeric`` or ``text`` takes the text, where the item's own compares values too."""
    from tunix_rt_evaluator.grading.reading.answers import read_answer

    own, text = answer.wrong.grader.partition("/")[0], answer.parts.answer
    question = Question(answer.wrong.prompt, answer.wrong.accepted_answers, answer.cut)
    if own not in _COMPARES or not question.accepted or len(text) > _MOST_CHARACTERS:
        return False
    marked = read_answer(text).labelled
    return any(_takes(name, question, text, marked=marked) for name in ("numeric", "text") if name != own)


def _takes(name: str, question: Question, text: str, *, marked: bool) -> bool:
    """Whether a grader takes a text whose answer is marked, or that is nothing but an answer."""
    kind = kinds()[name]
    try:
        verdict = kind.grade(kind.settings.model_validate({"kind": name}), question, text)
    except CannotGrade:
        return False
    alone = not question.cut and verdict.extracted_answer.strip(" .") == text.strip(" .\n")
    return verdict.correct and (marked or alone)


def _holds_accepted(answer: _Answer) -> bool:
    """Whether an accepted answer stands in the text as a word of its own, and not in the question."""
    from tunix_rt_evaluator.grading.graders.strings import places

    def stands(accepted: str, text: str) -> bool:
        wanted, given = _plain(accepted), _plain(text)
        # A single letter is a word of its own in many texts.
        said = len(wanted) > 1 or wanted.isdigit()
        return said and next(places(wanted, given, whole_words=True), None) is not None

    return any(
        stands(accepted, answer.parts.answer) and not stands(accepted, answer.wrong.prompt)
        for accepted in answer.wrong.accepted_answers
    )

"""Regular expressions, with a limit on how long one may take."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from importlib import metadata
from typing import Final, Literal

import regex

from tunix_rt_evaluator.grading.model import CannotGrade, GraderSettings, Problem, Question, Verdict, grader
from tunix_rt_evaluator.grading.reading.answers import read_answer

_VERSION: Final = f"regex/2 regex={metadata.version('regex')}"
MATCH_SECONDS: Final = 1.0
_MAX_PATTERN: Final = 1_000
_UNLIKE: Final = ("7", "q", "Z", "-", "\u00a7", "\u0416", "\u7b54", "some words, then 12.5!")


class RegexGrader(GraderSettings):
    """Right when an accepted answer, which is a pattern, matches."""

    kind: Literal["regex"] = "regex"
    full_match: bool = False
    ignore_case: bool = False
    whole_output: bool = False


def _problems(settings: RegexGrader, accepted: Sequence[str]) -> Iterator[Problem]:
    for number, pattern in enumerate(accepted):
        if len(pattern) > _MAX_PATTERN:
            yield (
                ("accepted_answers", number),
                f"is a pattern of {len(pattern):,} characters; at most {_MAX_PATTERN:,} would be right",
            )
            continue
        try:
            _compiled(pattern, settings.ignore_case)
        except (regex.error, RecursionError, OverflowError, MemoryError) as error:
            yield (
                ("accepted_answers", number),
                f"is {pattern[:60]!r}, which is no regular expression: {error}",
            )
            continue
        if _allows_all(pattern, settings):
            yield ("accepted_answers", number), f"is {pattern[:60]!r}, which matches any text"


def _allows_all(pattern: str, settings: RegexGrader) -> bool:
    """Whether a pattern that asks for nothing, and rules nothing out, matches texts that share nothing."""
    if "(?!" in pattern or "(?<!" in pattern:
        return False
    compiled = _compiled(pattern, settings.ignore_case)
    find = compiled.fullmatch if settings.full_match else compiled.search
    try:
        return all(find(text, timeout=MATCH_SECONDS) for text in _UNLIKE)
    except (TimeoutError, MemoryError):
        return False


@grader(
    RegexGrader,
    6,
    _VERSION,
    marked=lambda settings, output: settings.whole_output or read_answer(output).labelled,
    problems=_problems,
)
def grade(settings: RegexGrader, question: Question, output: str) -> Verdict:
    """Right when a pattern matches; what it matched is the answer. Raises CannotGrade if one is too slow."""
    text = output if settings.whole_output else read_answer(output).text
    if not text.strip():
        return Verdict(extracted_answer="", correct=False)
    for pattern in question.accepted:
        compiled = _compiled(pattern, settings.ignore_case)
        find = compiled.fullmatch if settings.full_match else compiled.search
        try:
            match = find(text, timeout=MATCH_SECONDS, concurrent=True)
        except TimeoutError:
            raise CannotGrade(f"the pattern {pattern[:60]!r} is not done after {MATCH_SECONDS:g} s") from None
        except MemoryError:
            raise CannotGrade(f"the pattern {pattern[:60]!r} needs too much memory") from None
        if match is not None:
            return Verdict(extracted_answer=match.group(), correct=True)
    return Verdict(extracted_answer=text.partition("\n")[0].strip(), correct=False)


@lru_cache(maxsize=256)
def _compiled(pattern: str, ignore_case: bool) -> regex.Pattern[str]:
    return regex.compile(pattern, regex.IGNORECASE if ignore_case else 0)

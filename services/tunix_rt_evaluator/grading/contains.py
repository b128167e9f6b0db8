"""Words that must occur in an answer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from tunix_rt_evaluator.grader_settings import ContainsGrader
from tunix_rt_evaluator.grading.answers import read_answer
from tunix_rt_evaluator.grading.contract import GraderKind, Question
from tunix_rt_evaluator.model import Verdict

VERSION: Final = "contains/2"

# What before or behind a digit makes it part of another number. Between two words a hyphen is no sign.
_BEFORE_NUMBER: Final = re.compile(
    r"""(?: \d\.? | \. | \u221a\s? | [\u00bc-\u00be\u2150-\u215e] | \d\s?/\s? | \^\{? | [\w)]\*\*
      | \b(?:minus|negative)\s
      | (?: (?<![\w)\]}.]) | (?<=\d[eE]) ) [-\u2212\u2013\u00b1] [$\u20ac\u00a3]?
      | (?: ^ | [=(] ) \s? [-\u2212\u00b1] \s [$\u20ac\u00a3]?
    )\Z""",
    re.VERBOSE | re.IGNORECASE,
)
_THOUSANDS: Final = re.compile(r"\d,\Z")
_GROUP: Final = re.compile(r"\d{3}(?!\d)")
_PROSE: Final = re.compile(r"[^\W\d_]{2}")
_BEHIND_NUMBER: Final = re.compile(
    r"""\d | \.\d | ,\d{3}(?!\d) | \s?/\s?\d | \s?\\?% | \spercent\b | \sper\scent\b
      | \^ | \*\*[\w(-] | [\u00b2\u00b3\u00b9\u2070-\u207f] | e[-+]?\d | k(?!\w) | :\d
      | \s?[\u00bc-\u00be\u2150-\u215e] | \s\d+/\d | \s?[\u00d7*x]\s?10\b
      | \s(?:dozen|hundred|thousand|million|billion|trillion)s?\b | !(?=\s?[-+*/=^!)])""",
    re.VERBOSE | re.IGNORECASE,
)
# What before or behind a word makes another one of it: .NET, -x; C#, C++, A-, Node.js, can't.
_BEFORE_WORD: Final = re.compile(r"(?<!\w)\.\Z")
_BEFORE_LETTER: Final = re.compile(r"(?<![\w)\]}])[-\u2212]\Z")
_BEHIND_WORD: Final = re.compile(
    r"\# | \+(?!\w) | [-\u2212](?!\w) | 't\b | \.(?=\w)", re.VERBOSE | re.IGNORECASE
)
_PRIME: Final = re.compile(r"['\u2032\u2033](?!\w)")
_NEAR: Final = 12


def grade(settings: ContainsGrader, question: Question, output: str) -> Verdict:
    """Right when any of the accepted answers occurs, or all do; the score is then the share that does."""
    text = output if settings.whole_output else read_answer(output).text
    found = [entry for entry in question.accepted if _occurs(entry, text, settings)]
    share = len(found) / len(question.accepted)
    score = share if settings.all else float(bool(found))
    return Verdict(extracted_answer=", ".join(found), correct=score == 1.0, score=score)


def _occurs(entry: str, text: str, settings: ContainsGrader) -> bool:
    wanted, given = " ".join(entry.split()), " ".join(text.split())
    if not settings.case_sensitive:
        wanted, given = wanted.casefold(), given.casefold()
    return next(places(wanted, given, whole_words=settings.whole_words), None) is not None


def places(wanted: str, given: str, *, whole_words: bool) -> Iterator[int]:
    """Where a text occurs in another one and is not part of another number, or with ``whole_words`` of
    another word."""
    at, prose = given.find(wanted), _PROSE.search(given) is not None
    while at >= 0:
        if not _of_another(wanted, given, at, whole_words=whole_words, prose=prose):
            yield at
        at = given.find(wanted, at + 1)


def _of_another(wanted: str, given: str, start: int, *, whole_words: bool, prose: bool) -> bool:
    """Whether what occurs at ``start`` is part of another number, or with ``whole_words`` of another word;
    in ``prose`` an exclamation mark ends a sentence."""
    end = start + len(wanted)
    before, behind = given[max(0, start - _NEAR) : start], given[end : end + _NEAR]
    if wanted.removeprefix(".")[:1].isdigit() and (
        _BEFORE_NUMBER.search(before) or (_THOUSANDS.search(before) and _GROUP.match(wanted))
    ):
        return True
    if wanted[-1:].isdigit() and (_BEHIND_NUMBER.match(behind) or (behind[:1] == "!" and not prose)):
        return True
    return whole_words and _of_another_word(wanted, before, behind)


def _of_another_word(wanted: str, before: str, behind: str) -> bool:
    if before[-1:].isalnum() or before[-1:] == "_" or behind[:1].isalnum() or behind[:1] == "_":
        return True
    letter = len(wanted) == 1 and wanted.isalpha()
    if letter and (_BEFORE_LETTER.search(before) or (before[-1:] != "'" and _PRIME.match(behind))):
        return True
    return bool(
        (wanted[:1].isalpha() and _BEFORE_WORD.search(before))
        or (wanted[-1:].isalpha() and _BEHIND_WORD.match(behind))
        or (behind[:1] in ("#", "+", "'", "!") and behind[:1] == wanted[-1:])
    )


KIND: Final = GraderKind(
    version=lambda _: VERSION,
    grade=grade,
    marked=lambda settings, output: settings.whole_output or read_answer(output).labelled,
)

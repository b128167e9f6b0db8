"""Words that must occur in an answer."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import Final, Literal

from tunix_rt_evaluator.grading.model import GraderSettings, Question, Verdict, grader
from tunix_rt_evaluator.grading.reading.answers import read_answer
from tunix_rt_evaluator.grading.reading.spelling import CURRENCY, LETTER, without_variants
from tunix_rt_evaluator.grading.reading.words import MINUS, PERCENT, SCALES, UNSPACED_MINUS
from tunix_rt_evaluator.grading.units import GLUED_UNIT

_VULGAR: Final = "[\u00bc-\u00be\u2150-\u215e\u2189]"
_INDICES: Final = "\u00b2\u00b3\u00b9\u2070-\u209c"
_SCALE: Final = "|".join(SCALES.values())

# What before or behind a number makes it part of another one: only units may touch it. Between two words a
# hyphen is no sign.
_BEFORE_NUMBER: Final = re.compile(
    rf"""(?: \d\.? | \. | \u221a\s? | {_VULGAR} | \d\s?[/\u2044\u00f7]\s? | \^\{{? | _\{{? | [\w)]\*\*
      | {LETTER} | [{_INDICES}]
      | \b(?:negative|{MINUS})\s | {UNSPACED_MINUS} | \\[a-z]+\s?\{{?
      | (?: (?<![\w)\]}}.]) | (?<=\d[eE]) ) [-\u2212\u2013\u00b1] [{CURRENCY}]?
      | (?: ^ | [=(] ) \s? [-\u2212\u00b1] \s [{CURRENCY}]?
    )\Z""",
    re.VERBOSE | re.IGNORECASE,
)
# A sign between two values is none of the number behind it.
_BEFORE_SIGN: Final = re.compile(
    r"(?: [\w)\]}+\u2212\u00b1-] | \d\s | (?<!\(\w)[)\]}]\s | (?<!\w)[^\W\d_]\s )\Z", re.VERBOSE
)
_THOUSANDS: Final = re.compile(r"\d[,'\u2019_ \u00a0\u2009\u202f]\Z")
_SIGNED: Final = re.compile(r"[-+\u2212\u00b1]\s?\S")
_NUMBER: Final = re.compile(rf"[-+\u2212\u00b1\s{CURRENCY}(]*\.?\d")
# A formula is no part of a longer one, a fraction none of a mixed number, a unit none of another one.
_EDGED: Final = re.compile(r"[+*/^=<>\\]")
_PART_OF_MIXED: Final = re.compile(rf"\d+/\d|{_VULGAR}")
_DIGIT_BEFORE: Final = re.compile(r"\d\s?\Z")
_SIGN_BEFORE: Final = re.compile(r"(?<![\w)\]}])[-\u2212\u00b1]\s?\Z")
_UNIT_GOES_ON: Final = re.compile(r"[/^]\w|\*\*|[\u00b2\u00b3]")
_GROUP: Final = re.compile(r"\d{3}(?!\d)")
_PROSE: Final = re.compile(r"[^\W\d_]{2}")
_BEHIND_NUMBER: Final = re.compile(
    rf"""\d | \.\d | [,'\u2019_ \u00a0\u2009\u202f]\d{{3}}(?!\d) | \s?[/\u2044\u00f7]\s?[\d{{(]
      | \s?(?:\\?%|\u2030|(?:{PERCENT})(?!\w)) | \^ | _[\w{{] | \*\*[\w(-] | [{_INDICES}] | :\d | \(
      | (?!{GLUED_UNIT}(?!\w)|(?:st|nd|rd|th)s?(?!\w)){LETTER}
      | \s?{_VULGAR} | \s\d+/\d | \s?[\u00d7*x\u00b7\u22c5]\s?10\b | [-\s]*(?:{_SCALE})(?!{LETTER})
      | !(?=\s?[-+*/=^!)]) | \s?[\u221a\u03c0] | \s?\\(?:sqrt|pi|frac|times|cdot)""",
    re.VERBOSE | re.IGNORECASE,
)
# What capital letters say: 5m is five metres, and 5M five million.
_BEHIND_NUMBER_AS_WRITTEN: Final = re.compile(r"(?:[KMBT]|mn|bn|tn)(?!\w)")
# What before or behind a word makes another one of it: .NET, -x; C#, C++, A-, Node.js, can't.
_BEFORE_WORD: Final = re.compile(r"(?<!\w)\.\Z")
_BEFORE_LETTER: Final = re.compile(r"(?<![\w)\]}])[-\u2212]\Z")
_BEHIND_WORD: Final = re.compile(
    r"\# | \+(?!\w) | [-\u2212](?!\w) | 't\b | \.(?=\w)", re.VERBOSE | re.IGNORECASE
)
_PRIME: Final = re.compile(r"['\u2032\u2033](?!\w)")
_NEAR: Final = 24
_MAX_PLACES: Final = 2_000


class ContainsGrader(GraderSettings):
    """Right when any of the accepted answers, or all of them, occur."""

    kind: Literal["contains"] = "contains"
    all: bool = False
    case_sensitive: bool = False
    whole_words: bool = False
    whole_output: bool = False


def _unfit(_settings: ContainsGrader, accepted: str) -> str:
    if any(_says(character) for character in without_variants(accepted)):
        return ""
    return ", which nearly any answer holds; a text with a letter, a digit or a symbol would be right"


def _says(character: str) -> bool:
    """Whether a character is more than punctuation, space or markup."""
    return unicodedata.category(character)[0] in "LNS" and character not in "$^`~|<>"


@grader(
    ContainsGrader,
    7,
    "contains/2",
    marked=lambda settings, output: settings.whole_output or read_answer(output).labelled,
    unfit=_unfit,
)
def grade(settings: ContainsGrader, question: Question, output: str) -> Verdict:
    """Right when any of the accepted answers occurs, or all do; the score is then the share that does."""
    text = output if settings.whole_output else read_answer(output).text
    found = [entry for entry in question.accepted if _occurs(entry, text, settings)]
    share = len(found) / len(question.accepted)
    score = share if settings.all else float(bool(found))
    return Verdict(extracted_answer=", ".join(found), correct=score == 1.0, score=score)


def _occurs(entry: str, text: str, settings: ContainsGrader) -> bool:
    wanted, given = " ".join(entry.split()), " ".join(text.split())
    written = given
    if not settings.case_sensitive:
        wanted, given = wanted.casefold(), given.casefold()
    return next(places(wanted, given, written, whole_words=settings.whole_words), None) is not None


def places(wanted: str, given: str, written: str = "", *, whole_words: bool) -> Iterator[int]:
    """Where ``wanted`` occurs in ``given`` and is not part of a number, or with ``whole_words`` of a word.

    ``written`` is ``given`` with its capital letters.
    """
    at, prose = given.find(wanted), _PROSE.search(given) is not None
    # Some letters become two, such as the German sharp s.
    written = written if len(written) == len(given) else given
    for _ in range(_MAX_PLACES):
        if at < 0:
            return
        of_another = _of_another(wanted, given, at, whole_words=whole_words, prose=prose)
        end = at + len(wanted)
        if not of_another and not (wanted[-1:].isdigit() and _BEHIND_NUMBER_AS_WRITTEN.match(written, end)):
            yield at
        at = given.find(wanted, at + 1)


def _of_another(wanted: str, given: str, start: int, *, whole_words: bool, prose: bool) -> bool:
    """Whether the occurrence at ``start`` is part of a longer number, or with ``whole_words`` of a word.

    In ``prose`` an exclamation mark ends a sentence; elsewhere it is a factorial.
    """
    end = start + len(wanted)
    before, behind = given[max(0, start - _NEAR) : start], given[end : end + _NEAR]
    if wanted.removeprefix(".")[:1].isdigit() and (
        _BEFORE_NUMBER.search(before) or (_THOUSANDS.search(before) and _GROUP.match(wanted))
    ):
        return True
    if _SIGNED.match(wanted) and _BEFORE_SIGN.search(before):
        return True
    if _EDGED.search(wanted) and (before[-1:].isalnum() or behind[:1].isalnum()):
        return True
    if _PART_OF_MIXED.match(wanted) and _DIGIT_BEFORE.search(before):
        return True
    if wanted[:1] in tuple(CURRENCY) and _SIGN_BEFORE.search(before):
        return True
    if _NUMBER.match(wanted) and wanted[-1:].isalpha() and _UNIT_GOES_ON.match(behind):
        return True
    if wanted[-1:].isdigit() and behind[:1].isdigit():
        return True
    # Digits at the end of a name, as of cat5, are no number.
    if (
        _NUMBER.match(wanted)
        and wanted[-1:].isdigit()
        and (_BEHIND_NUMBER.match(behind) or (behind[:1] == "!" and not prose))
    ):
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

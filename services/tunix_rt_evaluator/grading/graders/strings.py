"""The graders of strings: ``text``, ``regex``, ``contains``, ``token_f1`` and ``format``."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from importlib import metadata
from typing import Annotated, Final, Literal

import regex
from pydantic import Field

from tunix_rt_evaluator.grading.model import (
    CannotGrade,
    GraderSettings,
    Problem,
    Question,
    Threshold,
    Verdict,
    grader,
)
from tunix_rt_evaluator.grading.reading.answers import Answer, read_answer
from tunix_rt_evaluator.grading.reading.context import objection
from tunix_rt_evaluator.grading.reading.numbers import GLUED_UNIT
from tunix_rt_evaluator.grading.reading.spelling import (
    CURRENCY,
    LETTER,
    SENTENCE_END,
    f1,
    normalise,
    without_variants,
)
from tunix_rt_evaluator.grading.reading.words import MINUS, PERCENT, SCALES, UNSPACED_MINUS
from tunix_rt_kit.chat.messages import ANSWER_LABEL, REASONING_HEADING

# As many characters as may stand around an accepted answer that is enclosed in marks.
_AROUND: Final = 1_000
_ASKED: Final = ("?", "\uff1f", "\u061f")


class TextGrader(GraderSettings):
    """Right when the answer, normalised, equals an accepted one."""

    kind: Literal["text"] = "text"


def _unfit_text(_settings: TextGrader, accepted: str) -> str:
    return "" if normalise(accepted) else ", which holds no text"


@grader(TextGrader, 2, "text/3", unfit=_unfit_text)
def grade_text(_settings: TextGrader, question: Question, output: str) -> Verdict:
    """Right when the answer, its first line, or the rest of its sentence is an accepted one."""
    answer = read_answer(output)
    wanted = {normalise(text) for text in question.accepted}
    named = any(text.strip().endswith(_ASKED) for text in question.accepted)
    longest = 2 * max(map(len, question.accepted)) + _AROUND
    for candidate in dict.fromkeys(_readings(answer)):
        if candidate and len(candidate) <= longest and normalise(candidate) in wanted:
            why = objection(answer.text.removeprefix(candidate) + answer.rest)
            if not why and not named and re.search(r"[?\uff1f\u061f]\W*$", candidate):
                why = "it is a question"
            return Verdict(extracted_answer=candidate, correct=not why, explanation=why)
    return Verdict(extracted_answer=answer.first_line, correct=False)


def _readings(answer: Answer) -> tuple[str, ...]:
    sentences = SENTENCE_END.split(answer.text, maxsplit=1) if answer.in_sentence else []
    return answer.text, answer.first_line, *sentences[:1]


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


def _problems_regex(settings: RegexGrader, accepted: Sequence[str]) -> Iterator[Problem]:
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
    problems=_problems_regex,
)
def grade_regex(settings: RegexGrader, question: Question, output: str) -> Verdict:
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


def _unfit_contains(_settings: ContainsGrader, accepted: str) -> str:
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
    unfit=_unfit_contains,
)
def grade_contains(settings: ContainsGrader, question: Question, output: str) -> Verdict:
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


_ARTICLES: Final = frozenset(("a", "an", "the"))
_NO_WORD: Final = re.compile(r"[^\w\s]|_")
_MINUSES: Final = str.maketrans({"\u2212": "-", "\u2013": "-", "\u2019": "'", "\u2018": "'"})
_BRACKETED: Final = re.compile(r"(?<!\S)\(([^()\[\]]*)\)(?=[\s.,;:!?]|$)")
_WORD: Final = re.compile(r"[^\W\d_]{2}")
_QUOTES: Final = "\"'`*_"
_BEFORE: Final = "\"'`*_\u201c\u201e\u00ab\u00bf\u00a1"
_BEHIND: Final = '"`*_\u201c\u201d\u00bb,;:.?'
# What means another thing without its signs: numbers, formulas, a letter with a sign, C#, C++, .NET, @name.
_SIGNED_WORD: Final = re.compile(
    r".*[\d\\^=<>|~+\u00b1\u00d7\u00f7\u221a\u00b0$\u20ac\u00a3].*|-[^\W\d_]{1,3}|[^\W\d_][-'\u2032!]*|[^\W\d_]+\#|[.@\#]\w+"
)


class TokenF1Grader(GraderSettings):
    """Right when the F1 of the words shared with an accepted answer reaches ``threshold``."""

    kind: Literal["token_f1"] = "token_f1"
    threshold: Threshold = 0.5


def _unfit_token_f1(_settings: TokenF1Grader, accepted: str) -> str:
    # An article alone is one only as a letter.
    if all(word in _ARTICLES and len(word) > 1 for word in words(accepted)):
        return ", of which punctuation and articles leave no word to compare"
    return ""


@grader(TokenF1Grader, 9, "token_f1/2", unfit=_unfit_token_f1)
def grade_token_f1(settings: TokenF1Grader, question: Question, output: str) -> Verdict:
    """The F1 with the nearest accepted answer; right from ``threshold`` on. No words at all are wrong."""
    answer = read_answer(output).text
    given = words(answer)
    score = max((f1(given, words(text)) for text in question.accepted), default=0.0) if given else 0.0
    return Verdict(extracted_answer=answer, correct=score >= settings.threshold, score=score)


def words(text: str) -> Counter[str]:
    """The words of a text (Rajpurkar et al. 2016): in small letters, without punctuation and articles.

    Signs that carry meaning, as in numbers and formulas, stay.
    """
    folded = without_variants(text).casefold().translate(_MINUSES)
    folded = _BRACKETED.sub(_without_brackets, folded)
    found = [word for token in folded.split() if (word := _word(token))]
    # An answer may be a single letter, or an article itself.
    return Counter([word for word in found if word not in _ARTICLES] or found)


def _without_brackets(bracketed: re.Match[str]) -> str:
    """A remark, or a value alone; a pair or an interval keeps its brackets."""
    inside = bracketed[1]
    return f" {inside} " if "," not in inside or _WORD.search(inside) else bracketed[0]


def _word(token: str) -> str:
    bare = token.rstrip(_BEHIND)
    if bare[:1] in _QUOTES and bare[-1:] == bare[:1]:
        bare = bare.strip(bare[:1])
    bare = bare.lstrip(_BEFORE).rstrip(_BEHIND)
    said = bare.rstrip("!")
    if len(said) > 1 and not said[-1].isdigit():
        bare = said
    return bare if _SIGNED_WORD.fullmatch(bare) else _NO_WORD.sub("", bare)


_STEP: Final = re.compile(r"(\d+)\. \S.*")


class FormatGrader(GraderSettings):
    """Right when the whole output has the form in which datasets write reasoning."""

    kind: Literal["format"] = "format"
    reasoning_style: Literal["numbered", "answer-only"] = "numbered"
    min_steps: Annotated[int, Field(ge=0, le=1_000)] = 1


@grader(FormatGrader, 8, "format/1", needs_accepted=False, marked=lambda _, __: True)
def grade_format(settings: FormatGrader, _question: Question, output: str) -> Verdict:
    """Right when nothing is missing and nothing more is there; the explanation says what is wrong."""
    *body, last = output.strip().split("\n")
    answer = last.removeprefix(ANSWER_LABEL).strip() if last.startswith(ANSWER_LABEL) else ""
    wrong = (
        f"the last line is not {ANSWER_LABEL!r} and an answer"
        if not answer
        else _body_problem(body, settings)
    )
    return Verdict(extracted_answer=answer, correct=not wrong, explanation=wrong)


def _body_problem(body: list[str], settings: FormatGrader) -> str:
    if settings.reasoning_style == "answer-only":
        return f"{len(body)} lines stand before the answer" if body else ""
    if not body:
        return "" if settings.min_steps == 0 else f"there is no {REASONING_HEADING!r}"
    if body[0] != REASONING_HEADING:
        return f"the first line is not {REASONING_HEADING!r}"
    for number, line in enumerate(body[1:], start=1):
        match = _STEP.fullmatch(line)
        if match is None or match[1] != str(number):
            return f"line {number + 1} is not step {number}, '{number}. ...'"
    steps = len(body) - 1
    least = max(settings.min_steps, 1)
    return f"it has {steps} steps, at least {least} would be right" if steps < least else ""

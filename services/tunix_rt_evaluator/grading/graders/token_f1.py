"""How many words an answer shares with an accepted one, as SQuAD measures it."""

from __future__ import annotations

import re
from collections import Counter
from typing import Final, Literal

from tunix_rt_evaluator.grading.model import GraderSettings, Question, Threshold, Verdict, grader
from tunix_rt_evaluator.grading.reading.answers import read_answer
from tunix_rt_evaluator.grading.reading.spelling import f1, without_variants

_ARTICLES: Final = frozenset(("a", "an", "the"))
_NO_WORD: Final = re.compile(r"[^\w\s]|_")
_MINUSES: Final = str.maketrans({"\u2212": "-", "\u2013": "-", "\u2019": "'", "\u2018": "'"})
_BRACKETED: Final = re.compile(r"(?<!\S)\(([^()\[\]]*)\)(?=[\s.,;:!?]|$)")
_WORD: Final = re.compile(r"[^\W\d_]{2}")
_QUOTES: Final = "\"'`*_"
_BEFORE: Final = "\"'`*_\u201c\u201e\u00ab\u00bf\u00a1"
_BEHIND: Final = '"`*_\u201c\u201d\u00bb,;:.?'
# What means another thing without its signs: numbers, formulas, a letter with a sign, C#, C++, .NET, @name.
_SIGNED: Final = re.compile(
    r".*[\d\\^=<>|~+\u00b1\u00d7\u00f7\u221a\u00b0$\u20ac\u00a3].*|-[^\W\d_]{1,3}|[^\W\d_][-'\u2032!]*|[^\W\d_]+\#|[.@\#]\w+"
)


class TokenF1Grader(GraderSettings):
    """Right when the F1 of the words shared with an accepted answer reaches ``threshold``."""

    kind: Literal["token_f1"] = "token_f1"
    threshold: Threshold = 0.5


def _unfit(_settings: TokenF1Grader, accepted: str) -> str:
    # An article alone is one only as a letter.
    if all(word in _ARTICLES and len(word) > 1 for word in words(accepted)):
        return ", of which punctuation and articles leave no word to compare"
    return ""


@grader(TokenF1Grader, 9, "token_f1/2", unfit=_unfit)
def grade(settings: TokenF1Grader, question: Question, output: str) -> Verdict:
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
    return bare if _SIGNED.fullmatch(bare) else _NO_WORD.sub("", bare)

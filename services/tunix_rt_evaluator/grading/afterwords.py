"""What stands around an answer: whether it takes the answer back, doubts it, or goes on with it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import Final

from tunix_rt_evaluator.grading.doubts import CERTAIN, DOUBT, FAREWELL, HEARSAY, HELP, MORE, WEAK
from tunix_rt_evaluator.grading.languages import CONDITION, CORRECTION, NEGATION
from tunix_rt_evaluator.grading.neighbours import pattern
from tunix_rt_evaluator.grading.spelling import UNSPACED

_MAX_LENGTH: Final = 2_000
_MAX_SENTENCES: Final = 40
_FEW_WORDS: Final = 3
_FEW_CHARACTERS: Final = 4
_TAG: Final = re.compile(r"</?[a-zA-Z|][^<>\n]{0,40}>")
# From here on the text is about another question.
_NEXT: Final = re.compile(
    r"^\W*(?:(?:next\s+)?question|q|problem|exercise|human|user|input|prompt|frage|pregunta)\b[^\n:]{0,20}[:.]"
    r"|^\W*问题|^\W*題|^\W*题",
    re.IGNORECASE | re.MULTILINE,
)
_SENTENCE: Final = re.compile(r"(?<=[.!?…])[\s\"'”’)\]*_]+|(?<=[。！？])|\n")  # noqa: RUF001
_QUESTION: Final = re.compile(r"[?？؟]")  # noqa: RUF001
_CORRECTED: Final = pattern(CORRECTION)
_CERTAIN: Final = pattern(CERTAIN)
_MORE: Final = pattern(MORE)
_DOUBTED: Final = pattern(DOUBT)
_WEAK: Final = pattern(WEAK)
_ABOUT_IT: Final = pattern(
    r"\b(?:it|that|this|i|i['\u2019]m|my|answers?|choices?|options?|das|es|ich|antwort|ça|ce|c|je|réponse|eso|esto|yo|respuesta)\b"
    r"| [我这這那] | 答案 | 答え | 정답"
)
_MANY_WORDS: Final = 6
_MANY_CHARACTERS: Final = 12
_GOES_ON: Final = pattern(
    r"\W*(?:(?:or|and|also|plus|as\ well\ as|oder|und|auch|ou|et|aussi|o|y|tambi\u00e9n|e)\b"
    r"|\u0438\u043b\u0438\b|\u6216|\u548c|\u8fd8\u6709|\u4ee5\u53ca)"
)
_BYE: Final = pattern(FAREWELL)
_OFFER: Final = pattern(HELP)
_WORD: Final = re.compile(rf"[^\W{UNSPACED}]+")
_WORDLESS: Final = re.compile(f"[{UNSPACED}]")
_OPEN: Final = pattern(rf"{NEGATION} | {DOUBT} | {HEARSAY} | {CONDITION} | \b(?:whether|why)\b")
# Whose answer follows, or of which kind it is.
_OTHER: Final = pattern(
    r"(?:['\u2019]s|s['\u2019]|\b(?:wrong|incorrect|false|bad|worst|possible|potential|alternative|other|another|previous|first|old"
    r"|initial|original|sample|example|user|student|their|his|her|expected|reference|falsche|mauvaise|mala|错误|錯誤|其他))"
    r"\s*(?:\w+\s)?$"
)
_CLAUSE: Final = re.compile(r"[,;:.!?()\n，；：。！？—–]")  # noqa: RUF001


def until_next(text: str) -> str:
    """A text up to where a line begins another question."""
    begins = _NEXT.search(text)
    return text[: begins.start()] if begins else text


def doubted(sentence: str) -> bool:
    """Whether a sentence doubts an answer or takes it back. Words such as "wrong" do so where they speak of
    the answer, or where there is little else."""
    sentence = _CERTAIN.sub(" ", sentence)
    found = _DOUBTED.search(sentence)
    if found is None:
        return False
    if not all(_WEAK.fullmatch(each[0].strip()) for each in _DOUBTED.finditer(sentence)):
        return True
    long = len(_WORD.findall(sentence)) >= _MANY_WORDS or len(_WORDLESS.findall(sentence)) >= _MANY_CHARACTERS
    return not long or _ABOUT_IT.search(sentence) is not None


def unsettled(sentence: str) -> bool:
    """Whether a sentence beside an answer that is no number doubts it, or says that it is a part or a lot."""
    return doubted(sentence) or _MORE.search(sentence) is not None


def _sentences(text: str) -> Iterator[str]:
    for sentence in _SENTENCE.split(_TAG.sub(" ", until_next(text))):
        if re.search(r"\w", sentence):
            yield sentence.strip()


def objection(rest: str) -> str:
    """Why what stands behind an answer leaves it none: another value, a question, a doubt or a correction; ""
    where it stays. Whole sentences that only explain are none of these."""
    for sentence in islice(_sentences(rest[:_MAX_LENGTH]), _MAX_SENTENCES):
        if _BYE.fullmatch(sentence.strip(" .!*_:;-")):
            continue
        if _CORRECTED.search(sentence) or unsettled(sentence):
            return "it is taken back or doubted behind it"
        if _GOES_ON.match(sentence):
            return f"more stands behind it: {sentence[:40]!r}"
        if _QUESTION.search(sentence) and not _OFFER.search(sentence):
            return "it is questioned behind it"
        if len(_WORD.findall(sentence)) < _FEW_WORDS and len(_WORDLESS.findall(sentence)) < _FEW_CHARACTERS:
            return f"more stands behind it: {sentence[:40]!r}"
    return ""


def is_asserted(before: str) -> bool:
    """Whether a text that begins with ``before`` asserts the answer that follows: its last clause holds no
    denial, doubt or condition, and it is nobody else's answer nor one of another kind."""
    clause = _CLAUSE.split(before)[-1]
    return not (_OPEN.search(clause) or _OTHER.search(clause))

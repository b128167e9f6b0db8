"""How many words an answer shares with an accepted one, as SQuAD measures it."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from typing import Final

from tunix_rt_evaluator.grader_settings import TokenF1Grader
from tunix_rt_evaluator.grading.answers import read_answer
from tunix_rt_evaluator.grading.contract import GraderKind, Question
from tunix_rt_evaluator.grading.overlap import f1
from tunix_rt_evaluator.model import Verdict

VERSION: Final = "token_f1/2"
_ARTICLES: Final = frozenset(("a", "an", "the"))
_NO_WORD: Final = re.compile(r"[^\w\s]|_")


def grade(settings: TokenF1Grader, question: Question, output: str) -> Verdict:
    """The F1 with the nearest accepted answer; right from ``threshold`` on. No words at all are wrong."""
    answer = read_answer(output).text
    given = words(answer)
    score = max((f1(given, words(text)) for text in question.accepted), default=0.0) if given else 0.0
    return Verdict(extracted_answer=answer, correct=score >= settings.threshold, score=score)


def words(text: str) -> Counter[str]:
    """The words of a text (Rajpurkar et al. 2016): small letters, no punctuation, no articles."""
    folded = _NO_WORD.sub("", unicodedata.normalize("NFKC", text).casefold())
    return Counter(word for word in folded.split() if word not in _ARTICLES)


KIND: Final = GraderKind(version=lambda _: VERSION, grade=grade)

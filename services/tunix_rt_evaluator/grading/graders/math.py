"""Mathematical equality: the answer is read as a whole, and computed exactly."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import metadata
from typing import Final, Literal

from tunix_rt_evaluator.grading.formulas.statements import read
from tunix_rt_evaluator.grading.formulas.tokens import MAX_CHARACTERS
from tunix_rt_evaluator.grading.formulas.tree import Listing, Mixed, Node, Ratio, Symbol, Unreadable, Words
from tunix_rt_evaluator.grading.model import CannotGrade, GraderSettings, Question, Sandbox, Verdict, grader
from tunix_rt_evaluator.grading.reading.answers import (
    Answer,
    around_box,
    is_taken_back,
    read_answer,
    said_again,
)
from tunix_rt_evaluator.grading.reading.spelling import SENTENCE_END
from tunix_rt_evaluator.grading.reading.statements import is_corrected

_VERSION: Final = f"math/3 mpmath={metadata.version('mpmath')} sympy={metadata.version('sympy')}"

_EMPHASIS: Final = re.compile(r"(\*\*|__|\*|`)(?=\S)(.+?)(?<=\S)\1")
_OPENING: Final = re.compile(
    r"""(?:
      (?:so|thus|therefore|hence|then|and|finally|clearly)\b,?\s*
    | (?:we\ (?:get|have|find|obtain|conclude\ that)|it\ follows\ that)\b\s*
    | (?:this\ (?:gives|is|equals)|it(?:\ is|'s|\ equals))\b\s*
    | the\ (?:(?:final|correct|exact|simplified)\ )?
      (?:answer|result|value|solution|sum|product|expression|set|interval|probability|total|point|area|volume
        |perimeter|length|distance|cost|price|domain|range|slope|remainder|average|mean|median|ratio|angle|root)s?
      (?:\ (?:of|to|for)\ [^,.;:]{1,60}?)?\ (?:is|are|equals?|=)\s*:?\s*
    | (?:equal(?:s|\ to)|exactly|is|are|=)\s*:?\s*
    )+""",
    re.VERBOSE | re.IGNORECASE,
)
_REASON: Final = re.compile(
    r"(?:,?\s+(?:because|since)\b|,\s+which\b(?!.*(?:\bnot\b|n['\u2019]t|\bwrong|\bincorrect))).*", re.DOTALL
)
_FUNCTIONS: Final = re.compile(
    r"\\(?:begin|end|mathbb|mathrm|text)\s*\{[A-Za-z]+\*?\}|\\[A-Za-z]+"
    r"|\b(?:sin|cos|tan|cot|sec|csc|log|ln|exp|sqrt|max|min|mod|gcd|lcm|pi|inf)\b"
)
# Words, but for those between equations.
_PROSE: Final = re.compile(r"[^\W\d_]{3,}|^[^=<>]*\b(?:or|and)\b[^=<>]*$")
_NO_MATHEMATICS: Final = re.compile(
    r"\d+(?:\s*[-:/.\u2013]\s*\d+)+|[^\W\d_]{2,}\s*[-/]\s*[^\W\d_]{2,}|[A-Z]+\s*[-/]\s*[A-Z]+"
)
_STRUCK_OUT: Final = "~~"
# A line that is nothing but a number.
_VALUE: Final = re.compile(r"[\s$*]*[-+\u2212]?[\d.,/]*\d[\s$*.]*")
_DISPLAY: Final = r"(?:\$\$(.+?)\$\$|\\\[(.+?)\\\])"
_BEGINS_DISPLAYED: Final = re.compile(rf"\s*{_DISPLAY}", re.DOTALL)
_ENDS_DISPLAYED: Final = re.compile(rf"{_DISPLAY}\s*\.?\s*\Z", re.DOTALL)


class MathGrader(GraderSettings):
    """Right when the answer is mathematically equal to an accepted one."""

    kind: Literal["math"] = "math"


def _unfit(_settings: MathGrader, accepted: str) -> str:
    try:
        read(accepted)
    except Unreadable as error:
        return f", which the math grader cannot read: {error}"
    return ""


@grader(MathGrader, 4, _VERSION, needs=("sandbox",), unfit=_unfit)
def grade(_settings: MathGrader, question: Question, output: str, sandbox: Sandbox) -> Verdict:
    """Right when the answer, read as a whole, equals an accepted one."""
    answer = read_answer(output)
    verdict = _of_answer(sandbox, question, answer)
    again = said_again(answer)
    if not verdict.correct or not again:
        return verdict
    # Behind the mark that counts a sentence says an answer once more, which must be as right.
    said = _of_answer(sandbox, question, Answer(again, labelled=True))
    if said.correct:
        return verdict
    why = f"behind it the answer is said to be {again[:40]!r}"
    return verdict.model_copy(update={"correct": False, "explanation": why})


def _of_answer(sandbox: Sandbox, question: Question, answer: Answer) -> Verdict:
    unmarked = not answer.labelled
    texts = dict.fromkeys(_readings(answer))
    readings = [text for text in texts if 0 < len(text) <= MAX_CHARACTERS and _STRUCK_OUT not in text]
    if readings and not unmarked and (why := _objection(answer)):
        return Verdict(extracted_answer="", correct=False, explanation=why)
    if not readings or (unmarked and question.cut):
        return Verdict(extracted_answer="", correct=False, unmarked=unmarked)
    try:
        copied = [text for text in readings if _is_copied(text, question.prompt)]
        reply = sandbox.run("math", accepted=list(question.accepted), answers=readings, copied=copied)
    except CannotGrade as error:
        raise CannotGrade(f"comparing {readings[0][:60]!r} with the accepted answers: {error}") from None
    return Verdict(
        extracted_answer=reply["read"] if unmarked else readings[0],
        correct=reply["correct"],
        explanation=reply["why"],
        unmarked=unmarked,
    )


def _objection(answer: Answer) -> str:
    """Why a marked answer does not count, given what stands around it; "" if it does."""
    if answer.alone and (why := around_box(answer)):
        return why
    if is_taken_back(answer) or (not answer.boxed and is_corrected(answer.text)):
        return "it is corrected behind it"
    lines = [line for line in answer.text.splitlines() if line.strip()]
    if not answer.boxed and any(map(_VALUE.fullmatch, lines[1:2])):
        return "another value stands behind it"
    return ""


def _readings(answer: Answer) -> Iterator[str]:
    """Texts that may be the whole answer, the longest first.

    A box is taken as it is. Else it is the first line behind a mark, or the last line of an unmarked text:
    all of it or one sentence, and either without what introduces or explains it.
    """
    if answer.boxed:
        yield answer.text
        return
    pattern, part = (
        (_BEGINS_DISPLAYED.match, slice(0, 1))
        if answer.labelled
        else (_ENDS_DISPLAYED.search, slice(-1, None))
    )
    near = answer.text[: 2 * MAX_CHARACTERS] if answer.labelled else answer.text[-2 * MAX_CHARACTERS :]
    lines = [line.strip() for line in near.split("\n") if line.strip()]
    for line in lines[part]:
        bare = _EMPHASIS.sub(r"\2", line).removesuffix("**").strip()
        sentences = [sentence.strip() for sentence in SENTENCE_END.split(bare) if sentence.strip()]
        for text in (line, bare, *sentences[part]):
            yield from _without_introduction(text)
    if displayed := pattern(near):
        yield displayed[1] or displayed[2]


def _without_introduction(text: str) -> Iterator[str]:
    for shorter in (text, _REASON.sub("", text)):
        yield shorter
        if opening := _OPENING.match(shorter):
            yield shorter[opening.end() :]


def _is_copied(text: str, prompt: str) -> bool:
    """Whether the question holds a text as well."""
    plain = [re.sub(r"[\s$]", "", each) for each in (text, prompt)]
    return plain[0].strip(".") in plain[1]


def is_mathematics(text: str) -> bool:
    """Whether this grader reads the text as a formula. Words, names, times and dates are none."""
    if _NO_MATHEMATICS.fullmatch(text.strip()) or _PROSE.search(_FUNCTIONS.sub(" ", text)):
        return False
    try:
        return _is_formula(read(text))
    except Unreadable:
        return False


def _is_formula(node: Node) -> bool:
    if isinstance(node, Listing):
        return all(map(_is_formula, node.items))
    return not isinstance(node, Words | Mixed | Ratio) and not (
        isinstance(node, Symbol) and node.name.isalpha()
    )

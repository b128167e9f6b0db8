r"""Reads the answer out of a model's text.

``Answer:`` is how our own datasets write it (``tunix_rt_kit.chat.messages``), ``####`` how GSM8K does,
``\boxed{}`` how MATH does, ``<answer>`` how R1 does, and "the answer is" how people do, in many languages.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, NamedTuple

from tunix_rt_evaluator.grading.reading.context import changes_beside, is_asserted, pattern, until_next
from tunix_rt_evaluator.grading.reading.spelling import CURRENCY, plain
from tunix_rt_evaluator.grading.reading.statements import Statement, is_corrected, read_statement
from tunix_rt_evaluator.grading.reading.words import ANSWER, CHANGE, COPULA, FINAL, IS, NUMBER_WORD

_LABEL: Final = re.compile(
    rf"""
    (?P<bold>\*\*|__)?
    (?: \b(?:Final\s+)?(?:Answer|ANSWER)
      | (?i:\bfinal\s+answer)
      | (?im:^[^\w\n]*(?:the\s+)?(?:(?:correct|right|best)\s+)?answer)
      | (?i:{ANSWER}{FINAL})
    )
    (?:(?P=bold))?\s*[:\uff1a](?:[ \t]*(?P=bold))?
    | \#{{4}}(?=(?:[^\w\n]|\\[a-z]+|minus|negative|\u8d1f|\u8ca0)*\d|[^\S\n]*\(?[A-Z]\)?[^\S\n]*$)
    | (?i:<(?P<tag>(?:final[_-]?)?answer)>)
    """,
    re.VERBOSE | re.MULTILINE,
)
_CLOSED: Final = re.compile(r"</(?:final[_-]?)?answer>", re.IGNORECASE)
_NEAR: Final = 200
_SAID: Final = re.compile(
    rf"""
    \banswer(?:\ (?:to|for)\ (?:the|this|that|your)\ \w+)?
      (?:\s+(?:is|was|would\s+be|should\s+be|must\s+be)\b|['\u2019]s\b|\s*[=\u2192])\s*:?(?:\s*that\b)?
    | {ANSWER}{FINAL}\s*{IS}\s*[:\uff1a]?
    """,
    re.VERBOSE | re.IGNORECASE,
)

_BOXED: Final = re.compile(r"\\(?:f?boxed|fbox)\s*\{")
# An escaped one is a brace of its own, as of a set, and closes nothing.
_BRACE: Final = re.compile(r"\\.|[{}]", re.DOTALL)
# Between boxes that are offered side by side, as in \boxed{1} or \boxed{2}.
_BESIDE: Final = re.compile(
    r"[\s$]*(?:[,;]|,?\s*(?:and|or|\\text\s*\{\s*(?:and|or)\s*\}))[\s$]*", re.IGNORECASE
)
_WORDS: Final = re.compile(r"\s*\\(?:text|textbf|mathrm)\s*\{([^{}]*)\}\s*")

_NEAR_BOX: Final = 400
_DELIMITER: Final = re.compile(
    r"\\\\(?:\[[^\[\]\n]*\])?|(?<!\\)\\[()\[\]]|(?<!\\)\$+|\n|\\(?:begin|end)\{[a-zA-Z*]+\}|[.?!](?=\s)"
)
_DOLLARS: Final = re.compile(r"(?<!\\)\$+")
_MATH_OPENED: Final = re.compile(
    r"(?<!\\)\\[(\[]|\\begin\{(?:align|equation|gather|multline|displaymath|math)"
)
_MATH_CLOSED: Final = re.compile(r"(?<!\\)\\[)\]]|\\end\{(?:align|equation|gather|multline|displaymath|math)")
_LAYOUT: Final = r"(?:\s|~|&|\\[,;:!>\ ]|\\q?quad(?![a-zA-Z])|\\displaystyle(?![a-zA-Z]))*"
_OPERATOR: Final = r"""
    \\(?:pm|mp|times|cdot|ast|div|neq?|leq?|leqslant|geq?|geqslant|lt|gt|not|surd|circ|degree|cup|cap|setminus|in
        |notin|bmod|pmod|mod|land|lor|[lr]?[vV]ert|[lr]floor|[lr]ceil|left|right|pi|infty|sqrt|[dtc]?frac
        |(?:arc)?(?:sin|cos|tan)h?|cot|sec|csc|ln|log|exp|max|min|gcd|det)(?![a-zA-Z])
  | \\%
  | [-+*/^_<>|%'\u00d7\u00f7\u00b1\u2213\u2212\u221a\u00b0\u2260\u2264\u2265\u00b7\u22c5\u222a\u2229\u2208]
  | \\(?:text|mbox|mathrm)\s*\{\s*(?:or|and|to)\s*\}
"""
_LETTER: Final = r"(?<![a-zA-Z\\])[a-zA-Z]"
_PART_BEFORE: Final = re.compile(
    rf"""(?: {_OPERATOR} | \d | {_LETTER} | [!)(\]\[] | \\\{{ | \\\}}
      | [\^_]\s*\{{ | \\(?:[dtc]?frac|[dt]?binom|sqrt(?:\[[^\[\]]*\])?)\s*(?:\{{[^{{}}]*\}}\s*)?\{{
      | (?<!\\)\}}
    ) {_LAYOUT} \Z""",
    re.VERBOSE,
)
_PART_BEHIND: Final = re.compile(
    rf"{_LAYOUT} (?: {_OPERATOR} | \d | [a-zA-Z](?![a-zA-Z]) | [!)(\]\[] | \\\}} | \}}\s*\{{ )", re.VERBOSE
)
# In a sentence only what touches a box, or a relation before it, can belong to it.
_TOUCHES_BEFORE: Final = re.compile(
    rf"(?<![-\w])[-+\u2212\u00b1\u221a]\Z | [\d)/^\u221a]\Z | {_LETTER}\Z"
    r"| \w\s*(?:[<>\u2260\u2264\u2265]|\\(?:neq?|leq?|geq?|lt|gt))\s*\Z",
    re.VERBOSE,
)
_TOUCHES_BEHIND: Final = re.compile(r"\\?%|\^|\\circ|\u00b0|[-+*/]?\d|[a-zA-Z](?![a-zA-Z])|!\^|[-+*/]\\")
_LAST_WORD: Final = re.compile(r"(?:\S+\s*(?:[<>\u2260\u2264\u2265]|\\[a-z]+)\s*|\S*)\Z")
_SAID_IN_WORDS: Final = re.compile(rf"\\(?:text[a-z]*|mbox|mathrm)\s*\{{([^{{}}]*)\}}{_LAYOUT}\Z", re.VERBOSE)
_FIRST_WORD: Final = re.compile(r"\S*")
_PART_WORDS: Final = re.compile(r"\s*(?:or|and|to|.*\bnot)\s*", re.DOTALL)
_TAG: Final = re.compile(r"</?[a-zA-Z][\w-]*>\s*\Z")
_BARE: Final = re.compile(r"[\w.,]+")
_DENIED_BEFORE: Final = re.compile(
    r"(?:\bnot|n['\u2019]t|\bnever|\bcannot)(?:\s+(?:be|equal|equals|to|the|answer|is|simply|just))*[\s:]*\Z",
    re.IGNORECASE,
)
_DENIED_BEHIND: Final = re.compile(
    r"""[\s$*\\)\]]* (?:is|was|would\ be|can(?:not)?\ be)? \s*
    (?: (?:not|n['\u2019]t) \s+ (?:the\ (?:\w+\ )?(?:answer|solution|result)|correct|right|possible|valid)\b
      | (?<=\s)(?:wrong|incorrect|false|impossible|invalid)\b )""",
    re.VERBOSE | re.IGNORECASE,
)

_MAX_LENGTH: Final = 2_000
# A phrase that marks an answer as well.
_PHRASE: Final = rf"""
    (?: \b(?:answer|(?:correct|right|true|actual|real|final|proper)\s+
        (?:value|result|total|number|amount|solution|one))
          (?:\s+(?:is|was|would\s+be|should\s+be|must\s+be)\b|['\u2019]s\b|\s*[=:\u2192])
      | (?:it|that|this)\s+(?:should|must|ought\s+to)\s+(?:be|have\s+been)\b
      | {ANSWER}{FINAL}\s*(?:{IS}|[:\uff1a]) )
    (?:\s+(?:in\s+fact|actually|really|instead|therefore|then|thus|about|exactly|just|simply))*
    """
_FORMULA_AGAIN: Final = pattern(
    rf"""
    {_PHRASE} [\s:*_]*
    (?= [-+\u2212]?\s*(?:[$\\\d(\[{{]|[a-z]\b) | (?!one\s+of|first|last|other|next){NUMBER_WORD}\b )
    """
)
_NUMBER_AGAIN: Final = pattern(
    rf"""
    {_PHRASE} [\s:*_$(]*(?:[a-z]\s*=\s*)?
    (?= [-+\u2212]?\s?[{CURRENCY}]?\.?\d | \\(?:d?frac|boxed|\$|[(\[])
      | (?!one\s+of|first|last|other|next){NUMBER_WORD}\b )
    """
)
_SIDE: Final = pattern(rf"{COPULA} | [=\u2248:;,&]")
_CHANGED: Final = pattern(CHANGE)
_CLAUSE: Final = re.compile(r"[.,;:!?]\s")
_BULLET: Final = re.compile(r"^\s*[-*+>]\s+[$\\(\[]*$")
# What is more than the unknown itself, as in 2x = \boxed{10}.
_MORE_THAN_UNKNOWN: Final = re.compile(
    r"(?:^|[\s$,:;])(?=[^=]*[-+*/^|\u221a\u00b2\u00b3\d\\])(?!\\[a-z]+\s*=)"
    r"(?:[-\d.+*/^|\u221a\u00b2\u00b3\u00d7(){}\s]|\\(?:sqrt|log|ln|sin|cos|tan)\b)*(?<![^\W\d_])[a-z](?![^\W\d_]|\()"
    r"[-\d.+*/^|\u00b2\u00b3\u00d7(){}\s]*=\s*$"
)
_SET: Final = re.compile(r"[\s$(]+$|\*\*\s*$|\\[(\[]\s*$|\\(?:text|mathbf|displaystyle)\s*\{?\s*$")
_BEHIND_BOX: Final = re.compile(r"^(?:\s*(?:\$+|\\[)\]]|\*\*|\}))+")


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer in a text; ``labelled`` says that a mark shows it, ``in_sentence`` that this is a phrase.

    ``text`` is empty if no answer followed the mark, if it was cut off, or if the sentence denies, doubts or
    only quotes it. ``rest`` is the text behind a box or a closing tag, ``before`` the text before a box or a
    phrase on its line. ``alone`` says that a box is the whole answer, and not a part of a formula.
    """

    text: str
    labelled: bool
    in_sentence: bool = False
    boxed: bool = False
    rest: str = ""
    before: str = ""
    alone: bool = True

    @property
    def first_line(self) -> str:
        """Its first line. Models go on after their answer; what follows is not part of it."""
        return self.text.partition("\n")[0].strip()


def read_answer(output: str) -> Answer:
    r"""The answer in a model's output.

    It follows the last ``Answer:`` or ``####``, or stands in ``<answer>`` or in the last box (or several side
    by side). Without such a mark it follows the last "the answer is", and without that it is the whole text.

    The last mark counts, even if the text ends before the answer does. If a box is part of a formula, such as
    ``-\boxed{5}``, the formula is the answer.
    """
    label = _last(_LABEL, output)
    if (box := last_boxed(output, label.end() if label else 0)) is not None:
        rest, before = output[box.end :], _near(output, box.begin)
        return Answer(box.text, labelled=True, boxed=True, rest=rest, before=before, alone=box.alone)
    if label is not None:
        text, rest = output[label.end() :], ""
        if label["tag"]:
            text, *behind = _CLOSED.split(text, maxsplit=1)
            rest = "".join(behind)
        return Answer(text.strip(), labelled=True, rest=rest)
    if (said := _last(_SAID, output)) is not None:
        before = _near(output, said.start())
        text = output[said.end() :].strip() if is_asserted(before) else ""
        return Answer(text, labelled=True, in_sentence=True, before=before + said[0])
    return Answer(output.strip(), labelled=False)


def _near(text: str, end: int) -> str:
    """What stands before ``end`` on its line."""
    return text[max(0, end - _NEAR) : end].rpartition("\n")[2]


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    for match in reversed(list(pattern.finditer(text))):
        if pattern is not _LABEL or match["tag"] or is_asserted(_near(text, match.start())):
            return match
    return None


class Box(NamedTuple):
    """The content of a box, or of several side by side, and where they begin and end in the text.

    ``alone`` says that nothing outside of the box belongs to its content.
    """

    text: str
    begin: int
    end: int
    alone: bool = True


def last_boxed(text: str, start: int) -> Box | None:
    r"""The last ``\boxed{...}`` from ``start`` on, with those beside it, or the formula that it is part of.

    Its text is "" if it is not closed, or denied. None if there is no box.
    """
    opened = list(_BOXED.finditer(text, start))
    if not opened:
        return None
    first = opened[-1]
    inside = _braced(text, first.end(), len(text))
    if inside is None or not inside.strip():
        return Box("", first.start(), len(text))
    end = first.end() + len(inside) + 1
    found = [inside]
    for before, box in reversed(list(pairwise(opened))):
        inside = _braced(text, before.end(), box.start())
        if inside is None or not _BESIDE.fullmatch(text, before.end() + len(inside) + 1, box.start()):
            break
        found.append(inside)
        first = before
    if len(found) == 1:
        said = _in_context(text, first, found[0])
        return Box(said, first.start(), end, alone=said == _words(found[0]))
    return Box(", ".join(_words(entry) for entry in reversed(dict.fromkeys(found))), first.start(), end)


def _in_context(text: str, box: re.Match[str], inside: str) -> str:
    """The content of a box, or the formula that it is part of; "" if it is denied."""
    end = box.end() + len(inside) + 1
    before, behind = text[max(0, box.start() - _NEAR_BOX) : box.start()], text[end : end + _NEAR_BOX]
    if _DENIED_BEFORE.search(before.rstrip("$ *\\([")) or _DENIED_BEHIND.match(behind):
        return ""
    delimiters = list(_DELIMITER.finditer(before))
    near = before[delimiters[-1].end() :] if delimiters else before
    closing = _DELIMITER.search(behind)
    rest = behind[: closing.start()] if closing else behind
    if not _in_formula(text, box.start()):
        return _touched(near, inside, rest)
    said = _SAID_IN_WORDS.search(near)
    if _PART_WORDS.fullmatch(said[1]) if said else _PART_BEFORE.search(near):
        return _joined(near, inside, rest)
    if _PART_BEHIND.match(rest):
        return _joined("" if said else near, inside, rest)
    # The formula may be a part, too, as in -$\\boxed{5}$.
    alone_before = delimiters and "$" in delimiters[-1][0] and not near.strip()
    alone_behind = closing and "$" in closing[0] and not rest.strip()
    return _touched(
        before[: delimiters[-1].start()] if alone_before else "",
        inside,
        behind[closing.end() :] if closing and alone_behind else "",
    )


def _touched(before: str, inside: str, behind: str) -> str:
    """What a box in a sentence holds, with what touches it where that belongs to it."""
    before = _TAG.sub("", before)
    if not _TOUCHES_BEFORE.search(before) and not _TOUCHES_BEHIND.match(behind):
        return _words(inside)
    word, touching = _LAST_WORD.search(before), _FIRST_WORD.match(behind)
    return _joined(word[0] if word else "", inside, touching[0] if touching else "")


def _in_formula(text: str, place: int) -> bool:
    """Whether mathematics are open at a place: by dollar signs in its line or before, or by brackets."""
    line = text[text.rfind("\n", 0, place) + 1 : place]
    if sum(len(run[0]) == 1 for run in _DOLLARS.finditer(line)) % 2:
        return True
    if sum(len(run[0]) > 1 for run in _DOLLARS.finditer(text, 0, place)) % 2:
        return True
    last = [
        max((each.start() for each in pattern.finditer(text, 0, place)), default=-1)
        for pattern in (_MATH_OPENED, _MATH_CLOSED)
    ]
    return last[0] > last[1]


def _joined(before: str, inside: str, behind: str) -> str:
    touches = re.search(r"[\w}]\Z", before) or re.match(r"[\w^!{(]", behind)
    held = inside if _BARE.fullmatch(inside) and not touches else f"{{{inside}}}"
    return f"{before.replace('&', ' ')}{held}{behind}".strip().rstrip(".,;:")


def _words(boxed: str) -> str:
    words = _WORDS.fullmatch(boxed)
    return (words[1] if words else boxed).strip()


def _braced(text: str, begin: int, end: int) -> str | None:
    depth = 1
    for brace in _BRACE.finditer(text, begin, end):
        depth += {"{": 1, "}": -1}.get(brace[0], 0)
        if not depth:
            return text[begin : brace.start()]
    return None


def read_marked(answer: Answer, units: Sequence[str]) -> Statement:
    """The numbers that a marked answer gives.

    The last mark counts, whatever it is: behind ``Answer: 18`` or a box, "The correct answer is 20" gives 20.
    An answer that is taken back gives none, nor does a box within something larger, as in ``-\\boxed{5}``.
    """
    if again := _again(answer, _NUMBER_AGAIN):
        return read_statement(again, units=units)
    if answer.in_sentence and (changed := _CHANGED.search(_CLAUSE.split(answer.before)[-1])):
        return Statement(answer.first_line, why=f"it is said of {changed[0].strip()!r} the answer")
    statement = read_statement(answer.text, units=units)
    if statement.why or not statement.numbers:
        return statement
    if why := around_box(answer):
        return Statement(statement.text, why=why)
    if is_taken_back(answer):
        return Statement(statement.text, why="it is taken back behind it")
    return statement


def said_again(answer: Answer) -> str:
    """The answer that a later phrase such as "the correct answer is" gives, from its number or formula on; ""
    if there is none."""
    return _again(answer, _FORMULA_AGAIN)


def is_taken_back(answer: Answer) -> bool:
    """Whether the text behind a box or a closing tag corrects the answer."""
    return bool(answer.rest) and is_corrected(f"It is so.\n{until_next(answer.rest)}")


def _again(answer: Answer, phrase: re.Pattern[str]) -> str:
    behind = until_next(f"{'' if answer.boxed else answer.text}\n{answer.rest}"[:_MAX_LENGTH])
    found = [each for each in phrase.finditer(behind) if _states(_near(behind, each.start()))]
    return behind[found[-1].end() :].strip() if found else ""


def _states(before: str) -> bool:
    """Whether a phrase that marks an answer states it, and nothing that is more than it."""
    return is_asserted(before) and not _CHANGED.search(_CLAUSE.split(before)[-1])


def around_box(answer: Answer) -> str:
    """Why a box does not count, given the text beside it; "" if it does, or if there is no box."""
    if not answer.boxed:
        return ""
    before, after = answer.before, _BEHIND_BOX.sub("", answer.rest[:_NEAR].partition("\n")[0])
    while (shorter := _SET.sub("", before)) != before:
        before = shorter
    # Read with the box already, as of -\boxed{5} and \boxed{50}\%.
    if answer.text.startswith("-"):
        before = before.rstrip().removesuffix("-")
    if answer.text.endswith("%"):
        after = after.lstrip().removeprefix("\\").removeprefix("%")
    side = "" if _BULLET.match(answer.before) else _SIDE.split(plain(before))[-1]
    if _MORE_THAN_UNKNOWN.search(before):
        return "what stands before it is more than an unknown"
    if not is_asserted(answer.before):
        return "what stands before it denies or doubts it"
    return changes_beside(side, plain(after))

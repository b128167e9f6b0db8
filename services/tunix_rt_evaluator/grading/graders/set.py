"""Several values in any order.

Braces, or none, hold values in any order. Parentheses hold them in order, as of a point, and so do square
brackets around two values, which may be an interval: neither is what a set is. Square brackets around others
are a list as programs print it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from typing import Final, Literal, TypeAlias

from tunix_rt_evaluator.grading.model import GraderSettings, Question, Verdict, grader
from tunix_rt_evaluator.grading.reading.answers import read_answer
from tunix_rt_evaluator.grading.reading.context import objection
from tunix_rt_evaluator.grading.reading.numbers import find_in_plain
from tunix_rt_evaluator.grading.reading.spelling import f1, normalise, plain

Entry: TypeAlias = Fraction | str | tuple["Entry", ...] | frozenset["Entry"]

# A comma between digits is one of thousands, unless a space follows it.
_BETWEEN: Final = re.compile(
    r"\s*(?:;|\n|,(?=\s)|,(?!\d{3}(?!\d))|(?<!\d),)\s*(?:(?:and|or)\s)?|\s+(?:and|or|&)\s+", re.IGNORECASE
)
_PAIRS: Final = ("{}", "[]", "()", "[)", "(]")
_BULLET: Final = re.compile(r"\s*(?:[-*\u2022]|\d{1,3}[.)])\s+(?=\S)")
_BOTH_SIGNS: Final = re.compile(r"(?:\u00b1|\\pm|\+/-)\s*")
_AROUND_OPERATOR: Final = re.compile(r"\s*([=<>\u2260\u2264\u2265])\s*")
_AROUND_NUMBER: Final = " \t\\"
_MAX_DEPTH: Final = 20
# Of two entries in square brackets, a text that is no end of an interval.
_LISTED: Final = re.compile(r"""["'].+["']|[^\W\d_]{2,}(?:[\s-]+[^\W\d_]+)*""")


class SetGrader(GraderSettings):
    """Right when the answer has the entries of an accepted one, in any order."""

    kind: Literal["set"] = "set"


def _unfit(_settings: SetGrader, accepted: str) -> str:
    inside = _without_dollars(accepted.replace("\\{", "{").replace("\\}", "}").strip())
    if _pair(inside) != "{}" and _pair(inside) and len(_parts(inside[1:-1])) > 1:
        return (
            ", whose brackets give its values an order, as those of a tuple or an interval; for the set "
            "grader, values between commas or in braces would be right, and math compares tuples and "
            "intervals"
        )
    return (
        "" if any(re.search(r"\w", str(entry)) for entry in entries(accepted)) else ", which holds no entry"
    )


@grader(SetGrader, 3, "set/2", unfit=_unfit)
def grade(_settings: SetGrader, question: Question, output: str) -> Verdict:
    """Right when the answer has exactly the entries of an accepted one.

    Its whole text is read, and its first line alone if what follows adds no entry and takes nothing back.
    """
    answer = read_answer(output)
    wanted = [entries(text) for text in question.accepted]
    best, shown, why = 0.0, answer.first_line, ""
    for text in dict.fromkeys((answer.text, answer.first_line)):
        given = entries(text)
        score = max((f1(given, each) for each in wanted), default=0.0)
        if not given or score <= best:
            continue
        why = objection(answer.text.removeprefix(text) + answer.rest)
        best, shown = 0.0 if why else score, text
    return Verdict(extracted_answer=shown, correct=best == 1.0, score=best, explanation=why)


def entries(text: str) -> Counter[Entry]:
    """The distinct entries of a text: numbers, pairs and sets where they are such, else normalised texts."""
    inside = _without_bullets(text.replace("\\{", "{").replace("\\}", "}")).strip()
    inside = _without_dollars(re.sub(r"(?<!\.)\.$", "", inside)).strip()
    inside = re.sub(r"(?<!\.)\.$", "", inside)
    if _pair(inside) and not _ordered(inside):
        inside = inside[1:-1]
    return Counter({value for part in _parts(inside) for value in _values(part)})


def _ordered(text: str) -> bool:
    """Whether the brackets around the whole are those of a point, a tuple or an interval."""
    parts = _parts(text[1:-1])
    if _pair(text) == "{}" or len(parts) < 2:
        return False
    return _pair(text) != "[]" or (
        len(parts) == 2 and not all(_LISTED.fullmatch(part.strip()) for part in parts)
    )


def _without_dollars(text: str) -> str:
    """Without the signs around a formula; a single one is a currency's."""
    return text.strip("$") if len(text) > 1 and text[0] == text[-1] == "$" else text


def _without_bullets(text: str) -> str:
    lines = [line for line in text.split("\n") if line.strip()]
    if len(lines) > 1 and all(_BULLET.match(line) for line in lines):
        return "\n".join(_BULLET.sub("", line, count=1) for line in lines)
    return text


def _parts(text: str) -> list[str]:
    """The text split at what separates entries, brackets in it kept whole."""
    parts, begin, depths = [], 0, _depths(text)
    for between in _BETWEEN.finditer(text):
        if depths[between.start()] == 0:
            parts.append(text[begin : between.start()])
            begin = between.end()
    return [part for part in (*parts, text[begin:]) if part.strip()]


def _depths(text: str) -> list[int]:
    """How many brackets stand open before each character."""
    depths, depth = [], 0
    for character in text:
        depth -= character in "})]"
        depths.append(max(depth, 0))
        depth = max(depth, 0) + (character in "{([")
    return depths


def _pair(text: str) -> str:
    """The brackets that enclose the whole, such as "()" or "[)"; "" where there are none."""
    pair = text[:1] + text[-1:]
    return pair if pair in _PAIRS and all(depth > 0 for depth in _depths(text)[1:-1]) else ""


def _values(part: str, depth: int = 0) -> Iterator[Entry]:
    """The values of an entry: two if it has both signs, as in ``±3``."""
    part = _without_dollars(part.strip()).strip()
    if sign := _BOTH_SIGNS.match(part):
        value = _number(part[sign.end() :])
        if isinstance(value, Fraction):
            yield from (value, -value)
            return
    yield _value(part, depth)


def _value(part: str, depth: int) -> Entry:
    if (pair := _pair(part)) and depth < _MAX_DEPTH:
        inner = [value for each in _parts(part[1:-1]) for value in _values(each, depth + 1)]
        return frozenset(inner) if pair == "{}" else (pair, *inner)
    number = _number(part)
    if number is not None:
        return number
    # What ends in a question mark states nothing.
    return normalise(_AROUND_OPERATOR.sub(r"\1", part)) + "?" * part.endswith(("?", "\uff1f"))


def _number(part: str) -> Entry | None:
    """The number that the whole of ``part`` is, with its currency where it has one."""
    text = plain(part).strip(_AROUND_NUMBER)
    numbers = find_in_plain(text)
    if len(numbers) != 1 or numbers[0].text != text:
        return None
    value = numbers[0].value * numbers[0].factor
    return (numbers[0].currency, value) if numbers[0].currency else value

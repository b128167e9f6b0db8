"""Grades an answer: reads it out of a model's text and compares it with the accepted ones. Pure functions.

A grader's version is part of an evaluation's identity: it is raised whenever a verdict could change.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from tunix_rt_evaluator.model import Grader, NumericGrader, Verdict
from tunix_rt_kit.chat import extract_answer

VERSIONS: Final = {"numeric": "numeric/1", "text": "text/1"}
"""Grader and version by kind."""

_SPACES = "\u00a0\u2009\u202f"
_MINUSES = str.maketrans({"\u2212": "-", "\u2013": "-", "\u2012": "-", "\ufe63": "-", "\uff0d": "-"})
_VULGAR = re.compile(r"(\d?)([\u00bc-\u00be\u2150-\u215e\u2189])")
_LATEX_FRACTION = re.compile(r"(\d?)\\[dt]?frac\s*\{\s*(\d+)\s*\}\s*\{\s*(\d+)\s*\}")
_CURRENCY = "$\u20ac\u00a3\u00a5\u20b9"

_DIGITS = rf"(?:\d{{1,3}}(?:[,{_SPACES}]\d{{3}})+(?!,?\d)|\d+)"
_NUMBER = re.compile(
    rf"""
    (?<![\w.^])                       # not inside a word, a version or an exponent
    (?P<sign>[-+](?=[{_CURRENCY}]?\.?\d))?
    [{_CURRENCY}]?
    (?P<inner>(?<=[{_CURRENCY}])[-+])?
    (?:
      (?P<whole>\d+)\s+(?P<top2>\d+)\s*/\s*(?P<bottom2>\d+)(?![\d/])
      |
      (?P<top>{_DIGITS})\s*/\s*(?P<bottom>{_DIGITS})(?![\d/]|\.\d)
      |
      (?P<decimal>{_DIGITS}(?:\.\d+)?|\.\d+)
      (?:[eE](?P<exponent>[-+]?\d{{1,3}})(?![\w.])|\s*[x\u00d7*]\s*10\s*\^\s*\{{?(?P<power>[-+]?\d{{1,3}})\}}?)?
    )
    (?P<percent>\s*(?:\\?%|percent\b|per\ cent\b))?
    """,
    re.VERBOSE,
)
_ARTICLE = re.compile(r"(?:a|an|the)\s+(?=\S)")
_MAX_DIGITS: Final = 400
_QUOTES = str.maketrans({"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "`": "'"})


@dataclass(frozen=True, slots=True)
class Number:
    """A number as it was read: its text, its value, and whether a percent sign came with it.

    With a percent sign ``value`` is the number before the sign.
    """

    text: str
    value: Fraction
    percent: bool = False

    def equals(self, other: Number, tolerance: Fraction) -> bool:
        """Whether both mean the same within ``tolerance``.

        50% is 0.5, and also 50, since a question may ask for a percentage; but 50% is never 0.5%.
        """
        if self.percent == other.percent:
            return abs(self.value - other.value) <= tolerance
        percent, plain = (self, other) if self.percent else (other, self)
        readings = (percent.value, percent.value / 100)
        return any(abs(reading - plain.value) <= tolerance for reading in readings)


def grade(grader: Grader, accepted: Sequence[str], output: str) -> Verdict:
    """Grade a model's whole text against the accepted answers."""
    if isinstance(grader, NumericGrader):
        # By its decimal digits: the float 0.3 is a little less than 0.3.
        return _grade_number(accepted, output, Fraction(repr(grader.tolerance)))
    return _grade_text(accepted, output)


def read_number(text: str) -> Number | None:
    """The number that ``text`` is, sign, currency and unit allowed; None unless there is exactly one."""
    numbers = find_numbers(text)
    return numbers[0] if len(numbers) == 1 else None


def find_numbers(text: str) -> list[Number]:
    """Every number in ``text``, from left to right.

    Reads thousands separators (comma and the typographic spaces), decimals, fractions (``3/4``, ``2 1/2``,
    one half as a sign, LaTeX), powers of ten, percent and a currency sign. A digit that belongs to a word or
    to a unit such as m^2 is no number.
    """
    found = []
    for match in _NUMBER.finditer(_plain(text)):
        value = _value(match)
        if value is not None:
            found.append(Number(match.group().strip(), value, match["percent"] is not None))
    return found


def normalise(text: str) -> str:
    """``text`` for comparison: NFKC, case folded, single spaces, no outer punctuation, no first article."""
    folded = unicodedata.normalize("NFKC", text).translate(_QUOTES).casefold()
    words = _strip_punctuation(" ".join(folded.split()))
    return _strip_punctuation(_ARTICLE.sub("", words, count=1) if _ARTICLE.match(words) else words)


def _grade_number(accepted: Sequence[str], output: str, tolerance: Fraction) -> Verdict:
    answer = _read_answer(output)
    if answer is None:
        return Verdict(extracted_answer="", correct=False)
    wanted = [number for text in accepted if (number := read_number(text)) is not None]
    correct = any(answer.equals(number, tolerance) for number in wanted)
    return Verdict(extracted_answer=answer.text, correct=correct)


def _read_answer(output: str) -> Number | None:
    """The last number of the answer's first line that has one; without an answer label, of the whole text."""
    answer = extract_answer(output)
    lines = answer.splitlines() if answer != output.strip() else [answer]
    for line in lines:
        if numbers := find_numbers(line):
            return numbers[-1]
    return None


def _grade_text(accepted: Sequence[str], output: str) -> Verdict:
    answer = extract_answer(output)
    wanted = {normalise(text) for text in accepted}
    # A model may go on after its answer; what follows on other lines is not part of it.
    first_line = answer.partition("\n")[0].strip()
    for candidate in (answer, first_line):
        if candidate and normalise(candidate) in wanted:
            return Verdict(extracted_answer=candidate, correct=True)
    return Verdict(extracted_answer=first_line, correct=False)


def _plain(text: str) -> str:
    """``text`` with fractions and minus signs in their plain spelling."""
    text = _LATEX_FRACTION.sub(lambda match: _joined(match[1], f"{match[2]}/{match[3]}"), text)
    text = _VULGAR.sub(lambda match: _joined(match[1], unicodedata.normalize("NFKC", match[2])), text)
    return text.translate(_MINUSES)


def _joined(whole: str, fraction: str) -> str:
    return f"{whole} {fraction}".lstrip().replace("\u2044", "/")


def _value(match: re.Match[str]) -> Fraction | None:
    if len(match.group()) > _MAX_DIGITS:
        return None
    if match["whole"] is not None:
        bottom = int(match["bottom2"])
        value = int(match["whole"]) + Fraction(int(match["top2"]), bottom) if bottom else None
    elif match["top"] is not None:
        bottom = _integer(match["bottom"])
        value = Fraction(_integer(match["top"]), bottom) if bottom else None
    else:
        digits = re.sub(rf"[,{_SPACES}]", "", match["decimal"])
        value = Fraction(digits) * Fraction(10) ** int(match["exponent"] or match["power"] or 0)
    negative = "-" in (match["sign"] or "") + (match["inner"] or "")
    return -value if negative and value is not None else value


def _integer(digits: str) -> int:
    return int(re.sub(rf"[,{_SPACES}]", "", digits))


def _strip_punctuation(text: str) -> str:
    start, end = 0, len(text)
    while start < end and _outer(text[start]):
        start += 1
    while end > start and _outer(text[end - 1]):
        end -= 1
    return text[start:end] or text


def _outer(character: str) -> bool:
    return character.isspace() or unicodedata.category(character).startswith("P") or character == "$"

r"""Reads numbers out of a text, exactly, as fractions.

Reads thousands separators (comma, typographic spaces, apostrophe, underscore, ``1.234.567``, ``1.234,56``,
``1,00,000``, LaTeX's ``{,}``), decimals, fractions and mixed numbers (``3/4``, ``2 1/2``, one half as a sign,
LaTeX's), powers of ten, words such as million, percent and a currency sign. A digit that belongs to a word or
to a unit such as m^2 is no number.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

CURRENCY: Final = "$\u20ac\u00a3\u00a5\u20b9"
_SPACES: Final = "\u00a0\u2009\u202f"
_SEPARATORS: Final = rf"[,'\u2019_{_SPACES}]"
_MINUSES: Final = str.maketrans(
    {"\u2212": "-", "\u2013": "-", "\u2012": "-", "\ufe63": "-", "\uff0d": "-", "\u2044": "/"}
)
_VULGAR: Final = re.compile(r"(\d?)([\u00bc-\u00be\u2150-\u215e\u2189])")
_SUPERSCRIPTS: Final = "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079"
_SUPERSCRIPT_POWER: Final = re.compile(rf"(?<=10)([\u207b\u207a]?)([{_SUPERSCRIPTS}]+)")
_LATEX_FRACTION: Final = re.compile(
    r"(\d?)\\[dt]?frac\s*(?:\{\s*(-?\d+)\s*\}\s*\{\s*(\d+)\s*\}|(\d)\s*(\d)(?!\d))"
)
_LATEX_TEXT: Final = re.compile(r"\\(?:text|mathrm|mbox|textbf)\s*\{([^{}]*)\}")
_LATEX: Final = (
    ("{,}", ","),
    (r"\,", "\u2009"),
    (r"\!", ""),
    (r"\$", "$"),
    (r"\times", "\u00d7"),
    (r"\cdot", "\u00d7"),
)
# A space separates thousands only where nothing else in the text is a number.
_SPACED: Final = re.compile(r"(?<![\d.,])\d{1,3}(?: \d{3})+(?!\d)")
_SAID_NEGATIVE: Final = re.compile(rf"(?i)\bnegative\s+(?=[{CURRENCY}]?\d)|^\W*minus\s+(?=[{CURRENCY}]?\d)")

_DIGITS: Final = rf"""(?:
    \d{{1,3}}(?:{_SEPARATORS}\d{{3}})+(?!,?\d)     # 1,234,567
  | \d{{1,2}}(?:,\d{{2}})+,\d{{3}}(?!,?\d)          # 12,34,567
  | \d+
)"""
_NUMBER: Final = re.compile(
    rf"""
    (?<![\w.^])                       # not inside a word, a version or an exponent
    (?P<sign>[-+](?=[{CURRENCY}]?\.?\d))?
    (?P<currency>[{CURRENCY}])?
    (?P<inner>(?<=[{CURRENCY}])[-+])?
    (?:
      (?P<whole>\d+)\s+(?P<top2>\d+)\s*/\s*(?P<bottom2>\d+)(?![\d/])
      |
      (?P<top>{_DIGITS})\s*/\s*(?P<bottom>-?{_DIGITS})(?![\d/]|\.\d)
      |
      (?P<dotted>\d{{1,3}}(?:\.\d{{3}}){{2,}}(?:,\d+)?|\d{{1,3}}(?:\.\d{{3}})+,\d{{1,2}})(?![.,]?\d)
      |
      10\s*(?:\^|\*\*)\s*\{{?(?P<power_of_ten>[-+]?\d{{1,3}})\}}?
      |
      (?P<decimal>{_DIGITS}(?:\.\d+)?|\.\d+)
      (?:[eE](?P<exponent>[-+]?\d{{1,3}})(?![\w.])|\s*[xX\u00d7*]\s*10\s*(?:\^|\*\*)\s*\{{?(?P<power>[-+]?\d{{1,3}})\}}?)?
    )
    (?P<factor>\s*(?:\\?%|(?i:percent\b|per\ cent\b))|\s+(?i:hundred|thousand|million|billion|trillion)\b)?
    """,
    re.VERBOSE,
)
_FACTORS: Final = {
    "hundred": 10**2,
    "thousand": 10**3,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
}
_MAX_DIGITS: Final = 400
_AFTER: Final = 64


@dataclass(frozen=True, slots=True)
class Number:
    """A number as it was read.

    ``value`` is what stands before a percent sign or a word such as million, ``factor`` what that means (1
    without one); ``currency`` is a sign before it, ``after`` what follows, up to the end of the line and at
    most 64 characters; ``start`` and ``end`` tell where it stands in the plain text (see ``plain``).
    """

    text: str
    value: Fraction
    factor: Fraction = Fraction(1)
    currency: str = ""
    after: str = ""
    start: int = 0
    end: int = 0

    def equals(self, accepted: Number, tolerance: Fraction, relative: Fraction = Fraction(0)) -> bool:
        """Whether both mean the same within ``tolerance``, or ``relative`` times the accepted number.

        50% is 0.5, and also 50, since a question may ask for a percentage; but 50% is never 0.5%. So with
        millions.
        """
        if self.factor == accepted.factor:
            pairs = [(self.value, accepted.value)]
        elif 1 not in (self.factor, accepted.factor):
            pairs = [(self.value * self.factor, accepted.value * accepted.factor)]
        else:
            pairs = [
                (mine, theirs)
                for mine in (self.value, self.value * self.factor)
                for theirs in (accepted.value, accepted.value * accepted.factor)
            ]
        return any(abs(mine - theirs) <= max(tolerance, relative * abs(theirs)) for mine, theirs in pairs)


def read_number(text: str) -> Number | None:
    """The number that ``text`` is, sign, currency and unit allowed; None unless there is exactly one."""
    numbers = find_numbers(text)
    return numbers[0] if len(numbers) == 1 else None


def find_numbers(text: str) -> list[Number]:
    """Every number in ``text``, from left to right."""
    return find_in_plain(plain(text))


def find_in_plain(text: str) -> list[Number]:
    """Every number in a text that went through ``plain``."""
    found = []
    for match in _NUMBER.finditer(text):
        value = _value(match)
        if value is not None:
            found.append(
                Number(
                    text=match.group().strip(),
                    value=value,
                    factor=_factor(match["factor"]),
                    currency=match["currency"] or "",
                    after=text[match.end() : match.end() + _AFTER].partition("\n")[0],
                    start=match.start(),
                    end=match.end(),
                )
            )
    return found


def plain(text: str) -> str:
    """``text`` with fractions, powers, signs and thousands in their plain spelling."""
    text = text.translate(_MINUSES)
    if "\\" in text or "{,}" in text:
        text = _LATEX_TEXT.sub(r" \1", text)
        text = _LATEX_FRACTION.sub(lambda m: _joined(m[1], f"{m[2] or m[4]}/{m[3] or m[5]}"), text)
        for latex, spelled in _LATEX:
            text = text.replace(latex, spelled)
    text = _VULGAR.sub(lambda m: _joined(m[1], unicodedata.normalize("NFKC", m[2])), text)
    text = _SUPERSCRIPT_POWER.sub(_power, text)
    text = _SAID_NEGATIVE.sub("-", text)
    spaced = _SPACED.search(text)
    if (
        spaced
        and not _has_digit(text[: spaced.start()])
        and not _has_digit(text[spaced.end() :].lstrip(".,0123456789"))
    ):
        text = text[: spaced.start()] + spaced.group().replace(" ", "\u2009") + text[spaced.end() :]
    return text


def _has_digit(text: str) -> bool:
    return any(character.isdigit() for character in text)


def _power(match: re.Match[str]) -> str:
    sign = "-" if match[1] == "\u207b" else ""
    return f"^{sign}{''.join(str(_SUPERSCRIPTS.index(digit)) for digit in match[2])}"


def _joined(whole: str, fraction: str) -> str:
    return f"{whole} {fraction}".lstrip().replace("\u2044", "/")


def _value(match: re.Match[str]) -> Fraction | None:
    if len(match.group()) > _MAX_DIGITS:
        return None
    value = _unsigned(match)
    negative = "-" in (match["sign"] or "") + (match["inner"] or "")
    return -value if negative and value is not None else value


def _unsigned(match: re.Match[str]) -> Fraction | None:
    if match["whole"] is not None:
        bottom = int(match["bottom2"])
        return int(match["whole"]) + Fraction(int(match["top2"]), bottom) if bottom else None
    if match["top"] is not None:
        bottom = _integer(match["bottom"])
        return Fraction(_integer(match["top"]), bottom) if bottom else None
    if match["dotted"] is not None:
        return Fraction(match["dotted"].replace(".", "").replace(",", "."))
    if match["power_of_ten"] is not None:
        return Fraction(10) ** int(match["power_of_ten"])
    digits = re.sub(_SEPARATORS, "", match["decimal"])
    return Fraction(digits) * Fraction(10) ** int(match["exponent"] or match["power"] or 0)


def _integer(digits: str) -> int:
    return int(re.sub(_SEPARATORS, "", digits))


def _factor(written: str | None) -> Fraction:
    if written is None:
        return Fraction(1)
    return Fraction(_FACTORS.get(written.strip().lower(), Fraction(1, 100)))

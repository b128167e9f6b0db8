"""Reads numbers exactly, as fractions. (``statements`` judges the text around them.)

Reads thousands separators (comma, typographic spaces, apostrophe, underscore, ``1.234.567``, ``1.234,56``,
``1,00,000``, LaTeX's ``{,}``), decimals, fractions and mixed numbers (``3/4``, ``2 1/2``, one half as a sign,
LaTeX's), powers of ten, words such as million, ``5k``, percent and a currency sign, in the digits of any
script. A digit that belongs to a word or to a unit such as m^2 is no number.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from tunix_rt_evaluator.grading.reading.spelling import CURRENCY, LETTER, SPACES, plain
from tunix_rt_evaluator.grading.reading.words import PERCENT, SCALES

_SEPARATORS: Final = rf"[,'\u2019_{SPACES}]"
_DIGITS: Final = rf"""(?:
    \d{{1,3}}(?:{_SEPARATORS}\d{{3}})+(?!,?\d)     # 1,234,567
  | \d{{1,2}}(?:,\d{{2}})+,\d{{3}}(?!,?\d)          # 12,34,567
  | \d+
)"""
_POWER: Final = r"10\s*(?:\^|\*\*)\s*(?:\{{\s*(?P<{0}>[-+]?\d{{1,3}})\s*\}}|(?P<bare_{0}>[-+]?\d{{1,3}}))"
_SCALE: Final = "|".join(words for _, words in sorted(SCALES.items(), reverse=True))
_SCALE_WORD: Final = re.compile(_SCALE, re.VERBOSE | re.IGNORECASE)
_LETTERS: Final = {"k": 10**3, "m": 10**6, "b": 10**9, "t": 10**12}
_NUMBER: Final = re.compile(
    rf"""
    (?<!{LETTER})(?<![.^])(?<![\^_]\{{)(?<!\^-)(?<!\^\{{-)  # not inside a word, a version or an exponent
    (?P<sign>[-+](?=[{CURRENCY}]?\.?\d))?
    (?P<currency>[{CURRENCY}])?
    (?P<inner>(?<=[{CURRENCY}])[-+])?
    (?:
      (?P<whole>\d+)\s+(?P<top2>\d+)\s*/\s*(?P<bottom2>\d+)(?![\d/])
      |
      (?P<top>{_DIGITS})\s*/\s*(?P<bottom>-?{_DIGITS})(?![\d/]|\.\d)
      |
      (?P<dotted>\d{{1,3}}(?:\.\d{{3}}){{2,}}(?:,\d+)?|\d{{1,3}}(?:\.\d{{3}})+,\d{{1,2}}
        |\d{{1,3}}(?:[{SPACES}]\d{{3}})+,\d+)(?![.,]?\d)
      |
      {_POWER.format("power_of_ten")}
      |
      (?<!\d,)(?P<comma>0,\d+|[1-9]\d*,(?:\d{{1,2}}|\d{{4,}}))(?![.,]?\d)
      |
      (?P<decimal>{_DIGITS}(?:\.\d+)?|\.\d+)
      (?:[eE](?P<exponent>[-+]?\d{{1,3}})(?![\w.])|\s*[xX\u00d7*]\s*{_POWER.format("power")})?
    )
    (?P<scale>
        \s*(?:\\?%|\u2030|(?i:{PERCENT})(?!{LETTER}))
      | [^\S\n]*-?(?i:(?:{_SCALE})(?!{LETTER})(?:[^\S\n]*(?:{_SCALE})(?!{LETTER}))?)
      | (?:[kKMBT]|(?(currency)[mb]|(?!)))(?!{LETTER})
    )?
    """,
    re.VERBOSE,
)
_MAX_DIGITS: Final = 400
_AFTER: Final = 64
_PERCENT: Final = Fraction(1, 100)


@dataclass(frozen=True, slots=True)
class Number:
    """A number as it was read.

    ``scale`` is a percent sign or a word such as million, ``factor`` its meaning (1 without one), and
    ``value`` the number before it. ``currency`` is a sign before the number, ``after`` the text behind it, up
    to the end of the line and at most 64 characters. ``start`` and ``end`` are its place in the plain text
    (see ``spelling.plain``). ``ratio`` holds the two numbers of a fraction. ``comma`` says that a lone comma
    was taken for a decimal one, though it may separate two numbers.
    """

    text: str
    value: Fraction
    factor: Fraction = Fraction(1)
    scale: str = ""
    currency: str = ""
    after: str = ""
    start: int = 0
    end: int = 0
    ratio: tuple[int, int] | None = None
    comma: bool = False

    @property
    def meant(self) -> Fraction:
        """The value with percent and words such as million applied."""
        return self.value * self.factor

    @property
    def is_percent(self) -> bool:
        """Whether it is a percentage."""
        return self.factor == _PERCENT

    def equals(self, accepted: Number, tolerance: Fraction, relative: Fraction = Fraction(0)) -> bool:
        """Whether both are the same within ``tolerance``, or within ``relative`` times the accepted number.

        50% equals 0.5, and also 50, since a question may ask for a percentage. But 0.5% does not equal 0.5,
        which is rather a share than a percentage.
        """
        if self.is_percent and accepted.is_percent:
            pairs = [(self.value, accepted.value)]
        else:
            pairs = [(self.meant, accepted.meant)]
            if (self.is_percent or accepted.is_percent) and abs(accepted.value) > 1 < abs(self.value):
                pairs.append((self.value, accepted.value))
        return any(abs(mine - theirs) <= max(tolerance, relative * abs(theirs)) for mine, theirs in pairs)


def find_numbers(text: str) -> list[Number]:
    """Every number in ``text``, from left to right, whatever stands around it."""
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
                    factor=_factor(match["scale"]),
                    scale=(match["scale"] or "").strip(" -"),
                    currency=match["currency"] or "",
                    after=text[match.end() : match.end() + _AFTER].partition("\n")[0],
                    start=match.start(),
                    end=match.end(),
                    ratio=_ratio(match),
                    comma=match["comma"] is not None,
                )
            )
    return found


def _value(match: re.Match[str]) -> Fraction | None:
    if len(match.group()) > _MAX_DIGITS:
        return None
    value = _unsigned(match)
    negative = "-" in (match["sign"] or "") + (match["inner"] or "")
    return -value if negative and value is not None else value


def _unsigned(match: re.Match[str]) -> Fraction | None:
    if match["whole"] is not None:
        top, bottom = int(match["top2"]), int(match["bottom2"])
        return int(match["whole"]) + Fraction(top, bottom) if top < bottom else None
    if match["top"] is not None:
        top, bottom = _integer(match["top"]), _integer(match["bottom"])
        # 05/01 is a date.
        padded = (match["top"].startswith("0") and top) or match["bottom"].lstrip("-").startswith("0")
        return None if padded else Fraction(top, bottom)
    if match["dotted"] is not None:
        digits = re.sub(rf"[.{SPACES}]", "", match["dotted"])
        return Fraction(digits.replace(",", "."))
    if match["comma"] is not None:
        return Fraction(match["comma"].replace(",", "."))
    power = match["power_of_ten"] or match["bare_power_of_ten"]
    if power is not None:
        return Fraction(10) ** int(power)
    digits = re.sub(_SEPARATORS, "", match["decimal"])
    return Fraction(digits) * Fraction(10) ** int(
        match["exponent"] or match["power"] or match["bare_power"] or 0
    )


def _ratio(match: re.Match[str]) -> tuple[int, int] | None:
    return None if match["top"] is None else (_integer(match["top"]), _integer(match["bottom"]))


def _integer(digits: str) -> int:
    return int(re.sub(_SEPARATORS, "", digits))


def _factor(scale: str | None) -> Fraction:
    if scale is None:
        return Fraction(1)
    words = scale.strip(" -\u00a0\u2009\u202f")
    if words in ("%", r"\%") or re.fullmatch(PERCENT, words, re.VERBOSE | re.IGNORECASE):
        return _PERCENT
    if words == "\u2030":
        return Fraction(1, 1000)
    if len(words) == 1 and words.lower() in _LETTERS:
        return Fraction(_LETTERS[words.lower()])
    factor = Fraction(1)
    for word in _SCALE_WORD.findall(words):
        factor *= next(by for by, one in SCALES.items() if re.fullmatch(one, word, _SCALE_WORD.flags))
    return factor

r"""Reads one number that is written in digits, exactly.

Thousands may be grouped by commas or spaces, LaTeX's included; a decimal point, a period that repeats
(``0.1\overline{6}``), a power of ten (``1.5e3``) and a base (``101_2``) may follow.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Final

from tunix_rt_evaluator.grading.formulas.tree import Unreadable

MAX_DIGITS: Final = 4_000
_MAX_EXPONENT: Final = 4_000
_GROUPED: Final = re.compile(
    r"[1-9]\d{0,2}(?P<comma>,|\{,\}|,\\!|\\,|\\;|\\:|\\ |~|[ \u00a0\u2009\u202f])"
    r"\d{3}(?:(?P=comma)\d{3})*(?!\d)(?!(?P=comma)\d)"
)
_PLAIN: Final = re.compile(r"\d+")
_DECIMALS: Final = re.compile(r"\.(\d+)")
_REPEATING: Final = re.compile(r"\.(\d*)\\(?:overline|bar|dot)\s*(?:\{(\d+)\}|(\d))")
_GOES_ON: Final = re.compile(r"\.(\d{3,60})\s*(?:\.{3}|\u2026|\\[lc]?dots(?:[bc](?![a-z]))?)(?!\s*\d)")
# As many periods as leave no doubt of what goes on.
_PERIODS: Final = re.compile(r"(\d*?)(?:(\d{1,2}?)\2{2,}|(\d{3,}?)\3+)")
_POWER_OF_TEN: Final = re.compile(r"(?:[eE]\d|E[-+]\d)\d*(?![\w.])")
_POWER_BEHIND_DECIMALS: Final = re.compile(r"[eE][-+]?\d+(?![\w.])")
_IN_BASE: Final = re.compile(
    r"(\d+|\d[0-9A-F]*(?=\s*_\s*\{?\s*1[1-6]))\s*_\s*(?:\{\s*(\d{1,2})\s*\}|(\d{1,2}))(?!\d)"
)
_BASES: Final = range(2, 37)
_DIVIDED: Final = re.compile(r"\s*/")
_ZEROS: Final = re.compile(r"\d,0\d\d(?!\d)")
_SEPARATOR: Final = re.compile(r"\d,")
_GROUP_OF_ZERO: Final = re.compile(r",0")


def read_numeral(text: str, at: int, *, in_brackets: bool) -> tuple[Fraction, int]:
    """The number that begins at ``at``, where a digit or a point stands, and where it ends.

    ``in_brackets`` says that a comma separates values there, unless what follows it can be none, as in 1,000.
    """
    if base := _IN_BASE.match(text, at):
        return _in_base(base), base.end()
    grouped = _GROUPED.match(text, at)
    if grouped and grouped["comma"] == ",":
        in_list = in_brackets and not _GROUP_OF_ZERO.search(grouped[0])
        if in_list or _SEPARATOR.match(text, max(0, at - 2), at):
            grouped = None
    if grouped is None and _ZEROS.match(text, max(0, at - 2)) and at > 1:
        raise Unreadable("its thousands are grouped in more than one way")
    if grouped and not grouped["comma"].strip("\\ ") and _DIVIDED.match(text, grouped.end()):
        raise Unreadable("it may have a mixed number or one of thousands before its slash")
    whole = grouped or _PLAIN.match(text, at)
    digits = re.sub(r"\D", "", whole[0]) if whole else ""
    end = whole.end() if whole else at
    if repeating := _REPEATING.match(text, end):
        return _repeating(digits, repeating[1], repeating[2] or repeating[3]), repeating.end()
    if (goes_on := _GOES_ON.match(text, end)) and (periods := _PERIODS.fullmatch(goes_on[1])):
        return _repeating(digits, periods[1], periods[2] or periods[3]), goes_on.end()
    decimals = _DECIMALS.match(text, end)
    if decimals:
        end = decimals.end()
    if len(digits) + (len(decimals[1]) if decimals else 0) > MAX_DIGITS:
        raise Unreadable(f"a number in it has more than {MAX_DIGITS:,} digits")
    value = Fraction(f"{digits or 0}.{decimals[1] if decimals else 0}")
    if power := (_POWER_BEHIND_DECIMALS if decimals else _POWER_OF_TEN).match(text, end):
        exponent = int(power[0][1:])
        if abs(exponent) > _MAX_EXPONENT:
            raise Unreadable(f"a power of ten in it is beyond 10^{_MAX_EXPONENT:,}")
        return value * Fraction(10) ** exponent, power.end()
    return value, end


def _in_base(numeral: re.Match[str]) -> Fraction:
    base = int(numeral[2] or numeral[3])
    try:
        if base not in _BASES or len(numeral[1]) > MAX_DIGITS:
            raise ValueError
        return Fraction(int(numeral[1], base))
    except ValueError:
        raise Unreadable(f"{numeral[0][:60]!r} is no number in a base from 2 to 36") from None


def _repeating(whole: str, fixed: str, period: str) -> Fraction:
    if len(whole) + len(fixed) + len(period) > MAX_DIGITS:
        raise Unreadable(f"a number in it has more than {MAX_DIGITS:,} digits")
    start = Fraction(int(whole + fixed or "0"), 10 ** len(fixed))
    return start + Fraction(int(period), 10 ** len(fixed) * (10 ** len(period) - 1))

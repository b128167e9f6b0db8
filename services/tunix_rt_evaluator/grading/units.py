"""Which unit a number has. Nothing is converted."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from tunix_rt_evaluator.grading.numbers import Number
from tunix_rt_evaluator.grading.spelling import CURRENCY

# Units that a number may be given in by mistake, one in all its spellings a line: beside another one they are
# wrong. "in" is none: it is a word far more often.
_UNITS: Final = """
mm millimetre millimetres millimeter millimeters
cm centimetre centimetres centimeter centimeters
dm
m metre metres meter meters
km kilometre kilometres kilometer kilometers
inch inches
ft foot feet
yd yard yards
mi mile miles
mg milligram milligrams
g gram grams
kg kilogram kilograms
t ton tons tonne tonnes
lb lbs pound pounds
oz ounce ounces
ms
s sec secs second seconds
min mins minute minutes
h hr hrs hour hours
day days
week weeks
month months
year years
ml millilitre millilitres milliliter milliliters
cl
dl
l litre litres liter liters
gallon gallons
km/h kmh kph
mph
m/s
ft/s
m^2 m2
m^3 m3
cm^2 cm2
cm^3 cm3
km^2 km2
$ dollar dollars usd
cent cents \u00a2
\u20ac euro euros eur
\u00a3 gbp pound pounds
\u00a5 yen yuan
\u20b9 rupee rupees inr
v
mv
kv
w
kw
mw
j
kj
n
kn
pa
kpa
hz
khz
mhz
ghz
b bytes
kb
mb
gb
tb
bits
\u00b0 degree degrees
\u00b0c
\u00b0f
radian radians
% percent
am
pm
bc bce
ad ce
"""
_LINES: Final = [frozenset(line.split()) for line in _UNITS.strip().splitlines()]
_PERCENT: Final = frozenset(("%", "percent"))
GLUED_UNIT: Final = (
    r"(?-i:(?:[mcdk]?m|[mk]?g|[mcd]?[lL]|ms|[kM]?[VW]|k[JN]|k?Pa|[kMG]?Hz|[KMGT]B|s|h|min|sec|hrs?|days?|ft|yd|mi|lbs?|oz|mph|km/?h"
    r"|kph|am|pm|\u03a9|\u00b0[CFK]?|\u2103|\u2109|\u00a2|euros?|USD|EUR|in)"
    r"(?:\^?\{?-?[23]\}?|[\u00b2\u00b3])?)"
)
"""A unit as it stands behind a number without a space, as a part of a regular expression."""
_SI: Final = (
    r"(?:[mcdk]?m|[mk]?g|[mcd]?[lL]|m?s|h|[kMG]?[VWJN]|[kM]?Pa|[kMG]?eV|mol|[JNAVWCF]|k?\u03a9|k?cal|[kM]?Wh)"
)
_EXPONENT: Final = r"(?:\^?\{?-?[1-4]\}?|[\u00b2\u00b3])?"
COMPOUND_UNIT: Final = rf"(?<=\s)(?-i:{_SI}{_EXPONENT}(?:\s?[\u00d7/]\s?\(?{_SI}{_EXPONENT}\)?)*)"
"""A unit as it stands behind a number and a space, several of them multiplied and divided included."""
_WORD: Final = re.compile(r"[^\W\d_][\w/^\u00b2\u00b3]*|\u00b0[CF]?|[%\u00b5\u00a2][^\W\d_]*")
_CASE_MATTERS: Final = 2
_POWERS: Final = str.maketrans({"\u00b2": "^2", "\u00b3": "^3"})


def has_right_unit(number: Number, units: Sequence[str], *, required: bool) -> bool:
    """Whether ``number`` has one of ``units``, or unless one is required, none at all."""
    if any(_is_there(number, unit) for unit in units):
        return True
    return not required and not _known_units(number)


def units_differ(number: Number, accepted: Number) -> bool:
    """Whether both have known units, and none in common; percent is none of them here."""
    mine, theirs = _known_units(number) - {_PERCENT}, _known_units(accepted) - {_PERCENT}
    return bool(mine and theirs) and not mine & theirs


def unit_length(number: Number, units: Sequence[str]) -> int:
    """How many characters behind ``number`` are one of ``units``, spaces before it included; 0 for none."""
    text = _begin(number.after)
    skipped = len(number.after) - len(text)
    return max((skipped + length for unit in units if (length := _length(text, unit))), default=0)


def _is_there(number: Number, unit: str) -> bool:
    if unit in (number.currency, number.scale) or (unit.lower() in ("%", "percent") and number.is_percent):
        return True
    return bool(_length(_begin(number.after), unit))


def _length(text: str, unit: str) -> int:
    """How many characters ``unit`` has where ``text`` begins with it, powers in either spelling; else 0."""
    if len(unit) > _CASE_MATTERS:
        text, unit = text.casefold(), unit.casefold()
    for spelled in (unit, unit.translate(_POWERS), unit.replace("^2", "\u00b2").replace("^3", "\u00b3")):
        # What goes on, as in m/s or m^2, is another unit.
        if text.startswith(spelled) and not re.match(r"[\w/^]", text[len(spelled) :]):
            return len(spelled)
    return 0


def _known_units(number: Number) -> set[frozenset[str]]:
    """The known units that a number has, each in all its spellings."""
    found = {number.currency, "%" if number.is_percent else ""}
    text = _begin(number.after).translate(_POWERS)
    if word := _WORD.match(text):
        found |= {word[0].casefold(), word[0][0] if word[0][0] == "\u00b0" else ""}
    elif text[:1] in tuple(CURRENCY):
        found.add(text[0])
    return {line for line in _LINES if line & found}


def _begin(after: str) -> str:
    return after.lstrip(" \t\u00a0\u2009\u202f-*_~\\")

"""Which unit a number has. Nothing is converted."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from typing import Final

from tunix_rt_evaluator.grading.numbers import CURRENCY, Number

# Units that a number may be given in by mistake: beside an accepted one they are wrong. "in" is none: it is a
# word far more often.
_NAMES: Final = """
mm cm dm m km inch inches ft foot feet yd yard yards mi mile miles metre metres meter meters
millimetre millimetres millimeter millimeters centimetre centimetres centimeter centimeters
kilometre kilometres kilometer kilometers
mg g kg t gram grams kilogram kilograms milligram milligrams ton tons tonne tonnes lb lbs oz ounce ounces
ms s sec secs second seconds min mins minute minutes h hr hrs hour hours day days week weeks month months
year years
ml cl dl l litre litres liter liters millilitre millilitres milliliter milliliters gallon gallons
km/h kmh kph mph m/s ft/s m^2 m^3 cm^2 cm^3 km^2 m2 m3 cm2 cm3 km2
pound pounds dollar dollars cent cents euro euros usd eur gbp
v mv kv w kw mw j kj n kn pa kpa hz khz mhz ghz b kb mb gb tb bytes bits
degree degrees radian radians percent
"""
_KNOWN: Final = frozenset(_NAMES.split())
_WORD: Final = re.compile(r"[^\W\d_][\w/^\u00b2\u00b3]*|\u00b0[CF]?|[%\u00b5][^\W\d_]*")
_CASE_MATTERS: Final = 2
_POWERS: Final = str.maketrans({"\u00b2": "^2", "\u00b3": "^3"})


def has_right_unit(number: Number, units: Sequence[str], *, required: bool) -> bool:
    """Whether ``number`` has one of ``units``, or unless one is required, none at all."""
    if any(_is_there(number, unit) for unit in units):
        return True
    return not required and not _has_known_unit(number)


def _is_there(number: Number, unit: str) -> bool:
    if unit == number.currency or (unit.lower() in ("%", "percent") and _is_percent(number)):
        return True
    text, wanted = _begin(number.after), unit.translate(_POWERS)
    if len(wanted) > _CASE_MATTERS:
        text, wanted = text.casefold(), wanted.casefold()
    # What goes on, as in m/s or m^2, is another unit.
    return text.startswith(wanted) and not re.match(r"[\w/^]", text[len(wanted) :])


def _has_known_unit(number: Number) -> bool:
    if number.currency or _is_percent(number):
        return True
    text = _begin(number.after)
    word = _WORD.match(text)
    return text[:1] in tuple(CURRENCY) or (
        word is not None and (word[0].casefold() in _KNOWN or word[0][0] == "\u00b0")
    )


def _is_percent(number: Number) -> bool:
    return number.factor == Fraction(1, 100)


def _begin(after: str) -> str:
    return after.translate(_POWERS).lstrip(" \t\u00a0\u2009\u202f-*_~\\")

"""Units of measurement and of money, each with one spelling. Nothing is converted."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

# The spelling that stands for all, and the others.
_NAMES: Final = """
mm millimeter millimetre
cm centimeter centimetre
dm decimeter decimetre
m meter metre
km kilometer kilometre
inch inches
foot feet ft
yard yd
mile mi
mg milligram
g gram gramme
kg kilogram kilo
tonne
ton
pound lb lbs
oz ounce
ms millisecond
s second sec secs
min minute mins
h hour hr hrs
day
week
month
year yr yrs
ml mL milliliter millilitre
cl centiliter centilitre
l L liter litre
gallon gal
quart
pint
cup
acre
hectare ha
degree deg
degree_celsius celsius
degree_fahrenheit fahrenheit
radian rad
kelvin
newton
joule
watt
kW kilowatt
volt
ohm
hertz Hz
pascal Pa
byte
bit
dollar usd USD
cent
euro eur EUR
gbp GBP
rupee
yen
unit
point
person people persons
student
child children kids
girl
boy
man men
woman women
friend
worker
way
time
solution
number
integer
digit
side
face
edge
vertex vertices
triangle
apple
orange
book
page
ball
marble
coin
card
box boxes
bag
egg
cookie
candy candies
pencil
ticket
game
goal
dot
tree
flower
car
house
dog
cat
fish
animal
word
letter
item
piece
step
mark
"""
_CASE_MATTERS: Final = 2
_POWERS: Final = {"square": 2, "sq": 2, "squared": 2, "cubic": 3, "cu": 3, "cubed": 3}
_PART: Final = re.compile(r"([^\W\d_]+)\.?(?:\s*(?:\^\s*\{?\s*(-?\d)\s*\}?|([\u00b2\u00b3])))?\s*")
_PER: Final = re.compile(r"(?:/|per\b)\s*")
_OF_DEGREES: Final = {"c": "degree_celsius", "celsius": "degree_celsius", "f": "degree_fahrenheit"}
_RAISED: Final = {"\u00b2": 2, "\u00b3": 3}
_SHORT: Final = {"mph": "mile/hour", "kmh": "km/hour", "kph": "km/hour"}


def _table() -> Mapping[str, str]:
    known = {}
    for line in _NAMES.split("\n"):
        for name in line.split():
            known[name] = line.split()[0]
            if len(name) > _CASE_MATTERS and not name.endswith("s"):
                known[f"{name}s"] = line.split()[0]
    return known


_KNOWN: Final = _table()


def unit_of(text: str) -> str | None:
    """The one spelling of the unit that ``text`` is, such as ``cm^2`` for "square centimetres"; else None."""
    parts: dict[str, int] = {}
    at, sign, pending = 0, 1, 1
    text = _SHORT.get(text.strip().lower(), text.strip())
    while at < len(text):
        if parts and (per := _PER.match(text, at)):
            at, sign = per.end(), -1
        part = _PART.match(text, at)
        if part is None:
            return None
        at = part.end()
        word = part[1]
        if word.lower() in _POWERS and part[2] is None and part[3] is None:
            if word.lower().endswith("ed") and parts:
                last = next(reversed(parts))
                parts[last] *= _POWERS[word.lower()]
            else:
                pending = _POWERS[word.lower()]
            continue
        if (name := _name(word, list(parts))) is None:
            return None
        if name in _OF_DEGREES.values() and "degree" in parts:
            del parts["degree"]
        parts[name] = parts.get(name, 0) + sign * pending * int(part[2] or _RAISED.get(part[3], 1))
        pending = 1
    if not parts or pending != 1:
        return None
    return "*".join(f"{name}^{power}" for name, power in sorted(parts.items()))


def _name(word: str, before: list[str]) -> str | None:
    if before == ["degree"] and word.lower() in _OF_DEGREES:
        return _OF_DEGREES[word.lower()]
    return _KNOWN.get(word) or (_KNOWN.get(word.lower()) if len(word) > _CASE_MATTERS else None)

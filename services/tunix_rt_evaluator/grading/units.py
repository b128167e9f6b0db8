"""Units of measurement and of money: which one a number has, and its one spelling. Nothing is converted."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from tunix_rt_evaluator.grading.reading.numbers import Number
from tunix_rt_evaluator.grading.reading.spelling import CURRENCY

# Units that a number may be given in by mistake, each in all its spellings: beside another one they are
# wrong. "in" is none: it is a word far more often.
_SPELLINGS: Final = """
mm millimetre millimetres millimeter millimeters; cm centimetre centimetres centimeter centimeters; dm;
m metre metres meter meters; km kilometre kilometres kilometer kilometers; inch inches; ft foot feet;
yd yard yards; mi mile miles; m^2 m2; m^3 m3; cm^2 cm2; cm^3 cm3; km^2 km2;
mg milligram milligrams; g gram grams; kg kilogram kilograms; t ton tons tonne tonnes; lb lbs pound pounds;
oz ounce ounces; ml millilitre millilitres milliliter milliliters; cl; dl; l litre litres liter liters;
gallon gallons; ms; s sec secs second seconds; min mins minute minutes; h hr hrs hour hours; day days;
week weeks; month months; year years; am; pm; bc bce; ad ce; km/h kmh kph; mph; m/s; ft/s;
$ dollar dollars usd; cent cents ¢; € euro euros eur; £ gbp pound pounds; ¥ yen yuan; ₹ rupee rupees inr;
v; mv; kv; w; kw; mw; j; kj; n; kn; pa; kpa; hz; khz; mhz; ghz; b bytes; kb; mb; gb; tb; bits;
° degree degrees; °c; °f; radian radians; % percent
"""
_RIVALS: Final = [frozenset(entry.split()) for entry in _SPELLINGS.split(";")]
_PERCENT: Final = frozenset(("%", "percent"))
GLUED_UNIT: Final = (
    r"(?-i:(?:[mcdk]?m|[mk]?g|[mcd]?[lL]|ms|[kM]?[VW]|k[JN]|k?Pa|[kMG]?Hz|[KMGT]B|s|h|min|sec|hrs?|days?|ft|yd|mi"
    r"|lbs?|oz|mph|km/?h|kph|am|pm|\u03a9|\u00b0[CFK]?|\u2103|\u2109|\u00a2|euros?|USD|EUR|in)"
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
    """Whether ``number`` has one of ``units``; unless ``required``, having no unit will do."""
    if any(_is_there(number, unit) for unit in units):
        return True
    return not required and not _known_units(number)


def units_differ(number: Number, accepted: Number) -> bool:
    """Whether both have known units, but none in common; percent does not count as a unit here."""
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
    return {unit for unit in _RIVALS if unit & found}


def _begin(after: str) -> str:
    return after.lstrip(" \t\u00a0\u2009\u202f-*_~\\")


# The units of a formula, in all their spellings but the plural in s; the first one stands for all.
_NAMES: Final = """
mm millimeter millimetre; cm centimeter centimetre; dm decimeter decimetre; m meter metre; km kilometer
kilometre; inch inches; foot feet ft; yard yd; mile mi; mg milligram; g gram gramme; kg kilogram kilo; pound
lb lbs; oz ounce; ms millisecond; s second sec secs; min minute mins; h hour hr hrs; year yr yrs; ml mL
milliliter millilitre; cl centiliter centilitre; l L liter litre; gallon gal; hectare ha; degree deg;
degree_celsius celsius; degree_fahrenheit fahrenheit; radian rad; kW kilowatt; hertz Hz; pascal Pa; dollar usd
USD; euro eur EUR; gbp GBP; person people persons; child children kids; man men; woman women; vertex vertices;
box boxes; candy candies; tonne; ton; day; week; month; quart; pint; cup; acre; kelvin; newton; joule; watt;
volt; ohm; byte; bit; cent; rupee; yen; unit; point; student; girl; boy; friend; worker; way; time; solution;
number; integer; digit; side; face; edge; triangle; apple; orange; book; page; ball; marble; coin; card; bag;
egg; cookie; pencil; ticket; game; goal; dot; tree; flower; car; house; dog; cat; fish; animal; word; letter;
item; piece; step; mark
"""
_SINGULAR: Final = {name: names[0] for names in map(str.split, _NAMES.split(";")) for name in names}
_UNITS: Final = _SINGULAR | {
    f"{name}s": unit
    for name, unit in _SINGULAR.items()
    if len(name) > _CASE_MATTERS and not name.endswith("s") and f"{name}s" not in _SINGULAR
}
_POWER_WORDS: Final = {"square": 2, "sq": 2, "squared": 2, "cubic": 3, "cu": 3, "cubed": 3}
_PART: Final = re.compile(r"([^\W\d_]+)\.?(?:\s*(?:\^\s*\{?\s*(-?\d)\s*\}?|([\u00b2\u00b3])))?\s*")
_PER: Final = re.compile(r"(?:/|per\b)\s*")
_OF_DEGREES: Final = {"c": "degree_celsius", "celsius": "degree_celsius", "f": "degree_fahrenheit"}
_RAISED: Final = {"\u00b2": 2, "\u00b3": 3}
_SHORT: Final = {"mph": "mile/hour", "kmh": "km/hour", "kph": "km/hour"}


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
        if word.lower() in _POWER_WORDS and part[2] is None and part[3] is None:
            if word.lower().endswith("ed") and parts:
                last = next(reversed(parts))
                parts[last] *= _POWER_WORDS[word.lower()]
            else:
                pending = _POWER_WORDS[word.lower()]
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
    return _UNITS.get(word) or (_UNITS.get(word.lower()) if len(word) > _CASE_MATTERS else None)

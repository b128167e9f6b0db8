"""Reads numbers exactly, as fractions, and their units. (``statements`` judges the text around them.)

Reads thousands separators (comma, typographic spaces, apostrophe, underscore, ``1.234.567``, ``1.234,56``,
``1,00,000``, LaTeX's ``{,}``), decimals, fractions and mixed numbers (``3/4``, ``2 1/2``, one half as a sign,
LaTeX's), powers of ten, words such as million, ``5k``, percent and a currency sign, in the digits of any
script. A digit that belongs to a word or to a unit such as m^2 is no number. A unit, of
measurement or of money, is brought to one spelling and never converted.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
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
_PERCENT_UNIT: Final = frozenset(("%", "percent"))
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
    mine, theirs = _known_units(number) - {_PERCENT_UNIT}, _known_units(accepted) - {_PERCENT_UNIT}
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

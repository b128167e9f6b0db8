r"""What may stand directly beside a number, and what makes another number of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from tunix_rt_evaluator.grading.languages import COMPARED, UNSPACED_CHANGES
from tunix_rt_evaluator.grading.spelling import CURRENCY, LETTER, UNSPACED
from tunix_rt_evaluator.grading.units import GLUED_UNIT

# In the shape of a sentence each number is one character, which says by its place in this range which it is.
FIRST: Final = 0xE000
MAX_NUMBERS: Final = 200
N: Final = f"[{chr(FIRST)}-{chr(FIRST + MAX_NUMBERS)}]"
"""A number in a shape, as a part of a regular expression."""


def pattern(text: str) -> re.Pattern[str]:
    """A verbose regular expression, capital and small letters the same."""
    return re.compile(text, re.VERBOSE | re.IGNORECASE)


_MATHS: Final = (
    r"(?:log|ln|sin|cos|tan|cot|sec|exp|sqrt|pi|abs|floor|ceil|round|gcd|lcm|mod|modulo|factorial)"
)
_MONTH: Final = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|march|april|june|july|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?"
    r"|nov(?:ember)?|dec(?:ember)?|(?-i:May))"
)
_OF: Final = (
    r"(?:(?:root|square|cube|sum|product|difference|quotient|opposite|inverse|reciprocal|multiples?|powers?"
    r"|factors?|factorial|logarithm|remainder|average|mean|percent|half|third|quarter|fraction|negative)\ of)"
)
_PARTS: Final = (
    r"(?:half|halves|thirds?|quarters?|fourths?|fifths?|sixths?|sevenths?|eighths?|ninths?|tenths?"
    r"|hundredths|thousandths)"
)
_SCALE: Final = r"(?:dozens?|hundreds?|thousands?|millions?|billions?|trillions?)"
_MORE: Final = (
    r"(?:more|less|so|fewer|higher|lower|above|below|greater|over|under|older|younger|later|earlier|up"
    r"|counting|change|some)"
)
_BETWEEN: Final = (
    r"(?:to|by|in|of|out\ of|at|for|on|with|from|over|under|against|after|before|past|vs|versus|choose"
    r"|through|thru|every|each|until|till|per|plus|minus|times|divided\ by|multiplied\ by"
    r"|bis|\u00e0|at\u00e9|hasta|\u0434\u043e)"
)
_VARIABLE: Final = r"(?<![^\W\d_])(?<!['\u2019])[b-df-hj-np-xz\u0370-\u03ff](?![^\W\d_])"
_RAISED: Final = "\u00b2\u00b3\u00b9\u2070-\u209c\u1d62-\u1d6a"

_BEFORE: Final = pattern(
    rf"""
    (?: ^ | [=\u2248~:\u21d2\u2192,;] | [{UNSPACED}] )$
    | (?: ^ | [\w=\u2248~:\u21d2\u2192,;"')\]%&\u2026\u2014\u00b0{CURRENCY}] | (?<=\w)\. )\s+$
    """
)
_CHANGED_BEFORE: Final = pattern(
    rf"""
    (?: {COMPARED} | {_VARIABLE} | {UNSPACED_CHANGES} | [{_RAISED}] | {N}
      | \b(?:plus|minus|times|less|half|quarter|third|double|twice|triple|thrice|past|base|power|to\ the)
      | \b(?:{_MATHS}|{_MONTH}|{_OF}|{_SCALE})
      | \b(?:divided|multiplied|multiply|divide|divisible|reduced|increased)\ by | \\[a-z]+
      | \b(?:wurzel(?:\ aus)?|h\u00e4lfte\ von|doppelte\ von|racine\ de|moiti\u00e9\ de|double\ de
          |ra[i\u00ed]z\ de|mitad\ de
          |doble\ de|metade\ de|dobro\ de|met\u00e0\ di|doppio\ di) | \u6839\u53f7 | \u96f6\u4e0b
      | \b(?:loss|decrease|drop|reduction|deficit|debt|one)\ of\ [{CURRENCY}]? | \b(?:close|rounded)\ to
      | \b(?:in|on|by|from|see)\ (?:the\ )?(?:step|section|equation|page|chapter|figure|table|line)\ \(?
    )
    (?:\ (?:the|a|an|about|approximately|roughly|around|exactly|just|only|number))*\s*$
    """
)
_AFTER: Final = pattern(
    rf"""
      $ | [.,;:](?=\s|$) | [=\u2248\u21d2\u2192&{CURRENCY}] | [-/][^\W\d_]{{2}}
    | (?:st|nd|rd|th)s?(?!{LETTER}) | {GLUED_UNIT}(?!{LETTER}) | [{UNSPACED}]
    | \s+ (?: $ | [^\W\d_] | [.,;:)&=\u2248\u21d2\u2192\u2014"'%\u00b0{CURRENCY}] )
    """
)
_CHANGED_AFTER: Final = pattern(
    rf"""
      \s*:\s*{N} | \s*\u00b0\s*{N} | \s*(?:{UNSPACED_CHANGES}|[{_RAISED}]) | [^,;]*\bbelow\b
    | [\s-]+ (?: (?:the\ )?{_BETWEEN}\.?[\s-]+{N} | (?:or|and)\ {_MORE}\b | and\ \w+[\ -]{_PARTS}\b )
    | [\s-]+ (?: {_PARTS} | {_MATHS} | {_MONTH} | {_SCALE}
        | plus|minus|squared|cubed|twice|doubled?|tripled?|halved|base|point|odd|ish|raised
        | to\ the\ power|out\ of|at\ (?:least|most)|tops|max(?:imum)?|min(?:imum)? )\b
    | [\s-]+ (?:(?:decimal|significant)\b|digits?\b) | \s*R\d
    | [\s-]+ (?!a\ [^\W\d_]{{2}} | [dl]['\u2019] | (?-i:I)\ | {GLUED_UNIT}(?!{LETTER}))
        [a-z\u0370-\u03ff](?![^\W_])
    """
)


class NoNumber(Exception):
    """A text gives no number; the message says why."""


@dataclass(frozen=True, slots=True)
class Place:
    """A number in a shape, and what stands on either side of it."""

    before: str
    number: str
    after: str

    def checked(self) -> str:
        """The number; raises NoNumber where what stands beside it makes another one of it."""
        if not _BEFORE.search(self.before) or _CHANGED_BEFORE.search(self.before):
            raise NoNumber(f"{shown(self.before[-12:])} stands before a number and changes it")
        if not _AFTER.match(self.after) or _CHANGED_AFTER.match(self.after):
            raise NoNumber(f"{shown(self.after[:12])} stands behind a number and changes it")
        return self.number


def shown(shape: str) -> str:
    """A part of a shape for people."""
    return repr(re.sub(N, "#", shape.strip()))

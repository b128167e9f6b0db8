"""The text beside a number that is the answer: before it words of a closed list, behind it a unit or what is
counted."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from tunix_rt_evaluator.grading.reading.spelling import CURRENCY, LETTER, UNSPACED
from tunix_rt_evaluator.grading.reading.words import (
    BEHIND,
    CHANGE,
    COMPARED,
    COPULA,
    FILLER,
    FIRST_BEHIND,
    LEAD,
    NUMBER_WORD,
    UNSPACED_BEHIND,
    UNSPACED_CHANGES,
    UNSPACED_LEAD,
)
from tunix_rt_evaluator.grading.units import COMPOUND_UNIT, GLUED_UNIT

# In the shape of a sentence each number is one character, which says by its place in this range which it is.
FIRST: Final = 0xE000
MAX_NUMBERS: Final = 200
N: Final = f"[{chr(FIRST)}-{chr(FIRST + MAX_NUMBERS)}]"
"""A number in a shape, as a part of a regular expression."""


def pattern(text: str) -> re.Pattern[str]:
    """A compiled regular expression, verbose and ignoring case."""
    return re.compile(text, re.VERBOSE | re.IGNORECASE)


_RAISED: Final = "\u00b2\u00b3\u00b9\u2070-\u209c\u1d62-\u1d6a"
# Signs that only adorn.
_ORNAMENT: Final = (
    "\u2705\u2713\u2714\u2611\u2b50\u2728\u27a1\ufe0f\U0001f389\U0001f60a\U0001f642\U0001f600\U0001f604\U0001f449"
    "\U0001f3af\U0001f44d"
)
_SHORT: Final = (
    "(?:of|in|at|by|on|to|is|an|it|us|we|he|me|my|so|no|pm|am|as|do|de|da|di|du|la|le|el|al|en|em|un|au|im|zu"
    "|os|po|na|za|qu|\u0432|\u043d\u0430|\u0443|\u0438\u0437"
    "|kg|km|cm|mm|ml|ft|lb|oz|gb|mb|hr|pc|z\u0142|kr|cu|sq|ui)"
)
_LETTER: Final = rf"(?:(?![{UNSPACED}])[^\W\d_])"
_WORD: Final = (
    rf"(?:(?:sq|cu)\.|{_SHORT}(?![^\W\d_])|(?<=\s)[aAI](?=\s)|(?-i:[A-Z]{{2}})(?![^\W\d_])"
    rf"|(?:[dl]['\u2019])?{_LETTER}{{3,}}(?:['\u2019.-]{_LETTER}+)*['\u2019]?(?:\^\{{?[1-4]\}}?)?)"
)
_OFTEN: Final = (
    "(?:total|profit|sum|average|mean|price|cost|discount|distance|score|salary|income|speed|amount|balance"
    "|weight|answer|result|value|area|volume|perimeter|length|height|width|age|rate|count|probability)"
)

_BEFORE: Final = pattern(
    rf"""
    (?: ^ | [=\u2248:\u21d2\u2192] | (?:{LEAD}|{COPULA}) (?:\s+(?:{FILLER}))*\s
      | ^(?:(?:{FILLER})\s+)*(?:{FILLER})\s | {UNSPACED_LEAD} )
    [\s~{CURRENCY}]*[*\u2022~{_ORNAMENT}]?\s*$
    """
)
_CHANGED_BEFORE: Final = pattern(
    rf"""
      {COMPARED}\s*(?:(?:{FILLER})\s+)*$ | {CHANGE} | {UNSPACED_CHANGES}$ | [{_RAISED}]
    | \b{NUMBER_WORD}\W+$ | \b{NUMBER_WORD}\s+(?:in|by|for|to)\s+$
    | \\[a-z]+\s*$ | \b(?!{_OFTEN})\w+\s+of\s+(?:the\s+)?$
    """
)
_UNIT: Final = rf"(?:{GLUED_UNIT}|{COMPOUND_UNIT})(?!{LETTER})"
_AFTER: Final = pattern(
    rf"""
    (?: \s*(?:{_UNIT}) | \s?[{CURRENCY}] | (?:st|nd|rd|th)s?(?!{LETTER})
      | -(?={_WORD}) | \s*o['\u2019]clock | \s*/\s*(?={_WORD}) | /- )?
    (?: (?:\s+|(?<=[-/])) (?: {_WORD} | & | [{CURRENCY}%\u00b0] )
      | / (?:{_UNIT}|{_WORD}) | [%\u00b0] (?!\s*{N}) | [{UNSPACED}] )*
    (?:(?<=\w)!)? [\s.,:;%{_ORNAMENT}]* (?:\*\*|__)? \.?
    """
)
_CHANGED_AFTER: Final = pattern(
    rf"""
      ^[\s-]* (?:(?:st|nd|rd|th)\s+(?:of\ )?)? (?:{FIRST_BEHIND}|{NUMBER_WORD}) \b
    | [\s-](?:{CHANGE}|{BEHIND}) | ^\s*[!*\u2014-]+\s*$ | \s:\s*$ | (?<![^\W\d_])[{_RAISED}] | \bor\b
    | \betc\b
    | ^\s*(?:[\u7684\u306e\uc758\u6708\u65e5]|[{UNSPACED}]{{0,3}}{UNSPACED_CHANGES}) | {UNSPACED_BEHIND}
    | ^\s*(?:in|per|by|of|to|on|with|from)\b[^,]*\bthese\b
      (?!\s+(?:second|minute|hour|day|week|month|year)s?\b) | \bthese\s+(?:more|others?)\b
    | \b(?:per|each|every|a)\s+\w+\s+(?:for|in|over)\b.*\bthese\b | \beach\ (?:of|for)\ these | \bevery\ these
    | \b(?:along|together)\s+with
    """
)


_OPERATED_BEFORE: Final = re.compile(
    r"[-*+/^<>\u2212\u2264\u2265\u2260\u00b1\u2213\u221a\u00d7\u00f7|{\d]\s*$|(?<![^\W\d_])[a-z]$"
)
_OPERATED_AFTER: Final = re.compile(
    r"\s*(?:[!?^*/+<>\u2264\u2265\u2260\u00b1\u00d7\u00f7|\u2026\u221a\u03c0%\u2030=]|\.[.\d]|[-\u2013\u2014~]\s*\$?\d"
    r"|(?:to|and|through|out|bis|\u00e0|a)\s+\$?\d|\d|[a-z](?![^\W\d_]))"
)


class NoNumber(Exception):
    """A text gives no number; the message says why."""


@dataclass(frozen=True, slots=True)
class Place:
    """A number in a shape, and the text on either side of it."""

    before: str
    number: str
    after: str

    def checked(self) -> str:
        """The number; raises NoNumber if the text beside it changes what it says."""
        if not _BEFORE.search(self.before) or _CHANGED_BEFORE.search(self.before):
            raise NoNumber(f"{shown(self.before[-12:])} stands before a number and may change it")
        if not _AFTER.fullmatch(self.after) or _CHANGED_AFTER.search(self.after):
            raise NoNumber(f"{shown(self.after[:12])} stands behind a number and may change it")
        return self.number


def changes_beside(before: str, after: str) -> str:
    """How the text on either side of a boxed number changes what it says, for people; "" if it does not."""
    if changed := _CHANGED_BEFORE.search(before) or _OPERATED_BEFORE.search(before):
        return f"{shown(changed[0])} stands before a number and may change it"
    clause = re.sub(r"^\s*and\s+(?=\D*$)", " ", re.split(r"[.,;](?=\s|$)", after, maxsplit=1)[0])
    if changed := _CHANGED_AFTER.search(clause) or _OPERATED_AFTER.match(after):
        return f"{shown(changed[0])} stands behind a number and may change it"
    return ""


def shown(shape: str) -> str:
    """A part of a shape for people."""
    return repr(re.sub(N, "#", shape.strip()))

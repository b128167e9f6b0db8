"""What may stand on the other sides of "is" or an equals sign than the number that is given there."""

from __future__ import annotations

import re
from typing import Final

from tunix_rt_evaluator.grading.amounts import CHANGE
from tunix_rt_evaluator.grading.neighbours import N, NoNumber, pattern, shown

# What a number that stands first may be said to be: "5 is the answer", "5 = x".
_PREDICATE: Final = pattern(
    r"""
    (?: (?:(?:the|my|our|your|her|his|their|final|correct|right|only|required|exact|full|total|desired
      |answer\ to)\s+)*
        (?:answer|result|total|solution|value|sum|amount|cost|price|difference|product|left|remaining
      |in\ total|all)
      | what\s(?:i|we|you)\s(?:get|got|find|found|want|need|have|are\ looking\ for) )
    (?:\ (?:here|we\ \w+|that\ \w+\ \w+|you\ \w+|in\ total|to\ (?:the|this|your)\ (?:question|problem)))?
    | (?:die|das)\ (?:antwort|ergebnis) | la\ (?:r\u00e9ponse|respuesta) | a\ resposta | la\ risposta
    """
)
_PLAIN_WORDS: Final = pattern(r"(?:[^\W\d_]{2,}(?:['\u2019-][^\W\d_]+)*(?:\s+|$)){1,6}")
_OPERATOR: Final = (
    r"[-+*/^\u00d7\u00f7\u00b2\u00b3\u221a]|\b(?:plus|minus|times|divided\ by|multiplied\ by)\b"
    rf"|(?<=\ )x(?=\ \$?{N})"
)
_EXPONENT: Final = r"(?<=\^)\{?\d+\}?|\{(?=[\ue000-\ue0c8]\})|(?<=[\ue000-\ue0c8])\}"
SUM: Final = pattern(rf"(?=[^=]*(?:{_OPERATOR})) (?:{N}|{_OPERATOR}|{_EXPONENT}|[\s$().])+")
"""Something to compute, of numbers alone."""
_COUNTED: Final = rf"(?:\s?(?:/\s?|per\s)?(?!{CHANGE})[^\W\d_]{{3,}}){{0,3}}"
_SUM_OF_THINGS: Final = pattern(
    rf"[\s$(]*{N}{_COUNTED}(?:\s*(?:{_OPERATOR})\s*[$(]*{N}{_COUNTED}\)*)+[\s)]*$"
)
_SAID_SUM: Final = pattern(
    rf"""(?:so|thus|then|and|therefore|hence|the|of|square|cube|root|half|twice|double|triple|a|third
      |quarter|two|three|product
    |sum|difference|quotient|more|less|than|by|to|from|squared|cubed|percent|{N}|{_OPERATOR}|[\s$(),.])+"""
)
_NAME: Final = pattern(
    r"""
    (?: (?:(?:so|thus|then|and|therefore|hence|that|we|get|have|find|obtain|gives?|solving|finally|value
      |of|the|is|for)\s+)*
        (?:\\?(?:angle|triangle|measuredangle|overline|mathit)\s*)?
    )
    (?: (?:[a-z\u0370-\u03ff]|\\[a-z]{2,7})(?:_\{?\w+\}?
      |_[\ue000-\ue0c8])? (?:\s*\([\s\w\ue000-\ue0c8,]*\))?
      | (?-i:[A-Z]{2,4}|[A-Z]+[a-z]+) )
    (?:\s+(?:must|will|would|should|has\ to))?\s*
    """
)
# What many questions ask for, as m + n. Of x and y, or with a number in it, it is an equation.
_SUM_OF_NAMES: Final = pattern(
    r"(?:(?:so|thus|then|and|therefore|hence|the|value|of)\s+)*([a-w])\s*\+\s*(?!\1)[a-w](?:\s*\+\s*[a-w])*\s*"
)
_NO_NAME: Final = pattern(r"\\(?:int|sum|prod|lim|log|ln|sin|cos|tan|sqrt|exp|pm|frac|max|min)\b")
_SUBJECT_CHANGED: Final = pattern(
    rf"""
    {CHANGE}
    | [+*/^|\u221a\u00d7\u00f7<>\u2264\u2265!{{}}\[\]\\\u222b\u2211%\u00b0\u2032~\u00b2\u00b3\u00b9]
    | [\u2070-\u209c]
    | \s-\s | ^\W*- | {N}\s*(?:\w+\s+)?of\b(?!\s+the\s+{N})
    | (?<![^\W\d_])(?<!['\u2019])[b-hj-z](?![^\W\d_])
    # Two letters may be a product.
    | ^\s*(?-i:[b-df-hj-np-tv-z]{{2}}|[aeo][b-df-hj-np-tv-z])(?<!es)\s*$
    """
)


def check_predicate(predicate: str, given: str) -> None:
    """Check what is said of a number: 5 is the answer, and 5 eggs are left; that 5 is a factor says nothing.

    Raises NoNumber.
    """
    if not predicate or _PREDICATE.fullmatch(predicate) or _NAME.fullmatch(predicate):
        return
    counted = re.search(rf"{N}\s+[^\W\d_]{{3,}}", given)
    if not counted or not _PLAIN_WORDS.fullmatch(predicate) or _SUBJECT_CHANGED.search(predicate):
        raise NoNumber(f"{shown(predicate)} is said of it")


def check_subject(left: str) -> None:
    """Check what stands before "is" or an equals sign: what was computed, a name, or words for what is asked.

    2x = 10 says what 2x is, and not what x is. Raises NoNumber.
    """
    left = left.strip(" \t$([*_#")
    if not left or (re.search(N, left) and (SUM.fullmatch(left) or _SAID_SUM.fullmatch(left))):
        return
    if computed := _SUM_OF_THINGS.search(left):
        left = left[: computed.start()]
    if _SUM_OF_NAMES.fullmatch(left) or (_NAME.fullmatch(left) and not _NO_NAME.search(left)):
        return
    if _SUBJECT_CHANGED.search(left):
        raise NoNumber(f"{shown(left)} is more than an unknown")

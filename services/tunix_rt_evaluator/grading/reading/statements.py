"""Reads which numbers a text gives, by a closed grammar of what may stand around a number.

The grammar. One sentence counts. Right before its number stands nothing, a sign of equality or currency, or
a word of a closed list, such as a verb of being or having (``words.LEAD``); right behind it a unit or
what is counted, in plain words (``context``). What the number is said to be equal to is something
computed, a name, or words for what is asked (``x = 5``, ``9 * 2 = 18``, ``The sum is 5``). Besides these only
a reason behind "because" and its kin, a remark in brackets, how far it was rounded, what is denied (``It is
not 6, it is 5``), and numbers that only tell when, where or for what (``In 2019 she sold 18``, ``18 eggs for
3 people``). Whatever else stands there makes the text one that gives no number.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import islice, pairwise
from typing import Final

from tunix_rt_evaluator.grading.reading.context import (
    FIRST,
    MAX_NUMBERS,
    N,
    NoNumber,
    Place,
    doubted,
    pattern,
    shown,
)
from tunix_rt_evaluator.grading.reading.numbers import Number, find_in_plain, unit_length
from tunix_rt_evaluator.grading.reading.spelling import LETTER, plain
from tunix_rt_evaluator.grading.reading.words import (
    BEHIND,
    CHANGE,
    COMPARED,
    CONCLUSION,
    CONDITION,
    COPULA,
    CORRECTION,
    FIRST_BEHIND,
    MONTH,
    NEGATION,
    REASON,
    SUPPOSED,
)

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

_MAX_LENGTH: Final = 1_000
_MAX_LINE: Final = 4 * _MAX_LENGTH
_DIGIT: Final = re.compile("[\\d\u00bc-\u00be\u2150-\u215e\u2189]")
# A digit outside of numbers, words and exponents, such as those of 1/0.
_STRAY_DIGIT: Final = re.compile(rf"(?<!{LETTER})(?<!\^)(?<!\^[-{{])(?<!\^{{-)\d")
_SENTENCE_END: Final = pattern(rf"(?<=[.!?])\s+(?![=<>\u2260\u2264\u2265\u2248] | {MONTH}\b)")
_SPACES: Final = re.compile(r"[^\S\n]{2,}")
_STEP: Final = pattern(r"^\W*(?:step|schritt|\u00e9tape|paso)\s+\d+\W{1,4}")
_A_NUMBER: Final = re.compile(r"\W*[\d.,]*\d\W*")
_ABBREVIATION: Final = re.compile(
    r"\b(?:no|nr|vs|approx|ca|min|max|e\.g|i\.e|rs|sq|cu|ver|v|vol|ch|sec|fig|eq|pp?|pg|art|st|mr|mrs|dr|jr)\.$",
    re.IGNORECASE,
)
_LISTED: Final = re.compile(r"^\s*1[.)]\s+\S")

_BULLET: Final = re.compile(r"^\s*[*\u2022\u2023\u25e6\u2234]\s+")
_OPENING: Final = "([\"'\u201c\u2018\u300c\u300e\u00ab\u3010"
_CLOSING: Final = ")]\"'\u201d\u2019\u300d\u300f\u00bb\u3011"
_REMARK: Final = re.compile(r"(?<=\S)[^\S\n]+\([^()]*\)")
_CHANGING_REMARK: Final = pattern(
    rf"""
    [?\u00b1<>\u2264\u2265] | \b(?:or|base|each|{FIRST_BEHIND})\b | {NEGATION} | {COMPARED} | {CORRECTION}
    | {CHANGE} | {BEHIND} | {SUPPOSED}
    """
)
_EXPLAINED: Final = pattern(rf"(?:{REASON}|=)")
_REASON: Final = pattern(rf"[\s,;:(-]{REASON} | \s[-\u2014]+\s+(?=[^\W\d_]{{2}}) | :\s+(?!{N})")
_LEADING_REASON: Final = pattern(rf"\s*{REASON}[^,]*,")
_CONDITION: Final = pattern(CONDITION)
_CONCLUSION: Final = pattern(CONCLUSION)
_NEGATION: Final = pattern(rf"{NEGATION} | \b(?:undefined|unknown|undetermined|depends)\b")
_CORRECTION: Final = pattern(CORRECTION)
_AMOUNT: Final = pattern(rf"\W*(?:(?:so|thus|then|hence)\W+)?(?:{CHANGE}|{BEHIND}|{COMPARED})")
_BACKGROUND: Final = pattern(
    r"\W*(?:after|before|once|during|by\ the|at\ the|from|out\ of|of\ the|with|for)\b"
)
_RATIO: Final = re.compile(rf"{N}\s*:\s*{N}")
_LINES_CORRECTED: Final = 3
_CLAUSE: Final = pattern(
    r"[,;](?=\s|\D) | \b(?:but|however|actually|sondern|mais(?!\ (?:de|que|do)\b)|sino|mas|ma)\b"
)
_INSTEAD: Final = pattern(r"\b(?:and\ not|rather\ than|instead\ of|as\ opposed\ to)\b")
_AND: Final = pattern(r"\b(?:or|and|nor|oder|und|ou|et|o|y|e)\b|&")
_GOES_ON: Final = pattern(rf"\s*(?:{_AND.pattern})")
_RESULT: Final = pattern(rf"{COPULA} | [=\u2248\u21d2\u2192]")
_COMPUTED: Final = re.compile(rf"(?:{N}|[\s$(+*/^\u00d7\u00f7.)-])+")
_CONTEXT: Final = pattern(
    rf"""
    (?: \b(?:in|at|for|after|before|on|by|with|per|during|within|among|across|every|each|against)
      | (?:{N}|\beach|\bone|\bend|\bstart|\brest)\s+of )
    \s+ (?:(?:the|a|an|his|her|their|its|all|first|last|next|these|those|other|only)\s+){{0,2}}$
    """
)

_CONTEXT_NUMBER: Final = pattern(rf"({_CONTEXT.pattern.replace('$', '')}){N}")
_OR: Final = pattern(rf"\s+(?:or|oder|ou)\s+(?=(?:about|exactly|roughly)?\s*{N})")
_KEY: Final = re.compile(r"\"\s*:")
_ARROW: Final = pattern(r"(?<![^\W\d_])[a-z]\s*[\u21d2\u2192]")
_TRAILING: Final = pattern(r"(?:\.\.+|\u2026|\betc\b\.?)\W*$")
_SUPPOSED: Final = pattern(SUPPOSED)
_JOINED: Final = pattern(r"\b(?:or|oder|ou|o)\b | [=\u2248\u21d2\u2192] | \b(?:i\.e\.|that\ is)")
_PRECISION: Final = pattern(
    rf"""
    \s*[,(]?\s*
    (?:(?:when|if|as)\s+)? (?:(?:rounded|correct|accurate|rounding|approximated)\s+(?:up\s+|down\s+|off\s+)?)?
    (?: (?:to|\()\s*(?:{N}|two|three|four|one)\s*(?:decimals?(?:\s+places?)?|d\.?p\.?|places
          |significant\s+(?:figures?|digits?)
          |sig\.?\s*figs?\.?|s\.?f\.?)
      | to\s+the\s+nearest\s+(?:whole\s+)?(?:{N}|[^\W\d_]+) )
    (?:\)|(?![^\W\d_])) ,?
    """
)
_ALONE: Final = pattern(rf"[\s(\"'\u201c\[]* {N} [\s\u00b0%]* (?:[^\W\d_]+[\s.^]*){{0,3}} [\s.)\"'\u201d\]]*")


def check_predicate(predicate: str, given: str) -> None:
    """Check the text behind a number and its verb: "5 is the answer" gives 5, "5 is a factor" does not.

    Raises NoNumber.
    """
    if not predicate or _PREDICATE.fullmatch(predicate) or _NAME.fullmatch(predicate):
        return
    counted = re.search(rf"{N}\s+[^\W\d_]{{3,}}", given)
    if not counted or not _PLAIN_WORDS.fullmatch(predicate) or _SUBJECT_CHANGED.search(predicate):
        raise NoNumber(f"{shown(predicate)} is said of it")


def check_subject(left: str) -> None:
    """Check the text before "is" or an equals sign: a computation, a name, or words for what is asked.

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


@dataclass(frozen=True, slots=True)
class Statement:
    """The ``numbers`` that a text gives, if any, and the plain ``text`` that they stand in.

    ``why`` says why it gives none. ``alone`` says that the text is one number with at most three words behind
    it, its unit.
    """

    text: str
    numbers: tuple[Number, ...] = ()
    why: str = ""
    alone: bool = False

    @property
    def shown(self) -> str:
        """The numbers as they stand in the text, or the whole text if there are none."""
        if not self.numbers:
            return self.text
        return self.text[self.numbers[0].start : self.numbers[-1].end].strip()


@lru_cache(maxsize=4_096)
def read_number(text: str) -> Number | None:
    """The one number in ``text``, with sign, currency, unit and words allowed; None if there is another.

    None as well if a lone comma may separate two numbers, as in ``3,5``.
    """
    statement = read_statement(text) if len(text) <= _MAX_LENGTH and len(text.split("\n")) == 1 else None
    if statement is None or len(statement.numbers) != 1 or statement.numbers[0].comma:
        return None
    return statement.numbers[0] if len(find_in_plain(statement.text)) == 1 else None


def read_statement(text: str, *, units: Sequence[str] = (), last: bool = False) -> Statement:
    """The numbers of the first sentence of ``text`` that holds a digit, or with ``last`` of the last one.

    ``units`` may stand behind the numbers, whatever else their letters may mean.
    """
    lines = (line for line in (reversed if last else iter)(text.splitlines()) if _DIGIT.search(line))
    line = _SPACES.sub(" ", plain(_within_bounds(next(lines, ""), last)))
    sentences = [sentence for sentence in _sentences(line) if _DIGIT.search(sentence)]
    if not sentences:
        return Statement("")
    if not last and is_corrected(text):
        return Statement(sentences[0], why="it is corrected behind it")
    following = [*sentences[1:], *islice(lines, 1)]
    if not last and any(_A_NUMBER.fullmatch(sentence) for sentence in following):
        return Statement(sentences[0], why="another number stands behind it")
    return _read(sentences[-1 if last else 0], line, units)


def is_corrected(text: str) -> bool:
    """Whether a later sentence takes the first one back or doubts it."""
    lines = [_within_bounds(line, last=False) for line in text[:_MAX_LINE].splitlines() if line.strip()]
    sentences = [sentence for line in lines[:_LINES_CORRECTED] for sentence in _sentences(line)][1:]
    return any(_CORRECTION.search(sentence) or doubted(sentence) for sentence in sentences)


def _within_bounds(line: str, last: bool) -> str:
    """The begin or the end of a long line, in which no sentence that is short enough is cut."""
    if len(line) <= _MAX_LINE:
        return line
    return line[-_MAX_LINE:].partition(" ")[2] if last else line[:_MAX_LINE].rpartition(" ")[0]


def _sentences(line: str) -> Iterator[str]:
    start = 0
    for end in _SENTENCE_END.finditer(line):
        if not _ABBREVIATION.search(line[start : end.start()][-8:]):
            yield line[start : end.start()]
            start = end.end()
    yield line[start:]


def _read(sentence: str, line: str, units: Sequence[str]) -> Statement:
    if sentence.count("**") % 2:
        sentence = re.sub(r"\*\*(\W*)$", r"\1", sentence)
    if _DIGIT.search(unnumbered := _STEP.sub("", sentence)):
        sentence = unnumbered
    numbers = find_in_plain(sentence)
    try:
        if len(sentence) > _MAX_LENGTH or len(numbers) > MAX_NUMBERS:
            raise NoNumber("it is too long")
        if _LISTED.match(sentence) or (sentence != line and _LISTED.match(line)):
            raise NoNumber("it looks like the first entry of a list")
        shape = _shape(sentence, numbers, units)
        given = [numbers[ord(one) - FIRST] for one in _given(shape, numbers)]
    except NoNumber as error:
        return Statement(sentence, why=str(error))
    alone = sentence == line and _ALONE.fullmatch(shape) is not None
    return Statement(sentence, tuple(given), alone=alone)


def _shape(sentence: str, numbers: Sequence[Number], units: Sequence[str]) -> str:
    """The sentence with a single character for each number and its unit, if it is one of ``units``."""
    parts, end = [], 0
    for place, number in enumerate(numbers):
        parts += [sentence[end : number.start], chr(FIRST + place)]
        end = number.end + unit_length(number, units)
    shape = "".join([*parts, sentence[end:]])
    if not numbers or _STRAY_DIGIT.search(shape):
        raise NoNumber("it has digits that are no number")
    return shape


def _given(shape: str, numbers: Sequence[Number]) -> str:
    """The characters of the numbers that a shape gives; raises NoNumber."""
    shape = _essence(shape, numbers)
    values = computed = ""
    contexts: list[Place] = []
    denied, trouble = False, None
    clauses = [*_clauses(shape)]
    for clause in clauses:
        denied = bool(_NEGATION.search(clause)) or (denied and bool(_GOES_ON.match(clause)))
        if _BACKGROUND.match(clause) and clause is not clauses[-1]:
            continue
        if not re.search(N, clause) and _AMOUNT.match(clause):
            raise NoNumber(f"{shown(clause)} may change it")
        if denied or not re.search(N, clause):
            continue
        try:
            found, told, by_computing = _clause_numbers(clause)
        except NoNumber as error:
            trouble = error
            continue
        # For a conclusion, what stands before it was only the way; so are steps for the last result.
        if found and _CONCLUSION.match(clause.lstrip()):
            values, trouble = "", None
        elif by_computing and values == computed:
            values = ""
        values += found
        contexts += told
        computed = values if by_computing else computed
    if trouble is not None:
        raise trouble
    if not values and len(contexts) == 1:
        values = contexts[0].checked()
    if not values:
        raise NoNumber("it gives no number")
    _check_several(values, shape)
    return values


def _essence(shape: str, numbers: Sequence[Number]) -> str:
    """A shape without what only explains its numbers; raises NoNumber where it states none for certain."""
    shape = _unwrapped(_without_remarks(_without_precision(_BULLET.sub("", shape)), numbers))
    if _TRAILING.search(shape) or any(shape.count(pair[0]) != shape.count(pair[1]) for pair in ("()", "[]")):
        raise NoNumber("it goes on")
    if _RATIO.search(shape):
        raise NoNumber("it is a ratio or a time")
    if len(_KEY.findall(shape)) > 1:
        raise NoNumber("it has several fields")
    if _ARROW.search(shape):
        raise NoNumber("a name goes to it")
    if doubted(_INSTEAD.sub(" ", shape)):
        raise NoNumber("it is doubted")
    if supposed := _SUPPOSED.search(shape):
        raise NoNumber(f"{shown(supposed[0])} says that it may be another, or none")
    shape = _without_reasons(shape)
    if _CONDITION.search(shape):
        raise NoNumber("it holds only under a condition")
    return shape


def _check_several(values: str, shape: str) -> None:
    """Several numbers must be one value in other words: 0.5 or 50%, and not 5 feet 5 inches."""
    for one, other in pairwise(values):
        between = shape[shape.index(one) + 1 : shape.index(other)]
        if not _JOINED.search(between) or (re.search("[,;]", between) and "=" in between):
            raise NoNumber("it gives several numbers")


def _without_precision(shape: str) -> str:
    """Without what only tells how far a number was rounded."""
    without = _PRECISION.sub("", shape)
    return without if re.search(N, without) else shape


def _without_remarks(shape: str, numbers: Sequence[Number]) -> str:
    def checked(match: re.Match[str]) -> str:
        inside = match[0].strip()[1:-1].strip()
        before = re.search(rf"({N})\W*$", shape[: match.start()])
        if before and re.fullmatch(N, inside):
            one, other = numbers[ord(before[1]) - FIRST], numbers[ord(inside) - FIRST]
            return "" if one.equals(other, Fraction(0)) else match[0]
        if SUM.fullmatch(inside) or _EXPLAINED.match(inside):
            return "" if not _CORRECTION.search(inside) else match[0]
        return match[0] if re.search(N, inside) or _CHANGING_REMARK.search(inside) or not inside else ""

    without = _REMARK.sub(checked, shape)
    return without if re.search(N, without) else shape


def _unwrapped(shape: str) -> str:
    """Without brackets and quotation marks around the whole, or around a number alone."""
    shape = shape.strip()
    while (
        len(shape) > 1
        and (place := _OPENING.find(shape[0])) >= 0
        and shape.rstrip(".")[-1] == _CLOSING[place]
        and not re.search(rf"[,;{re.escape(shape[0])}]", shape[1:])
    ):
        shape = shape.rstrip(".")[1:-1].strip()
    for opening, closing in zip(_OPENING, _CLOSING, strict=True):
        shape = re.sub(
            rf"(?<![^\s=:]){re.escape(opening)}\s*({N})\s*{re.escape(closing)}(?![^\s.,;:?])", r"\1", shape
        )
    return shape


def _without_reasons(shape: str) -> str:
    shape = _LEADING_REASON.sub("", shape, count=1)
    for reason in _REASON.finditer(shape):
        if re.search(N, shape[: reason.start()]):
            behind = shape[reason.start() :].lstrip(" ,;-\u2014")
            if _CORRECTION.search(behind) or _NEGATION.match(behind):
                raise NoNumber("it is corrected behind it")
            return shape[: reason.start()]
    return shape


def _clauses(shape: str) -> Iterator[str]:
    """What stands between commas, "but" and conclusions, and where each has its own verb, between "and"s."""
    starts = {match.start() for begin in (_CONCLUSION, _INSTEAD) for match in begin.finditer(shape)}
    ends = {match.start(): match.end() for match in _CLAUSE.finditer(shape)}
    pieces, begin = [], 0
    for cut in sorted(starts | set(ends)):
        pieces.append(shape[begin:cut])
        begin = ends.get(cut, cut)
    for piece in [*pieces, shape[begin:]]:
        sides = _AND.split(piece)
        own = sum(bool(_RESULT.search(side)) and bool(re.search(N, side)) for side in sides)
        yield from sides if own > 1 else [piece]


def _clause_numbers(clause: str) -> tuple[str, list[Place], bool]:
    """The numbers that a clause gives, those that only tell when or for what, and whether it computes."""
    sides = _RESULT.split(clause)
    at = max(place for place, side in enumerate(sides) if re.search(N, side))
    # 8 = 5 + 3 says the value first.
    while at and SUM.fullmatch(sides[at]) and re.search(N, sides[at - 1]):
        at -= 1
    predicate = " ".join(side.strip(" .!") for side in sides[at + 1 :] if not SUM.fullmatch(side))
    check_predicate(predicate.strip(), sides[at])
    for left in sides[:at]:
        check_subject(left)
    left = sides[at - 1] if at else ""
    # 7 = 5 gives both; 22/7 \u2248 3.14 gives what it was rounded to.
    alone = re.fullmatch(rf"[\s(\"']*{N}[\s)\"']*", left) and "\u2248" not in clause
    places = [
        Place(_told(part[: match.start()]), match[0], _told(part[match.end() :]))
        for side in (sides[at - 1 : at + 1] if alone else [sides[at]])
        for part in _OR.split(side)
        for match in re.finditer(N, part)
    ]
    contexts = [place for place in places if _CONTEXT.search(place.before)]
    values = "".join(place.checked() for place in places if place not in contexts)
    return values, contexts, bool(re.search(N, left) and _COMPUTED.fullmatch(left))


def _told(text: str) -> str:
    """A text in which numbers that only tell when or for what are words."""
    return _CONTEXT_NUMBER.sub(r"\1these", text)

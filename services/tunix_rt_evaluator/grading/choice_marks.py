r"""Which options a line names, and where: by their letters, by their texts, or by both."""

from __future__ import annotations

import re
from collections.abc import Sequence
from string import ascii_uppercase
from typing import Final

from tunix_rt_evaluator.grading.graders.contains import places
from tunix_rt_evaluator.grading.languages import REASON
from tunix_rt_evaluator.grading.neighbours import pattern
from tunix_rt_evaluator.grading.normal_text import normalise, without_variants
from tunix_rt_evaluator.grading.spelling import UNSPACED, without_type

# In the shape of a line each option that is named is one character, by its place in these two ranges.
_BY_LETTER: Final = 0xE000
_BY_TEXT: Final = 0xE100
L: Final = f"[{chr(_BY_LETTER)}-{chr(_BY_LETTER + 25)}]"
"""An option by its letter, as a part of a regular expression."""
T: Final = f"[{chr(_BY_TEXT)}-{chr(_BY_TEXT + 25)}]"
"""An option by its text."""
M: Final = f"[{L[1:-1]}{T[1:-1]}]"
"""An option by either."""
_NEAR: Final = 48

_ALONE: Final = re.compile(
    r"(?:[-*>#|]+\s+)*(?:(?:option|choice|letter)\s+)?[*_`\"]*[(\[{]?[*_`]*([a-z])[*_`\"]*[)\]}]?[.:]?[*_`\"]*(?:\s*\|)?"
)
_LETTER: Final = re.compile(
    rf"(?<![^\W{UNSPACED}])(?:\(\s*(?P<round>[A-Za-z])\s*\)|\[\s*(?P<square>[A-Za-z])\s*\]"
    rf"|(?<![-+#'\u2019.^/\\!~\u00ac\u00b0])(?P<bare>[A-Z])(?![^\W{UNSPACED}]|-(?!\s)|['\u2019/+#^]\S|[+#'\u2019*=<>]|\.\d|\.[A-Za-z]\b))"
)
_LEAD: Final = r"""
    is|are|was|were|be|been|it|that|this|i['\u2019]d|it['\u2019]s|that['\u2019]s
  | say|says|said|think|believe|guess|choose|chose|pick|select|take|go|suggest
  | leaves?|leaving|means?|matches|choice|options?|letter|answer|statement|only|namely|probably|likely
  | definitely|clearly|certainly|perhaps|maybe|possibly|both|either|neither|nor|doubt|of|to|on
  | zweifel|doute|duda|dubbio|d\u00favida|w\u00fcrde|dirais|dir\u00eda|lo|il|s['\u2019]agit\ de
  | or|and|not|than|over|thought|prefer|while|although|though|whereas|since|i
  | between|in|at|with|for|but|except|unlike|because|although|if|so|thus|the|an?
  | correct|right|best|wrong|incorrect|eliminate|reject|rule\ out|actually|instead|rather|therefore|hence
  | ist|die|der|das|antwort|l\u00f6sung|m\u00f6glichkeit|variante|lautet|w\u00e4hle|nehme|f\u00fcr|also
      |sondern|w\u00e4re
  | nicht|oder|und|dass|vielleicht|statt
  | est|c['\u2019]est|la|le|les|l|d|de|lettre|choix|choisis|proposition|donc|mais|que|pour|plut\u00f4t
      |peut-\u00eatre
  | r[e\u00e9]ponse|pas|ou|et
  | es|el|letra|opci[o\u00f3]n|respuesta|elijo|escojo|por|sino|ser|ni|quiz\u00e1s?
  | no|y|o | \u00e9|op[c\u00e7][a\u00e3]o|resposta|n[a\u00e3]o|e
  | \u00e8|il|lettera|opzione|risposta|non|scelgo|escolho
  | \u043e\u0442\u0432\u0435\u0442|\u0432\u0430\u0440\u0438\u0430\u043d\u0442|\u044d\u0442\u043e
      |\u0432\u044b\u0431\u0438\u0440\u0430\u044e|\u043d\u0435
"""
_BEFORE: Final = pattern(
    rf"(?: ^ | [^\w\s'\u2019] | [{UNSPACED}{M[1:-1]}] | (?:^|[^\w'\u2019-])(?:{_LEAD}) )\W*$"
)
_BEGINNING: Final = re.compile(r"(?:^|[.!?:]\s+)(?:(?:the|an?)\s+)?$", re.IGNORECASE)
_MARKS: Final = "\uff0c\u3002\uff1b\uff1a\u3001\uff01\uff1f\u2705\u2713\u2714\u2026"
_NAMED: Final = pattern(
    r"\b(?:option|choice|letter|answer|antwort|letra|lettre|opci[o\u00f3]n|r[e\u00e9]ponse|respuesta)\W*$"
)
_AFTER: Final = pattern(
    rf"""
    [\s"'\u201c\u201d\u2018\u2019*_`$)}}\]|]* (?: $ | [.,;:!?(\u2014\u2013&/<>{_MARKS}]
      | -\s | [{UNSPACED}] | {M}
      | (?:is|are|was|isn['\u2019]t|wasn['\u2019]t|seems?|looks|appears|feels|sounds|would|must|should
      |can|cannot|will
          |might|may|could
          |can['\u2019]t|and|or|nor|but|not|rather|instead|it\ is|only|here|too|in|on|of|as|to|for|remains
          |correct|right|wrong|incorrect|false|true|definitely|i|probably
          |w\u00e4hlen|nehmen|sagen|sein|richtig|korrekt|falsch|stimmt|correcte?|exacte?|juste|fausse?|corret[ao]|corrett[ao]|incorrect[ao]|correct[ao]|c|\u00e7a
          |ist|w\u00e4re|scheint|oder|und|nicht|est|serait|semble|ou|et|es|ser\u00eda|parece|o|y|\u00e9|e
          |\u00e8|sino|sondern|mais)\b
      | {REASON} )
    """
)
_UNNAMED: Final = re.compile(
    rf"(?<![\w'\u2019])([A-Z])(?=\W{{1,8}}(?:(?:text\W*)?(?:and|or|nor|y|o|et|ou|und|oder)\b)?\W{{0,6}}{M})"
)
# A small letter at the end of a statement, as in "the answer is b".
_SMALL: Final = pattern(
    r"(?P<lead>\b(?:answer|option|choice|letter|it|that|antwort|respuesta|r\u00e9ponse|opci\u00f3n)"
    r"(?:\s+(?:is|ist|est|es|lautet))?:?\s+[\"'(]?)(?P<small>[a-z])(?=[\"')]*(?:[.!,;]|\s*$))"
)
_COMMAND: Final = re.compile(r"\\(?!text|math|bf|rm|quad|left|big)[a-z]+[^\w\\]*$|[\u00ac~]\s*$")
_PAIR: Final = re.compile(rf"({L})[\s).:,\]\"'*_=\u2013\u2014-]{{1,6}}(?:is\s+)?\(?({T})\)?")
_BEGINS: Final = re.compile(rf"^[\s>|*_\"'`#-]{{0,8}}({L})(?=[).:\]]\s+\w|\s*[-\u2013\u2014]\s+\w|\s+{T})")
# Beside letters of scripts that set no words apart as well.
_BOLD: Final = re.compile(r"(?<!\*)\*{1,3}(\(?[A-Za-z]\)?)\*{1,3}(?!\*)")
_STRUCK: Final = re.compile(r"</?(?:s|del|strike)\b[^<>\n]{0,40}>", re.IGNORECASE)
_TAG: Final = re.compile(r"</?[a-zA-Z|][^<>\n]{0,40}>")


def place(mark: str) -> int:
    """The place of an option, by its mark in a shape."""
    return (ord(mark) - _BY_LETTER) % (_BY_TEXT - _BY_LETTER)


def index(letter: str) -> int:
    """The place of an option by its letter."""
    return ascii_uppercase.index(letter.upper())


def cleaned(text: str) -> str:
    """A text without what only sets it in type: tags, LaTeX's text commands, emphasis, forms of letters."""
    return without_type(_BOLD.sub(r"\1", _TAG.sub("", _STRUCK.sub("~", without_variants(text)))))


def shape_of(line: str, options: Sequence[str]) -> str:
    """A cleaned line with one character for each option that it names."""
    if (alone := _alone(line, options)) is not None:
        return chr(_BY_LETTER + alone)
    for at in sorted(range(len(options)), key=lambda at: -len(options[at])):
        wanted = normalise(options[at])
        if len(wanted) == 1 and wanted.isalpha() and not re.match(f"[{UNSPACED}]", wanted):
            continue
        for start in reversed(list(places(wanted, line.lower(), whole_words=True))) if wanted else ():
            before, behind = line[:start], line[start + len(wanted) :]
            framed = _BEFORE.search(before[-_NEAR:]) and _AFTER.match(behind[:_NEAR])
            if framed or _BEGINNING.search(before):
                line = before + chr(_BY_TEXT + at) + behind
    for letter in reversed(list(_LETTER.finditer(line))):
        at, before, behind = (
            index(letter[letter.lastgroup or 0]),
            line[: letter.start()],
            line[letter.end() :],
        )
        if at >= len(options):
            continue
        if letter["bare"] is None or _names(letter["bare"], before[-_NEAR:], behind[:_NEAR]):
            line = before + chr(_BY_LETTER + at) + behind
        elif letter["bare"] not in "AI" and not _COMMAND.search(before[-_NEAR:]):
            # Of a letter that may be a part of a name, as of vitamin C, no more is said than of a text.
            line = before + chr(_BY_TEXT + at) + behind
    line = _SMALL.sub(lambda one: _small(one, len(options)), line)
    line = _UNNAMED.sub(lambda one: _second(one, len(options)), line)
    return _PAIR.sub(lambda pair: pair[1] if place(pair[1]) == place(pair[2]) else pair[0], line)


def entry(shape: str) -> tuple[int, str] | None:
    """The option that a line begins with as an entry of a list, and what the line says behind its letter."""
    begins = _BEGINS.match(shape)
    return (place(begins[1]), shape[begins.end() :].lstrip(").:]-\u2013\u2014 ")) if begins else None


def _small(one: re.Match[str], count: int) -> str:
    at = index(one["small"])
    return one["lead"] + (chr(_BY_LETTER + at) if at < count else one["small"])


def _second(letter: re.Match[str], count: int) -> str:
    """A letter beside an option that is named, as in "plans A and B", is one as well; an article is none."""
    article = letter[1] == "A" and re.match(rf"\s+{T}", letter.string[letter.end() : letter.end() + _NEAR])
    return letter[1] if article or index(letter[1]) >= count else chr(_BY_LETTER + index(letter[1]))


def _names(letter: str, before: str, behind: str) -> bool:
    """Whether a letter names an option: not an article, a pronoun or a part of a name."""
    # In French "A car" may be "A because"; in English it is a car.
    follows = {"A": rf"\s+(?:{T}|car\b)", "I": r"\s+\w"}.get(letter)
    if follows and re.match(follows, behind):
        return False
    if _COMMAND.search(before):
        return False
    return bool(
        _NAMED.search(before)
        or (_BEFORE.search(before) and (re.match(r"[).:\]]", behind) or _AFTER.match(behind)))
    )


def _alone(line: str, options: Sequence[str]) -> int | None:
    """The option that is all of a line: its text, its letter, or one behind the other."""
    asked = re.search(r"[?\uff1f]", line) is not None
    if asked and not any(option.strip().endswith("?") for option in options):
        return None
    wanted = normalise(line)
    for at, option in enumerate(options):
        letter = ascii_uppercase[at]
        texts = {normalise(f"{letter}{mark} {option}") for mark in ("", ".", ")", ":")}
        if wanted in texts | {normalise(option)}:
            return at
    found = None if asked else _ALONE.fullmatch(wanted)
    return index(found[1]) if found and index(found[1]) < len(options) else None

r"""Reads what stands in ``\boxed{...}``, and outside what makes another value of it, as in ``-\boxed{5}``."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Final, NamedTuple

_BOXED: Final = re.compile(r"\\(?:f?boxed|fbox)\s*\{")
# An escaped one is a brace of its own, as of a set, and closes nothing.
_BRACE: Final = re.compile(r"\\.|[{}]", re.DOTALL)
# Between boxes that are offered side by side, as in \boxed{1} or \boxed{2}.
_BESIDE: Final = re.compile(
    r"[\s$]*(?:[,;]|,?\s*(?:and|or|\\text\s*\{\s*(?:and|or)\s*\}))[\s$]*", re.IGNORECASE
)
_WORDS: Final = re.compile(r"\s*\\(?:text|textbf|mathrm)\s*\{([^{}]*)\}\s*")

_NEAR: Final = 400
_DELIMITER: Final = re.compile(
    r"\\\\(?:\[[^\[\]\n]*\])?|(?<!\\)\\[()\[\]]|(?<!\\)\$+|\n|\\(?:begin|end)\{[a-zA-Z*]+\}|[.?!](?=\s)"
)
_DOLLARS: Final = re.compile(r"(?<!\\)\$+")
_OPENED: Final = re.compile(r"(?<!\\)\\[(\[]|\\begin\{(?:align|equation|gather|multline|displaymath|math)")
_CLOSED: Final = re.compile(r"(?<!\\)\\[)\]]|\\end\{(?:align|equation|gather|multline|displaymath|math)")
_LAYOUT: Final = r"(?:\s|~|&|\\[,;:!>\ ]|\\q?quad(?![a-zA-Z])|\\displaystyle(?![a-zA-Z]))*"
_OPERATOR: Final = r"""
    \\(?:pm|mp|times|cdot|ast|div|neq?|leq?|leqslant|geq?|geqslant|lt|gt|not|surd|circ|degree|cup|cap|setminus|in
        |notin|bmod|pmod|mod|land|lor|[lr]?[vV]ert|[lr]floor|[lr]ceil|left|right|pi|infty|sqrt|[dtc]?frac
        |(?:arc)?(?:sin|cos|tan)h?|cot|sec|csc|ln|log|exp|max|min|gcd|det)(?![a-zA-Z])
  | \\%
  | [-+*/^_<>|%'\u00d7\u00f7\u00b1\u2213\u2212\u221a\u00b0\u2260\u2264\u2265\u00b7\u22c5\u222a\u2229\u2208]
  | \\(?:text|mbox|mathrm)\s*\{\s*(?:or|and|to)\s*\}
"""
_LETTER: Final = r"(?<![a-zA-Z\\])[a-zA-Z]"
_PART_BEFORE: Final = re.compile(
    rf"""(?: {_OPERATOR} | \d | {_LETTER} | [!)(\]\[] | \\\{{ | \\\}}
      | [\^_]\s*\{{ | \\(?:[dtc]?frac|[dt]?binom|sqrt(?:\[[^\[\]]*\])?)\s*(?:\{{[^{{}}]*\}}\s*)?\{{
      | (?<!\\)\}}
    ) {_LAYOUT} \Z""",
    re.VERBOSE,
)
_PART_BEHIND: Final = re.compile(
    rf"{_LAYOUT} (?: {_OPERATOR} | \d | [a-zA-Z](?![a-zA-Z]) | [!)(\]\[] | \\\}} | \}}\s*\{{ )", re.VERBOSE
)
# In a sentence only what touches a box, or a relation before it, can belong to it.
_TOUCHES_BEFORE: Final = re.compile(
    rf"(?<![-\w])[-+\u2212\u00b1\u221a]\Z | [\d)/^\u221a]\Z | {_LETTER}\Z"
    r"| \w\s*(?:[<>\u2260\u2264\u2265]|\\(?:neq?|leq?|geq?|lt|gt))\s*\Z",
    re.VERBOSE,
)
_TOUCHES_BEHIND: Final = re.compile(r"\\?%|\^|\\circ|\u00b0|[-+*/]?\d|[a-zA-Z](?![a-zA-Z])|!\^|[-+*/]\\")
_LAST_WORD: Final = re.compile(r"(?:\S+\s*(?:[<>\u2260\u2264\u2265]|\\[a-z]+)\s*|\S*)\Z")
_SAID_IN_WORDS: Final = re.compile(rf"\\(?:text[a-z]*|mbox|mathrm)\s*\{{([^{{}}]*)\}}{_LAYOUT}\Z", re.VERBOSE)
_FIRST_WORD: Final = re.compile(r"\S*")
_PART_WORDS: Final = re.compile(r"\s*(?:or|and|to|.*\bnot)\s*", re.DOTALL)
_TAG: Final = re.compile(r"</?[a-zA-Z][\w-]*>\s*\Z")
_BARE: Final = re.compile(r"[\w.,]+")
_DENIED_BEFORE: Final = re.compile(
    r"(?:\bnot|n['\u2019]t|\bnever|\bcannot)(?:\s+(?:be|equal|equals|to|the|answer|is|simply|just))*[\s:]*\Z",
    re.IGNORECASE,
)
_DENIED_BEHIND: Final = re.compile(
    r"""[\s$*\\)\]]* (?:is|was|would\ be|can(?:not)?\ be)? \s*
    (?: (?:not|n['\u2019]t) \s+ (?:the\ (?:\w+\ )?(?:answer|solution|result)|correct|right|possible|valid)\b
      | (?<=\s)(?:wrong|incorrect|false|impossible|invalid)\b )""",
    re.VERBOSE | re.IGNORECASE,
)


class Box(NamedTuple):
    """What a box says, or several side by side, and where they begin and end in the text; ``alone`` where
    nothing outside of it belongs to what it says."""

    text: str
    begin: int
    end: int
    alone: bool = True


def last_boxed(text: str, start: int) -> Box | None:
    r"""What the last ``\boxed{...}`` from ``start`` on holds, and those beside it; where it is only a part of
    a formula, that formula. "" where it is not closed or denied, None where there is none."""
    opened = list(_BOXED.finditer(text, start))
    if not opened:
        return None
    first = opened[-1]
    inside = _braced(text, first.end(), len(text))
    if inside is None or not inside.strip():
        return Box("", first.start(), len(text))
    end = first.end() + len(inside) + 1
    found = [inside]
    for before, box in reversed(list(pairwise(opened))):
        inside = _braced(text, before.end(), box.start())
        if inside is None or not _BESIDE.fullmatch(text, before.end() + len(inside) + 1, box.start()):
            break
        found.append(inside)
        first = before
    if len(found) == 1:
        said = _in_context(text, first, found[0])
        return Box(said, first.start(), end, alone=said == _words(found[0]))
    return Box(", ".join(_words(entry) for entry in reversed(dict.fromkeys(found))), first.start(), end)


def _in_context(text: str, box: re.Match[str], inside: str) -> str:
    """What a box holds, or the formula that it is a part of; "" where it is denied."""
    end = box.end() + len(inside) + 1
    before, behind = text[max(0, box.start() - _NEAR) : box.start()], text[end : end + _NEAR]
    if _DENIED_BEFORE.search(before.rstrip("$ *\\([")) or _DENIED_BEHIND.match(behind):
        return ""
    delimiters = list(_DELIMITER.finditer(before))
    near = before[delimiters[-1].end() :] if delimiters else before
    closing = _DELIMITER.search(behind)
    rest = behind[: closing.start()] if closing else behind
    if not _in_formula(text, box.start()):
        return _touched(near, inside, rest)
    said = _SAID_IN_WORDS.search(near)
    if _PART_WORDS.fullmatch(said[1]) if said else _PART_BEFORE.search(near):
        return _joined(near, inside, rest)
    if _PART_BEHIND.match(rest):
        return _joined("" if said else near, inside, rest)
    # The formula may be a part, too, as in -$\\boxed{5}$.
    alone_before = delimiters and "$" in delimiters[-1][0] and not near.strip()
    alone_behind = closing and "$" in closing[0] and not rest.strip()
    return _touched(
        before[: delimiters[-1].start()] if alone_before else "",
        inside,
        behind[closing.end() :] if closing and alone_behind else "",
    )


def _touched(before: str, inside: str, behind: str) -> str:
    """What a box in a sentence holds, with what touches it where that belongs to it."""
    before = _TAG.sub("", before)
    if not _TOUCHES_BEFORE.search(before) and not _TOUCHES_BEHIND.match(behind):
        return _words(inside)
    word, touching = _LAST_WORD.search(before), _FIRST_WORD.match(behind)
    return _joined(word[0] if word else "", inside, touching[0] if touching else "")


def _in_formula(text: str, place: int) -> bool:
    """Whether mathematics are open at a place: by dollar signs in its line or before, or by brackets."""
    line = text[text.rfind("\n", 0, place) + 1 : place]
    if sum(len(run[0]) == 1 for run in _DOLLARS.finditer(line)) % 2:
        return True
    if sum(len(run[0]) > 1 for run in _DOLLARS.finditer(text, 0, place)) % 2:
        return True
    last = [
        max((each.start() for each in pattern.finditer(text, 0, place)), default=-1)
        for pattern in (_OPENED, _CLOSED)
    ]
    return last[0] > last[1]


def _joined(before: str, inside: str, behind: str) -> str:
    touches = re.search(r"[\w}]\Z", before) or re.match(r"[\w^!{(]", behind)
    held = inside if _BARE.fullmatch(inside) and not touches else f"{{{inside}}}"
    return f"{before.replace('&', ' ')}{held}{behind}".strip().rstrip(".,;:")


def _words(boxed: str) -> str:
    words = _WORDS.fullmatch(boxed)
    return (words[1] if words else boxed).strip()


def _braced(text: str, begin: int, end: int) -> str | None:
    depth = 1
    for brace in _BRACE.finditer(text, begin, end):
        depth += {"{": 1, "}": -1}.get(brace[0], 0)
        if not depth:
            return text[begin : brace.start()]
    return None

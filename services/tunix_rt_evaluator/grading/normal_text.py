"""Texts as they are compared: without what carries no meaning, and with all that does."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

_QUOTES: Final = str.maketrans({"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"'})
_ENCLOSING: Final = (
    ('"', '"'),
    ("'", "'"),
    ("`", "`"),
    ("\u00ab", "\u00bb"),
    ("\u00bb", "\u00ab"),
    ("\u201e", '"'),
    ("\u300c", "\u300d"),
    ("\u300e", "\u300f"),
    ("***", "***"),
    ("**", "**"),
    ("*", "*"),
    ("__", "__"),
    ("_", "_"),
    ("$", "$"),
)
_INVISIBLE: Final = re.compile("[\u00ad\u200b\u2060\ufeff]")
# A lower index behind a letter, as in a chemical formula. Behind a digit it tells a base.
_LOWER_INDEX: Final = re.compile("(?<=[^\\W\\d_])[\u2080-\u2089]+")
# Ways to write the same characters. Raised digits, fractions and digits in circles are others.
_SAME: Final = ("<wide>", "<narrow>", "<small>", "<compat>", "<noBreak>", "<vertical>")
_SENTENCE_MARKS: Final = ".!?\u3002\uff01\uff1f"
_FACTORIAL: Final = re.compile(r"(?:[\d)\]}]|\b\w)[!\uff01]$")
# Python's names such as __init__ are no emphasis.
_NAME: Final = re.compile(r"__[a-z0-9_]+__")
SENTENCE_END: Final = re.compile(r"(?:\.|(?<![\d)\]}])(?<!\b\w)!)(?=\s|$)")
"""Where a statement ends. An exclamation mark behind a digit, a bracket or a single letter is a factorial;
what ends in a question mark states nothing."""


def normalise(text: str) -> str:
    """``text`` without case, with single spaces, and without quotation marks, Markdown emphasis or dollar
    signs around the whole, and one sentence mark at its end."""
    folded = unicodedata.normalize("NFC", without_variants(text).translate(_QUOTES).casefold())
    # Folded first: of one letter that becomes two, a mark behind it is no factorial.
    bare = " ".join(folded.split())
    while (inside := _without_mark(_without_enclosing(bare))) != bare:
        bare = inside
    return bare


def without_variants(text: str) -> str:
    """``text`` with each character in its usual form: ligatures, wide and narrow forms, and the lower indices
    of chemical formulas become plain ones, and what is not seen goes."""
    text = unicodedata.normalize("NFC", _INVISIBLE.sub("", text))
    if text.isascii():
        return text
    text = "".join(_plain(character) for character in text)
    return _LOWER_INDEX.sub(lambda index: unicodedata.normalize("NFKC", index[0]), text)


def _plain(character: str) -> str:
    if character.isascii() or not unicodedata.decomposition(character).startswith(_SAME):
        return character
    return unicodedata.normalize("NFKC", character)


def _without_enclosing(text: str) -> str:
    for begin, end in _ENCLOSING:
        inside = text[len(begin) : -len(end)]
        if (
            text.startswith(begin)
            and text.endswith(end)
            and inside.strip()
            and not any(mark in inside.strip(begin[0] + end[0]) for mark in (begin, end))
            and not _NAME.fullmatch(text)
        ):
            return inside.strip()
    return text


def _without_mark(text: str) -> str:
    """Without one sentence mark; several in a row say more than that a sentence ends."""
    before = text[:-1].rstrip()
    if not before or text[-1] not in _SENTENCE_MARKS or before[-1] in _SENTENCE_MARKS:
        return text
    return text if _FACTORIAL.search(text) else before

"""Texts as they are compared."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

_ARTICLE: Final = re.compile(r"(?:a|an|the)\s+(?=\S)")
_QUOTES: Final = str.maketrans({"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "`": "'"})


def normalise(text: str) -> str:
    """``text`` for comparison: NFKC, case folded, single spaces, no outer punctuation, no first article."""
    folded = unicodedata.normalize("NFKC", text).translate(_QUOTES).casefold()
    words = _strip_punctuation(" ".join(folded.split()))
    return _strip_punctuation(_ARTICLE.sub("", words, count=1) if _ARTICLE.match(words) else words)


def _strip_punctuation(text: str) -> str:
    start, end = 0, len(text)
    while start < end and _outer(text[start]):
        start += 1
    while end > start and _outer(text[end - 1]):
        end -= 1
    return text[start:end] or text


def _outer(character: str) -> bool:
    return character.isspace() or unicodedata.category(character).startswith("P") or character == "$"

"""Texts compared as people read them."""

from __future__ import annotations

import unicodedata
from typing import Final

# What a byte of ASCII becomes: a small letter, and a space for what Python takes for white space.
_SMALL: Final = "".join(" " if chr(code).isspace() else chr(code).lower() for code in range(128))
_ASCII: Final = _SMALL.encode() + bytes(128)


def normalised(text: str) -> str:
    """``text`` in Unicode NFKC, case folded, with runs of white space as one space and none at the ends."""
    if text.isascii():
        # Of such a text it is the same, without an object for each word.
        plain = text.encode().translate(_ASCII).strip()
        return (b" ".join(plain.split()) if b"  " in plain else plain).decode()
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())

"""Texts as people compare and read them."""

from __future__ import annotations

import unicodedata
from typing import Final

from tunix_rt.escapes import visible as visible
from tunix_rt.escapes import visible_json as visible_json

# Each character of ASCII in lower case; white space as a space.
_SMALL: Final = "".join(" " if chr(code).isspace() else chr(code).lower() for code in range(128))
_ASCII: Final = _SMALL.encode() + bytes(128)


def normalised(text: str) -> str:
    """``text`` in Unicode NFKC, case folded, each run of white space as one space, none at the ends."""
    if text.isascii():
        # Gives the same, without an object for each word.
        plain = text.encode().translate(_ASCII).strip()
        return (b" ".join(plain.split()) if b"  " in plain else plain).decode()
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())

"""Texts as people compare and read them."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

# Each character of ASCII in lower case; white space as a space.
_SMALL: Final = "".join(" " if chr(code).isspace() else chr(code).lower() for code in range(128))
_ASCII: Final = _SMALL.encode() + bytes(128)
# Characters that a terminal, an editor or a browser obeys instead of showing: control characters but line
# feed and tab, Unicode's Bidi_Control characters (UAX #9), and line separators.
_OBEYED: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufff9-\ufffb]"
)


def normalised(text: str) -> str:
    """``text`` in Unicode NFKC, case folded, each run of white space as one space, none at the ends."""
    if text.isascii():
        # Gives the same, without an object for each word.
        plain = text.encode().translate(_ASCII).strip()
        return (b" ".join(plain.split()) if b"  " in plain else plain).decode()
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def visible(text: str) -> str:
    r"""The text, with characters that programs obey written as readable escapes such as ``\x1b``."""
    return _OBEYED.sub(lambda match: _escape(ord(match[0])), text)


def visible_json(text: str) -> str:
    r"""A JSON document with such characters as ``\uXXXX``; it reads as the same value."""
    return _OBEYED.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _escape(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"

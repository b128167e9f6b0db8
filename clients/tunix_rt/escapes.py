"""Characters that a terminal, an editor or a browser obeys instead of showing, written as escapes.

The command line, the services' logs and the reports use this one rule.
"""

from __future__ import annotations

import re
from typing import Final

OBEYED: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufff9-\ufffb]"
)
"""Control characters except line feed and tab, Unicode's Bidi_Control characters (UAX #9), which change the
order in which a line is read, and line separators."""


def visible(text: str) -> str:
    r"""The text, with characters that programs obey written as readable escapes such as ``\x1b``."""
    return OBEYED.sub(lambda match: _escape(ord(match[0])), text)


def visible_json(document: str) -> str:
    r"""A JSON document with such characters as ``\uXXXX``; it reads as the same value."""
    return OBEYED.sub(lambda match: f"\\u{ord(match[0]):04x}", document)


def _escape(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"

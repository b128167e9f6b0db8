"""Texts compared as people read them."""

from __future__ import annotations

import unicodedata


def normalised(text: str) -> str:
    """``text`` in Unicode NFKC, case folded, with runs of white space as one space and none at the ends."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())

"""Forms in which equal things are equal: canonical JSON (RFC 8785), digests, and texts to be compared.

A digest is ``sha256:`` and 64 hex digits.
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections.abc import Mapping
from typing import Any, Final

import orjson
import rfc8785

from tunix_rt_kit.errors import InvalidArgument
from tunix_rt_kit.regular_files import open_regular

_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_MAX_INTEGER: Final = (1 << 53) - 1
# Each character of ASCII in lower case; white space as a space.
_SMALL: Final = "".join(" " if chr(code).isspace() else chr(code).lower() for code in range(128))
_ASCII: Final = _SMALL.encode() + bytes(128)


CanonicalPart = orjson.Fragment
"""Canonical JSON that ``canonical_line`` copies as it is."""


def canonical_json(obj: Any) -> bytes:
    """Encode ``obj`` (dicts with string keys, lists, strings, numbers, booleans, None) as RFC 8785 does.

    Raises:
        InvalidArgument: the value has no canonical form (NaN, an integer beyond 2**53 - 1, a lone
            surrogate, a type that JSON does not know).
    """
    try:
        if _is_simple(obj):
            # Without fractions and keys beyond ASCII this writes what RFC 8785 asks for, many times faster.
            try:
                return orjson.dumps(obj, option=orjson.OPT_SORT_KEYS)
            except orjson.JSONEncodeError:
                pass  # It nests too deep, or has no canonical form: the next line tells which.
        return rfc8785.dumps(obj)
    except (rfc8785.CanonicalizationError, UnicodeEncodeError, RecursionError) as error:
        raise InvalidArgument(
            f"value has no canonical JSON form: {error}", reason="JSON_NOT_CANONICAL"
        ) from error


def canonical_line(fields: Mapping[str, Any]) -> bytes:
    """The canonical JSON of an object whose fields are known, and a line break; much faster than the above.

    Args:
        fields: texts, integers of 32 bits, ``CanonicalPart``s, and lists and dicts of these, under ASCII
            keys. Only lone surrogates are refused; nothing else is checked.

    Raises InvalidArgument(JSON_NOT_CANONICAL).
    """
    try:
        return orjson.dumps(fields, option=orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE)
    except orjson.JSONEncodeError as error:
        raise InvalidArgument(
            f"value has no canonical JSON form: {error}", reason="JSON_NOT_CANONICAL"
        ) from error


def _is_simple(obj: Any) -> bool:
    kind = type(obj)
    if kind is str or kind is bool or obj is None:
        return True
    if kind is int:
        return bool(-_MAX_INTEGER <= obj <= _MAX_INTEGER)
    if kind is dict:
        return all(type(key) is str and key.isascii() and _is_simple(value) for key, value in obj.items())
    if kind is list or kind is tuple:
        return all(map(_is_simple, obj))
    return False


def digest_bytes(data: bytes) -> str:
    """SHA-256 of ``data`` as a digest string."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def digest_json(obj: Any) -> str:
    """Digest of the canonical JSON of ``obj``; raises as ``canonical_json``."""
    return digest_bytes(canonical_json(obj))


class ListDigest:
    """The digest that ``digest_json`` gives a list, for entries that come one by one."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256(b"[")
        self._separator = b""

    def add(self, entry: Any) -> None:
        """Add the next entry; raises as ``canonical_json``."""
        data = canonical_json(entry)
        self._hash.update(self._separator + data)
        self._separator = b","

    @property
    def value(self) -> str:
        """The digest of the list of the entries so far."""
        whole = self._hash.copy()
        whole.update(b"]")
        return f"sha256:{whole.hexdigest()}"


def digest_file(path: str | os.PathLike[str]) -> str:
    """Digest of a regular local file's bytes; raises OSError if it cannot be read."""
    with open_regular(path) as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def check_digest(digest: str, field: str = "digest") -> str:
    """The 64 hex digits of a digest; raises InvalidArgument(DIGEST_INVALID) that names ``field``."""
    match = _DIGEST.fullmatch(digest)
    if match is None:
        raise InvalidArgument(
            f"{field}: {digest!r} is not a digest; expected sha256: and 64 lower-case hex digits",
            reason="DIGEST_INVALID",
            metadata={"field": field},
        )
    return match.group(1)


def normalised(text: str) -> str:
    """``text`` in Unicode NFKC, case folded, each run of white space as one space, none at the ends."""
    if text.isascii():
        # Gives the same, without an object for each word.
        plain = text.encode().translate(_ASCII).strip()
        return (b" ".join(plain.split()) if b"  " in plain else plain).decode()
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())

"""Opaque keyset page tokens: where the last page ended, and the filter that it was made for."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from tunix_rt_kit.artifacts.canonical import canonical_json
from tunix_rt_kit.errors import FieldViolation, InvalidArgument

DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 1000
_CHECKSUM_BYTES = 8


def page_size(value: int, default: int = DEFAULT_PAGE_SIZE, maximum: int = MAX_PAGE_SIZE) -> int:
    """Rows of one page: ``default`` for 0, at most ``maximum``; raises InvalidArgument on ``page_size``
    below 0."""
    if value < 0:
        raise _invalid(
            "page_size", f"{value} is negative; use 0 for the default of {default}, or 1 to {maximum}"
        )
    return min(value, maximum) or default


def encode_page_token(position: Mapping[str, Any], filter_digest: str) -> str:
    """A token for the page after ``position`` (JSON values by column) of the listing that ``filter_digest``
    names."""
    payload = canonical_json({"after": dict(position), "filter": filter_digest})
    return base64.urlsafe_b64encode(_checksum(payload) + payload).rstrip(b"=").decode("ascii")


def decode_page_token(token: str, filter_digest: str) -> dict[str, Any] | None:
    """The position of a token that ``encode_page_token`` made for the same filter; None for an empty token.

    Raises InvalidArgument(PAGE_TOKEN_INVALID) on ``page_token`` for a token that was made up, cut short, or
    made for another filter.
    """
    if not token:
        return None
    try:
        raw = base64.b64decode(
            token.encode("ascii") + b"=" * (-len(token) % 4), altchars=b"-_", validate=True
        )
    except (UnicodeEncodeError, binascii.Error, ValueError) as error:
        raise _made_up() from error
    checksum, payload = raw[:_CHECKSUM_BYTES], raw[_CHECKSUM_BYTES:]
    if checksum != _checksum(payload):
        raise _made_up()
    content = json.loads(payload)
    if content["filter"] != filter_digest:
        raise _invalid(
            "page_token", "it belongs to a listing with another filter; start again without a page token"
        )
    position: dict[str, Any] = content["after"]
    return position


def _checksum(payload: bytes) -> bytes:
    return hashlib.sha256(b"tunix-rt page token\0" + payload).digest()[:_CHECKSUM_BYTES]


def _made_up() -> InvalidArgument:
    return _invalid(
        "page_token", "it is not a token that this service gave; use next_page_token of the page before"
    )


def _invalid(field: str, description: str) -> InvalidArgument:
    return InvalidArgument(
        f"{field}: {description}",
        reason=f"{field.upper()}_INVALID",
        violations=[FieldViolation(field, description)],
    )

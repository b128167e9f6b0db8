"""Opaque keyset page tokens: where the last page ended, and the filter that it was made for."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from tunix_rt_kit.artifacts.canonical import canonical_json, digest_json
from tunix_rt_kit.errors import FieldViolation, InvalidArgument
from tunix_rt_kit.values import Page

T = TypeVar("T")

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


class Paging:
    """Which page of a listing a caller wants.

    Args:
        size: rows of the page, 0 for the default.
        token: from the page before, empty for the first page.
        most: rows of the largest page.
        listing: what the listing is of (JSON values), such as ``method`` and ``parent``. A token belongs to
            one listing.

    Raises:
        InvalidArgument: PAGE_SIZE_INVALID, PAGE_TOKEN_INVALID.
    """

    def __init__(self, size: int, token: str, *, most: int = MAX_PAGE_SIZE, **listing: Any) -> None:
        self.limit = min(page_size(size), most)
        self._listing = digest_json(listing)
        self._position = decode_page_token(token, self._listing) or {}

    def after(self, field: str) -> Any:
        """This field of the last row of the page before; None on the first page."""
        return self._position.get(field)

    def page(self, found: Sequence[T], position: Callable[[T], Mapping[str, Any]]) -> Page[T]:
        """The page, where ``found`` are its rows and at most one more, which tells that pages follow."""
        if len(found) <= self.limit:
            return Page(found, "")
        kept = found[: self.limit]
        return Page(kept, self.token(position(kept[-1])))

    def token(self, position: Mapping[str, Any]) -> str:
        """The token of the page after the row at ``position``."""
        return encode_page_token(position, self._listing)


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

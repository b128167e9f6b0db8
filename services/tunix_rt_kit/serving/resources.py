"""Names of resources, and pages of lists of them."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, TypeVar

import uuid_utils

from tunix_rt_kit.artifacts.canonical import canonical_json, digest_json
from tunix_rt_kit.errors import InvalidArgument
from tunix_rt_kit.values import Page

ID_RULE = "1 to 64 characters of a-z, 0-9, dot, underscore and hyphen, starting with a letter or digit"
_ID = r"[a-z0-9][a-z0-9._-]{0,63}"
_VARIABLE = re.compile(r"\{([a-z_]+)\}")
T = TypeVar("T")
DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 1000
_CHECKSUM_BYTES = 8
_MADE_UP = "it is not a token that this service gave; use next_page_token of the page before"


def new_id() -> str:
    """A new id: a version 7 UUID in lower case. Ids sort by the time at which they were made."""
    return str(uuid_utils.uuid7())


def check_id(value: str, field: str) -> str:
    """``value``, if it is an id; raises InvalidArgument(RESOURCE_ID_INVALID) on ``field``."""
    if not re.fullmatch(_ID, value):
        raise InvalidArgument.of_field(
            field, f"{value!r} is not an id; it must be {ID_RULE}", reason="RESOURCE_ID_INVALID"
        )
    return value


def parse_names(pattern: str, name: str, field: str = "name") -> dict[str, str]:
    """The ids in a resource name by variable: ``trainingJobs/{job}/checkpoints/{checkpoint}``.

    Raises InvalidArgument(RESOURCE_NAME_INVALID) on ``field`` if ``name`` is not of this pattern.
    """
    match = _compiled(pattern).fullmatch(name)
    if match is None:
        problem = f"{name!r} is not of the form {pattern} (an id is {ID_RULE})"
        raise InvalidArgument.of_field(field, problem, reason="RESOURCE_NAME_INVALID")
    return match.groupdict()


def parse_name(pattern: str, name: str, field: str = "name") -> str:
    """The id in a name of a pattern with one variable: ``traces/{trace}``. Raises as ``parse_names``."""
    (resource_id,) = parse_names(pattern, name, field).values()
    return resource_id


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    pieces = _VARIABLE.split(pattern)
    return re.compile(
        "".join(
            f"(?P<{piece}>{_ID})" if index % 2 else re.escape(piece) for index, piece in enumerate(pieces)
        )
    )


class Paging:
    """Which page of a listing a caller wants.

    A token holds the place where the page before ended, and the listing that it belongs to.

    Args:
        size: rows of the page: 0 for ``DEFAULT_PAGE_SIZE``, at most ``MAX_PAGE_SIZE``.
        token: from the page before; empty for the first page.
        most: rows of the largest page, where that is less.
        listing: what is listed (JSON values), such as ``method`` and ``parent``.

    Raises:
        InvalidArgument: PAGE_SIZE_INVALID; PAGE_TOKEN_INVALID for a token that was made up, cut short, or
            made for another listing.
    """

    def __init__(self, size: int, token: str, *, most: int = MAX_PAGE_SIZE, **listing: Any) -> None:
        if size < 0:
            right = f"use 0 for the default of {DEFAULT_PAGE_SIZE}, or 1 to {MAX_PAGE_SIZE}"
            problem = f"{size} is negative; {right}"
            raise InvalidArgument.of_field("page_size", problem, reason="PAGE_SIZE_INVALID")
        self.limit = min(size or DEFAULT_PAGE_SIZE, most)
        self._listing = digest_json(listing)
        self._position = self._read(token) if token else {}

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
        """The token of the page after the row at ``position`` (JSON values by column)."""
        payload = canonical_json({"after": dict(position), "filter": self._listing})
        return base64.urlsafe_b64encode(_checksum(payload) + payload).rstrip(b"=").decode("ascii")

    def _read(self, token: str) -> dict[str, Any]:
        try:
            padded = token.encode("ascii") + b"=" * (-len(token) % 4)
            raw = base64.b64decode(padded, altchars=b"-_", validate=True)
        except ValueError as error:
            raise _bad_token(_MADE_UP) from error
        checksum, payload = raw[:_CHECKSUM_BYTES], raw[_CHECKSUM_BYTES:]
        if checksum != _checksum(payload):
            raise _bad_token(_MADE_UP)
        content: dict[str, Any] = json.loads(payload)
        if content["filter"] != self._listing:
            raise _bad_token("it belongs to a listing with another filter; start again without a page token")
        position: dict[str, Any] = content["after"]
        return position


def _checksum(payload: bytes) -> bytes:
    return hashlib.sha256(b"tunix-rt page token\0" + payload).digest()[:_CHECKSUM_BYTES]


def _bad_token(problem: str) -> InvalidArgument:
    return InvalidArgument.of_field("page_token", problem, reason="PAGE_TOKEN_INVALID")

"""What every request is checked for: names of resources, pages of lists, and wrong fields.

It is free of gRPC.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any, Final, TypeVar

import uuid_utils
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from tunix_rt_kit.canonical import canonical_json, digest_json
from tunix_rt_kit.errors import FieldViolation, InvalidArgument
from tunix_rt_kit.values import Filter, Labels, ListAsked, Order, Page, Position, TagChanges

ID_RULE = "1 to 64 characters of a-z, 0-9, dot, underscore and hyphen, starting with a letter or digit"
_ID = r"[a-z0-9][a-z0-9._-]{0,63}"
_VARIABLE = re.compile(r"\{([a-z_]+)\}")
T = TypeVar("T")
DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 1000
_CHECKSUM_BYTES = 8
_MADE_UP = "it is not a token that this service gave; use next_page_token of the page before"
MOST: Final = 1_000
"""Nobody looks for more wrong fields than these; an error names the first few of them."""
_SHOWN = 60
Checked = TypeVar("Checked", bound=BaseModel)
Wanted = TypeVar("Wanted", bound=Filter)
Location = tuple[int | str, ...]
# By pydantic's name of a problem; beside its limits there are the value, what is shown of it, and its length.
_WORDS: Final = {
    "string_too_short": "is empty; at least 1 character is needed",
    "string_too_long": "has {length:,} characters; at most {max_length:,} would be right",
    "string_pattern_mismatch": "is {shown}; it must match {pattern}",
    "too_short": "has {actual_length:,} entries; at least {min_length:,} would be right",
    "too_long": "has {actual_length:,} entries; at most {max_length:,} would be right",
    "greater_than_equal": "is {value}; at least {ge} would be right",
    "less_than_equal": "is {value}; at most {le} would be right",
    "less_than": "is {value}; less than {lt} would be right",
    "greater_than": "is {value}; more than {gt} would be right",
    "finite_number": "is {value}; a finite number would be right",
    "literal_error": "is {shown}; one of {known} would be right",
    "enum": "is {shown}; one of {known} would be right",
}


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

    def placed(self, found: Sequence[tuple[T, Position]]) -> Page[T]:
        """As ``page``, of rows that come with their places, which ``after`` gives as "at"."""
        kept = found[: self.limit]

        def token_after(index: int) -> str:
            return self.token({"at": list(kept[index][1])})

        more = len(found) > self.limit
        return Page([item for item, _ in kept], token_after(-1) if more else "", token_after)

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


@dataclass(slots=True)
class Violations:
    """Collects the wrong fields of a request, so that one error names them all."""

    found: list[FieldViolation] = field(default_factory=list)

    def check(self, condition: bool, field_path: str, description: str) -> bool:
        """Note a violation unless ``condition`` holds. Returns ``condition``."""
        if not condition:
            self.add(field_path, description)
        return condition

    def add(self, field_path: str, description: str) -> None:
        """Note a violation of the field at ``field_path``."""
        self.found.append(FieldViolation(field_path, description))

    def add_problems(self, error: ValidationError, *path: int | str) -> None:
        """Note what pydantic found wrong with the value at ``path``."""
        for location, description in field_problems(error):
            self.add(field_path((*path, *location)), description)

    def names(self, *paths: str) -> bool:
        """Whether a field at one of the paths, or inside it, is wrong."""
        inside = tuple(path + mark for path in paths for mark in ".[")
        return any(violation.field in paths or violation.field.startswith(inside) for violation in self.found)

    @property
    def enough(self) -> bool:
        """Whether so many fields are wrong that looking for more is of no use."""
        return len(self.found) >= MOST

    def raise_if_any(
        self, reason: str, message: str = "", *, metadata: Mapping[str, str] | None = None
    ) -> None:
        """Raise one InvalidArgument that names every violation, if there is any.

        Args:
            reason: the error's reason.
            message: what was being checked, put before the first violation.
            metadata: further facts for the error.
        """
        if not self.found:
            return
        first = self.found[0]
        line = f"{first.field}: {first.description}"
        if message:
            line = f"{message}: {line}"
        if len(self.found) > 1:
            least = "at least " if self.enough else ""
            line += f" (and {least}{len(self.found) - 1:,} more)"
        raise InvalidArgument(line, reason=reason, metadata=metadata, violations=self.found)


def field_problems(error: ValidationError) -> Iterator[tuple[Location, str]]:
    """The place and the description of each problem, in the words of this project.

    Our own validators raise ``PydanticCustomError``: the message is taken as it is, and the context may hold
    a ``path``, a tuple that leads from the validated field to the wrong place in it.
    """
    for problem in error.errors():
        if problem["type"] == "default_factory_not_called":
            # Follows from the problem of another field.
            continue
        inner: Location = tuple(problem.get("ctx", {}).get("path", ()))
        yield (*problem["loc"], *inner), _description(problem)


def validated(kind: type[Checked], fields: Mapping[str, Any], path: str, wrong: Violations) -> Checked:
    """``fields`` as a value of ``kind``; wrong fields are noted in ``wrong``, below ``path``.

    Where some are wrong, the value has the right ones and the defaults of the others, if they have any:
    enough to check the right fields against each other.
    """
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        wrong.add_problems(error, path)
        bad = {problem["loc"][0] for problem in error.errors()}
    right = {name: value for name, value in fields.items() if name not in bad}
    for name, value in right.items():
        field = kind.model_fields[name]
        adapter: TypeAdapter[Any] = TypeAdapter(Annotated[field.annotation, field])  # type: ignore[arg-type]
        right[name] = adapter.validate_python(value)
    return kind.model_construct(**right)


def checked_labels(given: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Those of ``display_name``, ``tags`` and ``note`` that are given; ``path`` is what they are fields of.

    Of an update, tags to add and to take away may be among them. Raises InvalidArgument(LABELS_INVALID) that
    names every wrong one.
    """
    wrong = Violations()
    moved = {name: tags for name, tags in given.items() if name in TagChanges.model_fields}
    own = {name: value for name, value in given.items() if name not in moved}
    labels, changes = validated(Labels, own, path, wrong), validated(TagChanges, moved, "", wrong)
    for index, tag in enumerate(changes.add_tags):
        problem = f"is {tag!r}, which remove_tags holds too; one of the two would be right"
        wrong.check(tag not in changes.remove_tags, f"add_tags[{index}]", problem)
    wrong.raise_if_any("LABELS_INVALID")
    return labels.model_dump(mode="json", include=set(own)) | changes.model_dump(
        mode="json", include=set(moved)
    )


def listed(
    method: str,
    kind: type[Wanted],
    asked: ListAsked,
    find: Callable[[Wanted, Order, Position | None, int], Sequence[tuple[T, Position]]],
    most: int = MAX_PAGE_SIZE,
    **place: str,
) -> Page[T]:
    """A page of a list with a filter and an order, to which its tokens belong.

    Args:
        method: the RPC.
        kind: the list's filter.
        asked: what the caller asks for.
        find: the entries that are wanted, in that order, from behind a place on, and so many at most.
        most: rows of the largest page.
        place: what else the list belongs to, such as ``parent``.

    Raises:
        InvalidArgument: FILTER_INVALID, ORDER_BY_INVALID, and what ``Paging`` raises.
    """
    wrong = Violations()
    for name, value in asked.filter_fields.items():
        for index, text in enumerate(value if isinstance(value, list) else ()):
            wrong.check(text != "", f"filter.{name}[{index}]", "is empty; leave it out, or give a value")
    wanted = validated(kind, asked.filter_fields, "filter", wrong)
    wrong.raise_if_any("FILTER_INVALID")
    order = checked_order(asked.order_by, kind.order_fields)
    paging = Paging(
        asked.page_size,
        asked.page_token,
        most=most,
        method=method,
        filter=wanted.model_dump(mode="json"),
        order=[list(by) for by in order],
        **place,
    )
    return paging.placed(find(wanted, order, paging.after("at"), paging.limit + 1))


def in_order(
    found: Iterable[T],
    values: Callable[[T], Mapping[str, Any]],
    order: Order,
    after: Position | None,
    limit: int,
) -> list[tuple[T, Position]]:
    """What ``listed`` looks for in a list that is in memory: up to ``limit`` entries in an order, from behind
    a place on, each with its place.

    ``values`` gives the fields of an entry (JSON values). ``order`` ends with one that tells entries apart.
    """
    falls = [falls for _, falls in order]

    def is_behind(place: Position) -> bool:
        for value, end, down in zip(place, after or (), falls, strict=True):
            if value != end:
                return bool(value < end if down else value > end)
        return False

    placed: list[tuple[T, Position]]
    placed = [(entry, [values(entry)[name] for name, _ in order]) for entry in found]
    placed = [pair for pair in placed if after is None or is_behind(pair[1])]
    # From the last field to the first: what is equal keeps the order that it has.
    for index in reversed(range(len(order))):
        placed.sort(key=lambda pair: pair[1][index], reverse=falls[index])
    return placed[:limit]


def checked_order(order_by: str, known: Sequence[str]) -> Order:
    """What ``order_by`` says: fields with commas between them, each falling where " desc" follows.

    Raises InvalidArgument(ORDER_BY_INVALID).
    """
    order: list[tuple[str, bool]] = []
    for part in order_by.split(",") if order_by.strip() else ():
        name, *words = part.split() or [""]
        right = f"fields of {', '.join(known)}, with commas between them and ' desc' behind one that falls"
        if name not in known or words not in ([], ["asc"], ["desc"]):
            problem = f"has {_shown(part.strip())}; {right}, would be right"
            raise InvalidArgument.of_field("order_by", problem, reason="ORDER_BY_INVALID")
        if name in dict(order):
            problem = f"names {name} twice; once would be right"
            raise InvalidArgument.of_field("order_by", problem, reason="ORDER_BY_INVALID")
        order.append((name, words == ["desc"]))
    return order


def field_path(location: Sequence[int | str]) -> str:
    """A location as text: ``traces[3].steps[0].content``. Empty parts are left out."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location if part != "")
    return text.removeprefix(".")


def _description(problem: ErrorDetails) -> str:
    value, limits = problem["input"], problem.get("ctx", {})
    words = _WORDS.get(problem["type"])
    if words is None:
        # pydantic links a page to each kind of its own, and none to a custom one.
        return f"is {_shown(value)}: {problem['msg']}" if "url" in problem else problem["msg"]
    facts = {"value": value, "shown": _shown(value), "length": len(value) if isinstance(value, Sized) else 0}
    known = str(limits.get("expected", "")).replace("'", "").replace(" or ", ", ")
    return words.format_map({**limits, **facts, "known": known})


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."

"""Resource names such as ``traces/0192...`` and ``trainingJobs/0192.../checkpoints/39``, and their ids."""

from __future__ import annotations

import re
from functools import cache

import uuid_utils

from tunix_rt_kit.errors import FieldViolation, InvalidArgument

ID_RULE = "1 to 64 characters of a-z, 0-9, dot, underscore and hyphen, starting with a letter or digit"
_ID = r"[a-z0-9][a-z0-9._-]{0,63}"
_VARIABLE = re.compile(r"\{([a-z_]+)\}")


def new_id() -> str:
    """A new id: a version 7 UUID in lower case, so that ids sort by the time at which they were made."""
    return str(uuid_utils.uuid7())


def check_id(value: str, field: str) -> str:
    """Return ``value`` if it is a well-formed id; raise InvalidArgument(RESOURCE_ID_INVALID) on ``field``."""
    if not re.fullmatch(_ID, value):
        raise _invalid("RESOURCE_ID_INVALID", field, f"{value!r} is not an id; it must be {ID_RULE}")
    return value


def parse_names(pattern: str, name: str, field: str = "name") -> dict[str, str]:
    """The ids in a resource name by variable: ``trainingJobs/{job}/checkpoints/{checkpoint}``.

    Raises InvalidArgument(RESOURCE_NAME_INVALID) on ``field`` if ``name`` is not of this pattern.
    """
    match = _compiled(pattern).fullmatch(name)
    if match is None:
        raise _invalid(
            "RESOURCE_NAME_INVALID", field, f"{name!r} is not of the form {pattern} (an id is {ID_RULE})"
        )
    return match.groupdict()


def parse_name(pattern: str, name: str, field: str = "name") -> str:
    """The id in a resource name of a pattern with one variable (``traces/{trace}``); raises as
    ``parse_names``."""
    (resource_id,) = parse_names(pattern, name, field).values()
    return resource_id


def format_name(pattern: str, *ids: str) -> str:
    """The resource name of ``pattern`` with its variables filled in order: ``format_name("traces/{trace}",
    id)``."""
    parts = iter(ids)
    return _VARIABLE.sub(lambda _: next(parts), pattern)


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    pieces = _VARIABLE.split(pattern)
    return re.compile(
        "".join(
            f"(?P<{piece}>{_ID})" if index % 2 else re.escape(piece) for index, piece in enumerate(pieces)
        )
    )


def _invalid(reason: str, field: str, description: str) -> InvalidArgument:
    return InvalidArgument(
        f"{field}: {description}", reason=reason, violations=[FieldViolation(field, description)]
    )

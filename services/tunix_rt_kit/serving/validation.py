"""The wrong fields of a request, collected and described."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from tunix_rt_kit.errors import FieldViolation, InvalidArgument

MOST: Final = 1_000
"""Nobody looks for more wrong fields than these; an error names the first few of them."""
_SHOWN = 60
T = TypeVar("T", bound=BaseModel)
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
}


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


def validated(kind: type[T], fields: Mapping[str, Any], path: str, wrong: Violations) -> T:
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


def field_path(location: Sequence[int | str]) -> str:
    """A location as text: ``traces[3].steps[0].content``."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
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

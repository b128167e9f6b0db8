"""How an error becomes what a person reads: one clear line, and one more for each wrong field."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from tunix_rt.cli.typed import TypedNames


def describe(error: BaseException, typed: TypedNames | None = None) -> list[str]:
    """The lines for one error; the first says what happened, further ones name each wrong field.

    Fields that an option of the command fills are called by the option, which ``typed`` knows.
    """
    if isinstance(error, ModuleNotFoundError) and error.name:
        return [missing_module(error.name)]
    if _is_own(error):
        # Domain errors of services call them violations.
        violations: Any = getattr(error, "field_violations", ()) or getattr(error, "violations", ())
        return list(_with_fields(str(error), violations, typed or TypedNames()))
    if type(error).__module__.startswith("pydantic"):
        return list(_pydantic(error))
    if isinstance(error, OSError):
        return [_os_error(error)]
    if isinstance(error, ValueError) and "out of range" in str(error):
        # What protobuf says of a number that does not fit into its field.
        return [str(error)]
    return [f"{type(error).__name__}: {error} (this is a bug; -vv shows where it came from)"]


def missing_module(name: str) -> str:
    """One line for a module that is not installed: its name, and the command that installs it."""
    package = name.partition(".")[0]
    if package == "torch":
        return "torch is not installed; install it with: pip install torch"
    return (
        f"{package} is not installed; install what the embedded server needs with: "
        "pip install 'tunix-rt[local]' (or use a running server: --server HOST:PORT)"
    )


def _is_own(error: BaseException) -> bool:
    return any(base.__module__.partition(".")[0].startswith("tunix_rt") for base in type(error).__mro__)


def _with_fields(message: str, violations: Sequence[Any], typed: TypedNames) -> Iterator[str]:
    names = {violation.field: typed.of_field(violation.field) for violation in violations if violation.field}
    # The longest first: a path may begin as another one does.
    for field in sorted(names, key=len, reverse=True):
        message = message.replace(f"{field}: ", f"{names[field]}: ")
    yield typed.in_sentence(message)
    if len(violations) == 1 and violations[0].description in message:
        return
    for violation in violations:
        name = names.get(violation.field, violation.field)
        yield f"  {name}: {typed.in_sentence(violation.description)}"


def _pydantic(error: Any) -> Iterator[str]:
    problems = [
        (".".join(str(part) for part in problem["loc"]), problem["msg"]) for problem in error.errors()
    ]
    if len(problems) == 1:
        field, message = problems[0]
        yield f"{field}: {message}" if field else message
        return
    yield f"{len(problems)} settings are wrong"
    for field, message in problems:
        yield f"  {field}: {message}"


def _os_error(error: OSError) -> str:
    reason = error.strerror or str(error)
    return f"{error.filename}: {reason}" if error.filename else reason

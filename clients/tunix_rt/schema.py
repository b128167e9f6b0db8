"""Documents that people write, and what is wrong with one in words: a path, and what would be right."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from tunix_rt.errors import FieldViolation

Int32 = Annotated[int, Field(ge=0, le=2**31 - 1)]
Int64 = Annotated[int, Field(ge=0, le=2**63 - 1)]
Seed = Annotated[int, Field(ge=0, le=2**64 - 1)]

_SHOWN = 60
_NAMES = {
    str: "a string",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    list: "a list",
    dict: "an object",
}


class Section(BaseModel):
    """A part of a document that people write: unknown keys are refused, and numbers may stand for texts."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        coerce_numbers_to_str=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )


def violations_of(error: ValidationError, model: type[BaseModel]) -> list[FieldViolation]:
    """Every wrong field that ``error`` names, in the words of this project; unknown keys first.

    Args:
        error: what validation raised.
        model: what was validated, for the names that an unknown key may have meant.
    """
    return [
        FieldViolation(path_of(detail["loc"]), _describe(detail, model))
        for detail in sorted(
            error.errors(include_url=False), key=lambda detail: detail["type"] != "extra_forbidden"
        )
    ]


def one_line(violations: Sequence[FieldViolation]) -> str:
    """The first violation, and how many more there are."""
    first = violations[0]
    line = f"{first.field}: {first.description}" if first.field else first.description
    return f"{line} (and {len(violations) - 1} more)" if len(violations) > 1 else line


def path_of(loc: Iterable[str | int]) -> str:
    """``("steps", 0, "content")`` as ``steps[0].content``."""
    path = ""
    for part in loc:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
    return path


def nearest(name: str, known: Iterable[str]) -> str:
    """``; did you mean ...?``, or what is known if nothing is near."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else f"known are {', '.join(names)}"


def _describe(detail: ErrorDetails, model: type[BaseModel]) -> str:
    kind, value, limits = detail["type"], detail["input"], detail.get("ctx", {})
    match kind:
        case "missing":
            return "is missing"
        case "extra_forbidden":
            return f"unknown key; {nearest(str(detail['loc'][-1]), _keys_at(model, detail['loc'][:-1]))}"
        case "string_too_short":
            return "is empty"
        case "string_too_long":
            return f"has {len(value):,} characters; at most {limits['max_length']:,} are allowed"
        case "too_short":
            return f"needs at least {limits['min_length']}"
        case "too_long":
            return f"has more than {limits['max_length']:,} entries"
        case (
            "string_type" | "int_type" | "bool_type" | "float_type" | "list_type" | "dict_type" | "model_type"
        ):
            wanted = kind.removesuffix("_type").replace("int", "whole number").replace("float", "number")
            wanted = (
                wanted.replace("dict", "object").replace("model", "object").replace("bool", "true or false")
            )
            return f"is {_shown(value)}; expected {wanted}"
        case "value_error":
            return str(limits.get("error", detail["msg"]))
        case "json_invalid":
            return f"not JSON: {limits.get('error', detail['msg'])}"
    message = detail["msg"].removeprefix("Input ").removeprefix("Value error, ")
    return f"is {_shown(value)}; it {message}" if message.startswith("should") else message


def _shown(value: object) -> str:
    if value is None:
        return "null"
    try:
        text = repr(value)
    except ValueError:
        # Python writes no integer of thousands of digits.
        text = "enormous"
    if len(text) > _SHOWN:
        text = text[: _SHOWN - 3] + "..."
    name = _NAMES.get(type(value))
    return f"{text} ({name})" if name else text


def _keys_at(model: type[BaseModel], loc: Sequence[str | int]) -> Iterable[str]:
    """The keys of the model that stands at ``loc`` below ``model``."""
    current = model
    for part in loc:
        if isinstance(part, int) or part not in current.model_fields:
            continue
        inner = model_in(current.model_fields[part].annotation)
        if inner is None:
            break
        current = inner
    return current.model_fields


def model_in(annotation: object) -> type[BaseModel] | None:
    """The model class that an annotation names, bare or inside ``list``, ``dict`` or ``| None``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = model_in(argument)
        if found is not None:
            return found
    return None

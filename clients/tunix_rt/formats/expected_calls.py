"""The calls that the grader ``tool_call`` expects, as people write them, with all digits of their numbers."""

from __future__ import annotations

import json
import math
from decimal import Decimal
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tunix_rt.formats.content import is_object
from tunix_rt.formats.conversations import json_text
from tunix_rt.formats.lines import check_values, once
from tunix_rt.schema import one_line, violations_of

# Beyond it the evaluator refuses a Struct's number, whose digits may be lost.
_MAX_EXACT: Final = 2**53 - 1
_WANTED: Final = ("arguments", "arguments_text", "arguments_schema")


class _Digits(float):
    """A number that was written with more digits than a float has."""

    written: str

    def __new__(cls, text: str) -> _Digits:
        made = super().__new__(cls, text)
        made.written = text
        return made


class _Call(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=256)]
    arguments: Any = None
    arguments_text: str | None = None
    arguments_schema: dict[str, Any] | None = None


class _Calls(BaseModel):
    calls: list[_Call]


def exact_json(text: str | bytes) -> Any:
    """As ``json.loads``, but a number of more digits than a float has keeps them for ``expected_calls``.

    Raises ValueError where it is no JSON, or has a key twice in one object.
    """
    return json.loads(text, parse_float=_number, object_pairs_hook=once)


def expected_calls(calls: object) -> list[dict[str, Any]]:
    """The calls as the contract has them: arguments of which a Struct would lose digits are text.

    ``arguments`` may be an object, or the text of one. Raises ValueError that names the call and its field.
    """
    try:
        given = _Calls.model_validate({"calls": calls}).calls
    except ValidationError as error:
        raise ValueError(one_line(violations_of(error, _Calls))) from None
    try:
        return [_expected(call, f"calls[{index}]") for index, call in enumerate(given)]
    except RecursionError:
        raise ValueError("calls are nested more than 30 levels deep") from None


def _expected(call: _Call, place: str) -> dict[str, Any]:
    given = [name for name in _WANTED if getattr(call, name) is not None]
    if len(given) != 1:
        told = " and ".join(given) or "no arguments"
        raise ValueError(f"{place}: has {told}; one of {', '.join(_WANTED)} would be right")
    field, value = given[0], getattr(call, given[0])
    if field == "arguments_schema":
        if (found := check_values(value, (field,))) is not None:
            raise ValueError(f"{place}.{found.field}: {found.description}")
        if not _is_exact(value):
            raise ValueError(f"{place}.{field}: has a number of more digits than are kept")
        return {"name": call.name, field: value}
    text = value if isinstance(value, str) else _written(value)
    if not is_object(text):
        right = "a JSON object at most 30 levels deep would be right"
        raise ValueError(f"{place}.{field}: is {text[:60]!r}; {right}")
    exact = isinstance(value, dict) and _is_exact(value)
    return {"name": call.name, **({"arguments": value} if exact else {"arguments_text": text})}


def _number(text: str) -> float:
    value = float(text)
    try:
        exact = math.isfinite(value) and Decimal(repr(value)) == Decimal(text)
    except ArithmeticError:
        exact = False
    return value if exact else _Digits(text)


def _is_exact(value: Any) -> bool:
    """Whether a Struct keeps all digits of the numbers in a JSON value."""
    if isinstance(value, dict | list):
        return all(map(_is_exact, value.values() if isinstance(value, dict) else value))
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return not is_number or not (isinstance(value, _Digits) or abs(value) > _MAX_EXACT)


def _written(value: Any) -> str:
    """A value as JSON, its numbers with the digits that they were written with."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{json_text(key)}:{_written(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_written, value)) + "]"
    return value.written if isinstance(value, _Digits) else json_text(value)

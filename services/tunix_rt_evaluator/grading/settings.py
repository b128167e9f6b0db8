"""The settings of each kind of grader, as an eval set holds them. Plain values, free of transport."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

MAX_UNITS: Final = 32
MAX_OPTIONS: Final = 26
MAX_PROMPT: Final = 20_000

_Threshold = Annotated[float, Field(gt=0, le=1)]
_Tolerance = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Grown(BaseModel):
    """A value with fields, those in ``added``, that came after values of its kind had been stored.

    At their default they are not written, so that digests of what does not use them stay what they were.
    """

    added: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _without_added_defaults(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields = type(self).model_fields
        unused = {name for name in self.added if getattr(self, name) == fields[name].default}
        return {name: value for name, value in write(self).items() if name not in unused}


class _Settings(Grown):
    """Settings that are held to the contract's limits."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class NumericGrader(_Settings):
    """Right when the answer's number is near enough to an accepted one; ``units`` may or must be there.

    With ``marked`` the last number of a text that marks no answer does not count.
    """

    added = frozenset({"relative_tolerance", "units", "unit_required", "marked"})

    kind: Literal["numeric"] = "numeric"
    tolerance: _Tolerance = 0.0
    relative_tolerance: _Tolerance = 0.0
    units: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=32)], ...],
        Field(max_length=MAX_UNITS, strict=False),
    ] = ()
    unit_required: bool = False
    marked: bool = False


class TextGrader(_Settings):
    """Right when the answer, normalised, equals an accepted one."""

    kind: Literal["text"] = "text"


class SetGrader(_Settings):
    """Right when the answer has the entries of an accepted one, in any order."""

    kind: Literal["set"] = "set"


class MathGrader(_Settings):
    """Right when the answer is mathematically equal to an accepted one."""

    kind: Literal["math"] = "math"


class MultipleChoiceGrader(_Settings):
    """Right when the answer names the right one of ``options``, A first."""

    kind: Literal["multiple_choice"] = "multiple_choice"
    options: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=1_000)], ...],
        Field(min_length=2, max_length=MAX_OPTIONS, strict=False),
    ]


class RegexGrader(_Settings):
    """Right when an accepted answer, which is a pattern, matches."""

    kind: Literal["regex"] = "regex"
    full_match: bool = False
    ignore_case: bool = False
    whole_output: bool = False


class ContainsGrader(_Settings):
    """Right when any of the accepted answers, or all of them, occur."""

    kind: Literal["contains"] = "contains"
    all: bool = False
    case_sensitive: bool = False
    whole_words: bool = False
    whole_output: bool = False


class FormatGrader(_Settings):
    """Right when the whole output has the form in which datasets write reasoning."""

    kind: Literal["format"] = "format"
    reasoning_style: Literal["numbered", "answer-only"] = "numbered"
    min_steps: Annotated[int, Field(ge=0, le=1_000)] = 1


class TokenF1Grader(_Settings):
    """Right when the F1 of the words shared with an accepted answer reaches ``threshold``."""

    kind: Literal["token_f1"] = "token_f1"
    threshold: _Threshold = 0.5


class JsonSchemaGrader(_Settings):
    """Right when the answer is JSON that ``schema`` allows."""

    kind: Literal["json_schema"] = "json_schema"
    # BaseModel has a method of that name.
    schema_: Annotated[Mapping[str, Any], Field(alias="schema")]

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, validate_by_name=True, serialize_by_alias=True
    )


class JudgeGrader(_Settings):
    """Right when ``model`` grades ``threshold`` or more; an empty ``prompt`` means the evaluator's own."""

    kind: Literal["judge"] = "judge"
    model: Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[^\s\x00]+$")]
    prompt: Annotated[str, Field(max_length=MAX_PROMPT)] = ""
    threshold: _Threshold = 0.5


Grader = Annotated[
    NumericGrader
    | TextGrader
    | SetGrader
    | MathGrader
    | MultipleChoiceGrader
    | RegexGrader
    | ContainsGrader
    | FormatGrader
    | TokenF1Grader
    | JsonSchemaGrader
    | JudgeGrader,
    Field(discriminator="kind"),
]

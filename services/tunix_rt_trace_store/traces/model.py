"""What a trace is, and its limits.

Contents are plain dictionaries that pydantic checks when they arrive. They are hashed, stored and sent as
JSON, up to a thousand in a batch.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final, Literal, final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict

from tunix_rt_kit.conversations import Metadata, keepable, no_nul
from tunix_rt_kit.values import Filter

MAX_TRACE_BYTES: Final = 1 << 20
MAX_BATCH: Final = 1_000
MAX_SCORED: Final = 500
TRACE_NAME: Final = "traces/{trace}"
MAX_INT32: Final = (1 << 31) - 1
MAX_DETAILS_BYTES: Final = 16 << 10

DuplicatePolicy = Literal["keep", "skip"]
Criterion = Literal["structure", "answer"]


def _unique_steps(steps: list[TraceStep]) -> list[TraceStep]:
    seen: dict[int, int] = {}
    for index, step in enumerate(steps):
        first = seen.setdefault(step["i"], index)
        if first != index:
            raise PydanticCustomError(
                "duplicate_step",
                "is {i}, which steps[{first}] has already; each step needs a number of its own",
                {"i": step["i"], "first": first, "path": (index, "i")},
            )
    return steps


CleanText = Annotated[str, AfterValidator(no_nul)]
Label = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(no_nul)]
LongText = Annotated[str, Field(min_length=1, max_length=50_000), AfterValidator(no_nul)]
StepText = Annotated[str, Field(min_length=1, max_length=500_000), AfterValidator(no_nul)]
Source = Annotated[str, Field(max_length=64), AfterValidator(no_nul)]


class TraceStep(TypedDict):
    """One step: its number, its kind, and its text."""

    i: Annotated[int, Field(ge=0, le=MAX_INT32)]
    type: Label
    content: StepText


@final
class TraceContent(TypedDict):
    """What a client writes of a trace that is no conversation; the content digest is over exactly these
    fields."""

    trace_version: Label
    prompt: LongText
    steps: Annotated[list[TraceStep], Field(min_length=1, max_length=1_000), AfterValidator(_unique_steps)]
    final_answer: LongText
    metadata: Metadata
    source: Source


TRACE_CONTENT: Final = TypeAdapter(TraceContent)


@dataclass(frozen=True, slots=True)
class TraceDraft:
    """A trace as it arrived, unchecked; ``encoded`` is the same in the form that is stored."""

    content: dict[str, Any]
    encoded: bytes
    is_conversation: bool = False


@dataclass(frozen=True, slots=True)
class NewTrace:
    """A checked trace, ready to be stored: the encoded whole, and the columns that filters use."""

    encoded: bytes
    content_digest: str
    source: str
    prompt_folded: str
    metadata_json: str
    is_conversation: bool = False
    assistant_turns: int = 1
    tool_calls: int = 0


@dataclass(frozen=True, slots=True)
class StoredTrace:
    """A trace as it is stored."""

    id: str
    sequence: int
    create_time: datetime
    content_digest: str
    encoded: bytes


@dataclass(frozen=True, slots=True)
class CreateResult:
    """The result for one trace of a batch: the id of its content, and whether this call stored it."""

    id: str
    content_digest: str
    created: bool


class MetadataCondition(BaseModel):
    """A condition on a metadata key: its value ``equals`` a scalar, or it ``exists`` or does not."""

    model_config = ConfigDict(frozen=True)

    key: Annotated[str, Field(min_length=1, max_length=256), AfterValidator(no_nul)]
    kind: Literal["equals", "exists"]
    value: CleanText | bool | Annotated[float, Field(allow_inf_nan=False)] | None


class ScoreCondition(BaseModel):
    """A condition on the latest score by a criterion: at least ``minimum``."""

    model_config = ConfigDict(frozen=True)

    criterion: Label
    minimum: Annotated[float, Field(allow_inf_nan=False)]


class TraceFilter(Filter):
    """Conditions on traces, joined by AND."""

    order_fields = ("sequence", "create_time", "source")

    sources: Annotated[list[CleanText], Field(max_length=100)] = Field(default_factory=list)
    metadata: Annotated[list[MetadataCondition], Field(max_length=20)] = Field(default_factory=list)
    prompt_contains: Annotated[str, Field(max_length=1_000), AfterValidator(no_nul)] = ""
    scores: Annotated[list[ScoreCondition], Field(max_length=20)] = Field(default_factory=list)
    is_conversation: bool | None = None
    has_tool_calls: bool | None = None
    min_assistant_turns: Annotated[int, Field(ge=0)] = 0
    max_assistant_turns: Annotated[int, Field(ge=0)] = 0


class ScoreFilter(Filter):
    """Which scores of a trace: those of a criterion, or of any."""

    order_fields = ("create_time", "criterion", "value")

    criterion: str = ""


def _small(details: dict[str, Any]) -> dict[str, Any]:
    size = len(json.dumps(details, ensure_ascii=False).encode())
    if size > MAX_DETAILS_BYTES:
        raise PydanticCustomError(
            "details_size",
            "is {size} bytes as JSON; at most {most} would be right",
            {"size": size, "most": MAX_DETAILS_BYTES},
        )
    return details


class ScoreDraft(BaseModel):
    """A score as a client writes it."""

    model_config = ConfigDict(frozen=True)

    trace: str
    criterion: Label
    value: Annotated[float, Field(allow_inf_nan=False)]
    details: Annotated[dict[str, Any], AfterValidator(keepable), AfterValidator(_small)]


SCORE_DRAFTS: Final = TypeAdapter(list[ScoreDraft])


@dataclass(frozen=True, slots=True)
class Score:
    """One score that a criterion gave a trace."""

    trace_id: str
    criterion: str
    value: float
    details: dict[str, Any]
    create_time: datetime


@dataclass(frozen=True, slots=True)
class ScoreResult:
    """The scores of one trace; or ``reason`` and ``message`` where it could not be scored."""

    scores: Sequence[Score] = ()
    reason: str = ""
    message: str = ""

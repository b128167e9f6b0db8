"""What an eval set is: questions with their accepted answers and graders. Plain values, free of transport."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, Final

from pydantic import ConfigDict, Field

from tunix_rt_evaluator.grading.model import Grader
from tunix_rt_kit.values import DeleteTime, Labelled, ListFilter, Value

EVAL_SET_NAME: Final = "evalSets/{eval_set}"
MAX_ITEMS: Final = 10_000
MAX_TEXT: Final = 50_000
MAX_ACCEPTED_ANSWERS: Final = 256
MAX_DESCRIPTION: Final = 1_000
MAX_EVAL_SET_BYTES: Final = 15 << 18

_Text = Annotated[str, Field(min_length=1, max_length=MAX_TEXT)]
_Label = Annotated[str, Field(max_length=64)]


def eval_set_name(eval_set_id: str) -> str:
    """The resource name of an eval set."""
    return f"evalSets/{eval_set_id}"


class EvalItem(Value):
    """One question with its accepted answers."""

    model_config = ConfigDict(strict=True)

    # No NUL: the id is a column of its own, and PostgreSQL keeps none.
    id: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[^\x00]+$")]
    prompt: _Text
    accepted_answers: Annotated[tuple[_Text, ...], Field(strict=False)]
    grader: Grader
    category: _Label = ""
    difficulty: _Label = ""
    cluster: Annotated[str, Field(max_length=128)] = ""
    metadata: Mapping[str, Any] = Field(default_factory=dict)


class EvalSetFile(Value):
    """A file that an eval set was made of."""

    file_name: Annotated[str, Field(max_length=256)]
    size_bytes: Annotated[int, Field(ge=0)]
    digest: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


class EvalSetOrigin(Value):
    """The published benchmark that an eval set was made of, and how; a caller says so."""

    benchmark: _Label = ""
    mapping: _Label = ""
    hub_id: Annotated[str, Field(max_length=256)] = ""
    config: Annotated[str, Field(max_length=256)] = ""
    split: _Label = ""
    revision: Annotated[str, Field(max_length=128)] = ""
    license: Annotated[str, Field(max_length=128)] = ""
    citation: Annotated[str, Field(max_length=4_000)] = ""
    files: Annotated[tuple[EvalSetFile, ...], Field(max_length=64, strict=False)] = ()
    row_count: Annotated[int, Field(ge=0)] = 0
    selection: Annotated[str, Field(max_length=128)] = ""


@dataclass(frozen=True, slots=True)
class EvalSetDraft:
    """An eval set as a caller gives it, unchecked; ``size_bytes`` is its encoded size."""

    id: str
    description: str
    items: Sequence[Mapping[str, Any]]
    size_bytes: int
    labels: Mapping[str, Any] = field(default_factory=dict)
    python_sources: Sequence[str] = ()
    origin: Mapping[str, Any] | None = None


class EvalSet(Labelled):
    """A stored eval set; ``items`` is None where only its facts were asked for."""

    id: str
    description: str
    digest: str
    item_count: int
    create_time: datetime
    items: tuple[EvalItem, ...] | None = None
    python_sources: tuple[str, ...] = ()
    origin: EvalSetOrigin | None = None
    delete_time: DeleteTime = None


class EvalSetFilter(ListFilter):
    """Which eval sets a list has."""

    order_fields = ("create_time", "display_name", "name", "item_count")

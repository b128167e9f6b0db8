"""What jobs, files, requests and chat templates are, for every service alike: plain values.

Most are stored as JSON: in database columns, manifests, event files and the specs of worker processes. So
the names of their fields, and the order of the fields, must not change.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Final, Generic, Literal, NamedTuple, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer
from pydantic_core import PydanticCustomError

T = TypeVar("T")

AskedDtype = Literal["auto", "bfloat16", "float32"]
"""The type that a model computes in; "auto" leaves the choice to the host."""

# A JSON number holds integers up to 2**53 only; a seed has 64 bits.
Seed = Annotated[int, Field(ge=0, le=(1 << 64) - 1), PlainSerializer(str, return_type=str, when_used="json")]


class Value(BaseModel):
    """The base of all values: frozen, and unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class JobState(StrEnum):
    """Where a job stands: the build of a dataset, a training job or an evaluation."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    CANCELLING = "CANCELLING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def ended(self) -> bool:
        """Whether the job is over. It then changes only when somebody asks for it."""
        return self in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)


class Progress(Value):
    """How far a stage of a job has come: ``completed`` of ``total`` units.

    ``total`` is 0 while it is unknown. ``eta_s`` is the time left in seconds, None while it is unknown.
    """

    stage: str
    completed: int = 0
    total: int = 0
    unit: str = ""
    eta_s: float | None = None


class TimeLeft:
    """Tells how long the rest of some work takes, once what was done tells it to within a factor of two.

    The time until the first units are done counts for nothing: things are loaded and compiled in it. The rest
    is taken to go on at the pace of the last quarter of the time since. It is told when a fifth of the units
    were done, ten of them and in three seconds at least, and when the work as a whole has been estimated
    alike, within a quarter, for half of that time. So a pace that still changes keeps it silent: short units
    first, units that end in groups.

    Args:
        parallel: how many units are under way at once. Of the last ones, whose end nobody knows, nothing is
            told.
    """

    def __init__(self, parallel: int = 1) -> None:
        self._parallel = parallel
        self._first: int | None = None
        self._told: list[tuple[float, int, float]] = []

    def after(self, done: int, total: int, now: float) -> float | None:
        """Seconds left when ``done`` of ``total`` units are done at ``now``, seconds of any clock."""
        left = total - done
        if left <= 0:
            return 0.0
        if self._first is None:
            self._first = done
        if done == self._first:
            return None
        if not self._told:
            self._told.append((now, done, math.inf))
            return None
        began, done_before, _ = self._told[0]
        half, late = began + (now - began) / 2, began + (now - began) * _LATE
        then, done_then, _ = next(entry for entry in reversed(self._told) if entry[0] <= late)
        if now <= then or done - done_then < max(_PACE_UNITS, self._parallel / 2):
            self._told.append((now, done, math.inf))
            return None
        seconds = left * (now - then) / (done - done_then)
        whole = now - began + seconds
        since = [entry[2] for entry in self._told if entry[0] >= half]
        self._told.append((now, done, whole))
        if len(self._told) > _TOLD_MOST:
            # The first one says when it began.
            self._told[1:] = self._told[2::2]
        units = max(_UNITS_LEAST, (total - done_before) * _SHARE_LEAST)
        enough = done - done_before >= units and now - began >= _SECONDS_LEAST
        alike = all(whole / _ALIKE <= estimate <= whole * _ALIKE for estimate in since)
        return seconds if enough and alike and (self._parallel == 1 or left > self._parallel) else None


_LATE: Final = 0.75
_PACE_UNITS: Final = 3
_UNITS_LEAST: Final = 10
_SHARE_LEAST: Final = 0.2
_SECONDS_LEAST: Final = 3.0
_ALIKE: Final = 1.25
_TOLD_MOST: Final = 200


class StageTiming(Value):
    """Wall time of a finished stage, in seconds."""

    stage: str
    duration_s: float


class JobError(Value):
    """Why a job failed: the name of a canonical code, a reason, one clear line, and further facts."""

    code: str
    reason: str
    message: str
    metadata: Mapping[str, str] = Field(default_factory=dict)


DeleteTime = Annotated[datetime | None, Field(exclude=True)]
"""When a resource was deleted; of no digest, manifest or report that the resource stands in."""


class StoredFile(Value):
    """A file in the artifact store, and its path inside what it belongs to (a dataset, a checkpoint)."""

    path: str
    size_bytes: int
    digest: str
    uri: str = ""


@dataclass(frozen=True, slots=True)
class Stored:
    """What one resource takes of a disk.

    Args:
        kind: what it is, in words.
        name: its resource name.
        digests: of its artifacts, those that it was made from aside.
        needs: of artifacts that others made, and that it cannot go on without.
        folder: its own, absolute; empty if it has none.
        deleted: whether only the record of it is left.
        unfinished: whether it is a job that has not ended.
        derived: whether it can be made again of what is there.
    """

    kind: str
    name: str
    digests: frozenset[str] = frozenset()
    needs: frozenset[str] = frozenset()
    folder: str = ""
    deleted: bool = False
    unfinished: bool = False
    derived: bool = False


class ChatTemplateFields(Value):
    """A chat template as it is sent and stored, unchecked; ``tunix_rt_kit.chat.ChatTemplate`` renders it."""

    builtin: str | None = None
    jinja: str | None = None
    bos_token: str = ""
    eos_token: str = ""
    system_instruction: str = ""


@dataclass(frozen=True, slots=True)
class RequestKey:
    """What tells whether two creates are the same one.

    Args:
        method: the RPC, such as ``CreateTrace``; ids of different methods are different.
        request_id: the caller's id; empty if there is none, and then no two requests are the same.
        digest: of everything in the request that decides the result.
        earlier_digest: the digest that an earlier release stored for the same request, if it differs.
    """

    method: str
    request_id: str
    digest: str
    earlier_digest: str = ""


NO_REQUEST_ID: Final = RequestKey(method="", request_id="", digest="")
"""For what is done however often it is asked for."""


class Page(NamedTuple, Generic[T]):
    """One page of a list, and the token of the next page: empty on the last one.

    ``token_after`` makes the token of the page after the item at an index, for a page that is cut short; None
    where pages are not.
    """

    items: Sequence[T]
    next_page_token: str
    token_after: Callable[[int], str] | None = None


class Labelled(Value):
    """The base of what people give a name, tags and a note, to be changed at will.

    No dump has them, so that no digest, no report and no stored JSON depends on them.
    """

    display_name: str = Field("", exclude=True)
    tags: tuple[str, ...] = Field((), exclude=True)
    note: str = Field("", exclude=True)


def _printable(text: str, allowed: str) -> str:
    for position, character in enumerate(text):
        if character not in allowed and unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp"):
            told = {"code": f"U+{ord(character):04X}", "position": position}
            problem = "holds the control character {code} at position {position}"
            raise PydanticCustomError("control_character", problem, told)
    return text


def _one_line(text: str) -> str:
    if text != text.strip():
        raise PydanticCustomError("white_space", "begins or ends with white space")
    if text and all(map(_is_invisible, text)):
        raise PydanticCustomError("invisible", "holds no character that can be seen")
    return _printable(text, "")


def _is_invisible(character: str) -> bool:
    """Whether a character alone shows nothing: formats, spaces, marks, and letters that are blank."""
    return unicodedata.category(character) in ("Cf", "Zs", "Mn", "Me") or character in _BLANK


_BLANK: Final = "\u115f\u1160\u2800\u3164\uffa0"


def _no_resource_name(name: str) -> str:
    # Where a name is typed, such a text is taken for what it reads like, and nothing is looked up by it.
    if _RESOURCE_NAME.match(name) or _ID.fullmatch(name) or "/checkpoints/" in name:
        problem = (
            "is {name}, which reads as a resource name or an id; a name that reads as neither would be right"
        )
        raise PydanticCustomError("resource_name", problem, {"name": repr(name[:80])})
    return name


_RESOURCE_NAME: Final = re.compile(
    "(traces|datasets|trainingJobs|evalSets|evaluations|comparisonReports|baseModels)/"
)
_ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{32}")


def _no_comma(tag: str) -> str:
    if "," in tag:
        problem = "is {tag}; a tag without a comma would be right, or several tags"
        raise PydanticCustomError("comma", problem, {"tag": repr(tag)})
    return tag


def _different(tags: tuple[str, ...]) -> tuple[str, ...]:
    for index, tag in enumerate(tags):
        if (first := tags.index(tag)) != index:
            told = {"tag": repr(tag), "first": first, "path": (index,)}
            raise PydanticCustomError("tag_twice", "is {tag}, as tags[{first}] is; each once would do", told)
    return tags


_Tag = Annotated[
    str, Field(min_length=1, max_length=64), AfterValidator(_one_line), AfterValidator(_no_comma)
]


MOST_TAGS: Final = 50
_Tags = Annotated[tuple[_Tag, ...], Field(max_length=MOST_TAGS), AfterValidator(_different)]


class Labels(Value):
    """A name, tags and a note as people give them: the limits of ``Labelled``."""

    display_name: Annotated[
        str, Field(max_length=200), AfterValidator(_one_line), AfterValidator(_no_resource_name)
    ] = ""
    tags: _Tags = ()
    note: Annotated[str, Field(max_length=2_000), AfterValidator(lambda note: _printable(note, "\n\r\t"))] = (
        ""
    )


class TagChanges(Value):
    """Tags to add to those that something has, and to take away."""

    add_tags: _Tags = ()
    remove_tags: _Tags = ()


NO_LABELS: Final[Mapping[str, Any]] = MappingProxyType({})
"""For what was given no name, tags or note."""


def _no_nul(text: str) -> str:
    # PostgreSQL takes none, and no stored text holds one.
    return _printable(text, text.replace("\0", ""))


Wanted = Annotated[tuple[Annotated[str, AfterValidator(_no_nul)], ...], Field(max_length=100)]
"""Values of which any will do; none: all will."""
Contained = Annotated[str, Field(max_length=1_000), AfterValidator(_no_nul)]


class Filter(Value):
    """Conditions of a list, joined by AND. ``order_fields`` are those that the list can be ordered by."""

    order_fields: ClassVar[Sequence[str]] = ()

    created_from: datetime | None = None
    created_before: datetime | None = None


class ListFilter(Filter):
    """Conditions of every list of what people give names. A subclass adds those of its resource.

    A field named ``models``, ``base_models``, ``datasets``, ``eval_sets``, ``evaluations``, ``parents`` or
    ``regraded`` asks for one of these among what an entry is about (see ``subjects``). Without
    ``show_deleted``, what was deleted is left out.
    """

    show_deleted: bool = False
    tags: Annotated[Wanted, Field(max_length=50)] = ()
    id_prefix: Annotated[str, Field(max_length=100), AfterValidator(_no_nul)] = ""
    display_name: Contained = ""
    display_name_contains: Contained = ""
    note_contains: Contained = ""


def subjects(**named: Any) -> list[str]:
    """What an entry of a list is about, as filters ask for it: each value behind the name of its kind.

    A dataset's version stands for the dataset too, and a checkpoint for its training job.
    """
    found = set()
    for kind, values in named.items():
        for value in values:
            if not value:
                continue
            found.add(f"{kind} {value}")
            if kind == "datasets":
                found.add(f"{kind} {value.partition('@')[0]}")
            if kind == "models" and "/checkpoints/" in value:
                found.add(f"{kind} {value.partition('/checkpoints/')[0]}")
    return sorted(found)


Order = Sequence[tuple[str, bool]]
"""By which fields a list is ordered, and whether each one falls."""
Position = Sequence[Any]
"""Where an entry stands in an ordered list, as JSON values."""


class ListAsked(NamedTuple):
    """What a caller asks of a list, unchecked."""

    page_size: int
    page_token: str
    filter_fields: Mapping[str, Any]
    order_by: str

"""What jobs, files, requests and chat templates are, for every service alike: plain values.

Most are stored as JSON: in database columns, manifests, event files and the specs of worker processes. So
the names of their fields, and the order of the fields, must not change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Final, Generic, Literal, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer

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


class StoredFile(Value):
    """A file in the artifact store, and its path inside what it belongs to (a dataset, a checkpoint)."""

    path: str
    size_bytes: int
    digest: str
    uri: str = ""


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
    """One page of a list, and the token of the next page: empty on the last one."""

    items: Sequence[T]
    next_page_token: str

"""Jobs that have not ended while nothing runs them: what is said of them, and how they go on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from tunix_rt.jobs import Job

    Shown = TypeVar("Shown", bound=Message)

_ENDED: Final = ("STATE_SUCCEEDED", "STATE_FAILED", "STATE_CANCELLED")
# By the name of the message: what people call it, and the command that goes on with one.
_KINDS: Final[Mapping[str, tuple[str, Callable[[str], str]]]] = {
    "TrainingJob": ("training job", "tunix-rt train resume {}".format),
    "Evaluation": ("evaluation", "tunix-rt evaluation resume {}".format),
    "Dataset": ("dataset build", lambda _: "the same tunix-rt dataset build"),
}


def has_ended(job: Any) -> bool:
    """Whether nothing more can happen to a job."""
    return _state(job) in _ENDED


def _state(job: Any) -> str:
    return str(type(job).State.Name(job.state))


def is_unfinished(message: Message) -> bool:
    """Whether a message is a job that has not ended."""
    return message.DESCRIPTOR.name in _KINDS and not has_ended(message)


def goes_on(job: Job) -> str:
    """How a job goes on that nothing runs, or ends if it is being cancelled."""
    resume = _KINDS[job.DESCRIPTOR.name][1]
    if _state(job) == "STATE_CANCELLING":
        return "it ends when it is cancelled again, or with: tunix-rt up"
    return f"it goes on with: {resume(job.name.partition('/')[2])}, or with: tunix-rt up"


def at_next_start(job: Job) -> str:
    """What becomes of a job that nothing runs once a server runs jobs again."""
    becomes = "ends, as it was cancelled," if _state(job) == "STATE_CANCELLING" else "goes on"
    return f"{job.name} {becomes} at the next start"


def told(jobs: Sequence[Any]) -> str:
    """A line about jobs of one kind that nothing runs."""
    if len(jobs) == 1:
        return f"{jobs[0].name} has not ended, and no server runs it now; {goes_on(jobs[0])}"
    what, resume = _KINDS[jobs[0].DESCRIPTOR.name]
    return (
        f"{len(jobs)} {what}s have not ended, and no server runs them now; one goes on with: {resume('ID')}, "
        "all with: tunix-rt up"
    )


def queued(message: Shown) -> Shown:
    """A job that nothing runs as what it is, in the queue; any other message as it is."""
    if not is_unfinished(message):
        return message
    if _state(message) != "STATE_RUNNING":
        return message
    copy: Any = type(message)()
    copy.CopyFrom(message)
    copy.state = copy.State.Value("STATE_QUEUED")
    queued_one: Shown = copy
    return queued_one

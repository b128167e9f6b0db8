"""What every engine is to a job: it reads prompts, and completes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tunix_rt_evaluator.evaluations.model import ModelFacts, WorkerItem
from tunix_rt_evaluator.evaluations.results import Generation
from tunix_rt_evaluator.grading.reasoning.model import Answer


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt that can be run.

    Args:
        item_id: of the item that it belongs to.
        text: what the model reads; of an engine that renders no template, the item's prompt.
        ids: the tokens of ``text``; empty where the engine does not know them.
        digest: of the ids, or of the text where there are none.
    """

    item_id: str
    text: str
    ids: tuple[int, ...]
    digest: str


@dataclass(frozen=True, slots=True)
class Request:
    """One answer that is wanted: number ``sample``, from 0, to a prompt."""

    prompt: Prompt
    sample: int = 0


@dataclass(frozen=True, slots=True)
class Completion:
    """What an engine made of a request in ``seconds`` of its time.

    ``error`` says why there is no answer; it concerns the one item. ``cached`` says that it was not made now.
    ``prompt_tokens`` is how many tokens a prompt without ids had, where that came to be known.
    """

    request: Request
    answer: Answer | None
    seconds: float
    error: str = ""
    cached: bool = False
    prompt_tokens: int = 0


Report = Callable[[str, int, int, str], None]
"""Tells how far a stage has come: its name, completed, total (0: unknown) and unit. Raises JobCancelled."""


class Engine(Protocol):
    """Makes answers, all with the decoding that it was opened with."""

    @property
    def facts(self) -> ModelFacts:
        """What is being run."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """All that an answer depends on besides its request, for the key under which it is kept: digests and
        versions, never names. Settled once the prompts were read."""

    @property
    def keeps(self) -> bool:
        """Whether the same request gives the same answer each time, so that answers may be kept."""

    def read(self, items: Sequence[WorkerItem]) -> tuple[list[Prompt], list[Generation]]:
        """The prompts that can be run, and for each item that cannot its failed result. Nothing is cut."""

    def prepare(self, report: Report) -> None:
        """Get ready for all prompts that were read, whether or not each is asked for."""

    def complete(self, requests: Sequence[Request], check: Callable[[], None]) -> Iterator[Completion]:
        """Complete requests of prepared prompts, in any order, each as soon as it is done.

        ``check`` is called every few steps; what it raises ends the run.
        """

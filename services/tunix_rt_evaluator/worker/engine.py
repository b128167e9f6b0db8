"""What every engine is to a job: it reads prompts, and completes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from tunix_rt_evaluator.evaluations.model import Generation, ModelFacts, WorkerItem
from tunix_rt_evaluator.grading.model import Answer
from tunix_rt_kit.canonical import digest_json
from tunix_rt_kit.chat import ChatTemplate, Message
from tunix_rt_kit.errors import InvalidArgument

if TYPE_CHECKING:
    from tunix_rt_kit.models.tokenizer import ModelTokenizer

# Reasons that concern one prompt; any other means that the template itself cannot be used.
_ITEM_REASONS = frozenset({"CHAT_MARKER_IN_CONTENT", "CHAT_MESSAGES_INVALID", "TOKENIZER_INVALID"})


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


def read_prompts(
    items: Sequence[WorkerItem],
    template: ChatTemplate,
    tokenizer: ModelTokenizer,
    *,
    context_length: int,
    vocab_size: int,
) -> tuple[list[Prompt], list[Generation]]:
    """The prompts that can be run, and for each item that cannot its failed result.

    An item fails when the template or the tokenizer refuses its text, when the model has no embedding for a
    token of its prompt (it knows the first ``vocab_size``), or when the prompt leaves no room in the context
    for even one new token. Nothing is cut.

    Raises:
        InvalidArgument: CHAT_TEMPLATE_INVALID, the template itself is at fault.
    """
    prompts: list[Prompt] = []
    failed: list[Generation] = []
    for item in items:
        try:
            text = template.render([Message(role="user", content=item.prompt)], add_generation_prompt=True)
            ids = tuple(tokenizer.encode(text))
        except InvalidArgument as error:
            if error.reason not in _ITEM_REASONS:
                raise
            failed.append(failed_generation(item.id, (), "", error.message))
            continue
        digest = token_digest(ids)
        problem = _problem(ids, context_length, vocab_size)
        if problem:
            failed.append(failed_generation(item.id, ids, digest, problem))
        else:
            prompts.append(Prompt(item.id, text, ids, digest))
    return prompts, failed


def _problem(ids: Sequence[int], context_length: int, vocab_size: int) -> str:
    """Why a prompt cannot be run; empty if it can."""
    if not ids:
        return "the prompt has no tokens"
    # What has no embedding would be taken for the last token that has one.
    if max(ids) >= vocab_size:
        return (
            f"the prompt has token {max(ids)}; the model, which knows {vocab_size}, has no embedding for it"
        )
    if len(ids) >= context_length:
        room = f"the model's context of {context_length} leaves no room for an answer"
        return f"the prompt has {len(ids)} tokens; {room}"
    return ""


def token_digest(ids: Sequence[int]) -> str:
    """Digest of token ids, by which two evaluations prove that they asked the same."""
    return digest_json(list(ids))


def failed_generation(item_id: str, ids: Sequence[int], digest: str, error: str) -> Generation:
    """The result of an item that there is no answer to; ``digest`` is that of its prompt."""
    return Generation(
        item_id=item_id,
        prompt_tokens=len(ids),
        prompt_token_digest=digest,
        output="",
        output_tokens=0,
        finish_reason="failed",
        error=error,
    )

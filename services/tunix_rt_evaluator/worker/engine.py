"""What every engine is to a job: it reads prompts, and completes them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

from tunix_rt_evaluator.evaluations.job_folders import WorkerItem
from tunix_rt_evaluator.evaluations.model import Generation, ModelFacts
from tunix_rt_evaluator.grading.model import Answer
from tunix_rt_kit.canonical import digest_json
from tunix_rt_kit.chat import ChatTemplate, Message, ToolCall
from tunix_rt_kit.conversations import text_of
from tunix_rt_kit.errors import FailedPrecondition, InvalidArgument

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
        digest: of the ids, or of what an engine without them sends.
        chat: messages and tools as such an engine sends them.
    """

    item_id: str
    text: str
    ids: tuple[int, ...]
    digest: str
    chat: Mapping[str, Any] = field(default_factory=dict)


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
        InvalidArgument: CHAT_TEMPLATE_INVALID, the template itself is at fault; CHAT_MESSAGES_INVALID, it
            takes no conversations such as an item's.
        FailedPrecondition: CONVERSATION_LOST, it leaves out a part of them.
    """
    prompts: list[Prompt] = []
    failed: list[Generation] = []
    shown = _Shown(template)
    for item in items:
        try:
            text = template.render(_messages(item), add_generation_prompt=True, tools=item.tools)
            shown.check(item)
            ids = tuple(tokenizer.encode(text))
        except InvalidArgument as error:
            if error.reason not in _ITEM_REASONS:
                raise
            if item.messages and error.reason == "CHAT_MESSAGES_INVALID":
                # What a template does not take of one conversation, it takes of none like it.
                raise InvalidArgument(f"item {item.id!r}: {error.message}", reason=error.reason) from None
            failed.append(failed_generation(item.id, (), "", error.message))
            continue
        digest = token_digest(ids)
        problem = _problem(ids, context_length, vocab_size)
        if problem:
            failed.append(failed_generation(item.id, ids, digest, problem))
        else:
            prompts.append(Prompt(item.id, text, ids, digest))
    return prompts, failed


def _messages(item: WorkerItem) -> Sequence[Message]:
    if not item.messages:
        return [Message(role="user", content=item.prompt)]
    return [
        Message(
            role=message["role"],
            content=text_of(message),
            reasoning=message["reasoning"],
            tool_calls=tuple(
                ToolCall(id=call["id"], name=call["name"], arguments=call["arguments_text"])
                for call in message["tool_calls"]
            ),
            tool_call_id=message["tool_call_id"],
            name=message["name"],
        )
        for message in item.messages
    ]


_TOOL: Final = (
    '{"type": "function", "function": {"name": "tool@probe", "description": "use@probe", "parameters": '
    '{"type": "object", "properties": {"key@probe": {"type": "string"}}}}}'
)


class _Shown:
    """Whether a template shows all of a conversation but its thoughts, which some templates leave out.

    Each conversation is written with a word in place of each of its texts. What a template leaves out may
    depend on the order of turns, and on how many there are.
    """

    def __init__(self, template: ChatTemplate) -> None:
        self._template = template
        self._shown: set[tuple[tuple[Message, ...], int]] = set()

    def check(self, item: WorkerItem) -> None:
        """Raise FailedPrecondition(CONVERSATION_LOST) if the model would not see all of a conversation, and
        InvalidArgument as ``ChatTemplate.render``."""
        if not item.messages:
            return
        messages = tuple(_in_words(index, message) for index, message in enumerate(_messages(item)))
        if (messages, len(item.tools)) in self._shown:
            return
        tools = [_TOOL.replace("@", str(number)) for number in range(len(item.tools))]
        text = self._template.render(messages, add_generation_prompt=True, tools=tools)
        words = [
            (f"tools[{number}]", f"{part}{number}probe")
            for number in range(len(tools))
            for part in ("tool", "use", "key")
        ]
        for index, message in enumerate(messages):
            words.append((f"messages[{index}].content", message.content))
            for number, call in enumerate(message.tool_calls):
                field = f"messages[{index}].tool_calls[{number}]"
                words += [(f"{field}.name", call.name), (f"{field}.arguments", f"value{index}x{number}probe")]
        if lost := [field for field, word in words if word not in text]:
            raise FailedPrecondition(
                f"item {item.id!r}: the chat template does not show the model {lost[0]}; a template that "
                "writes all of the conversation would be right",
                reason="CONVERSATION_LOST",
                metadata={"item": item.id},
            )
        self._shown.add((messages, len(item.tools)))


def _in_words(index: int, message: Message) -> Message:
    """A message with a word in place of each text that it has; ids stay, for some templates check them."""
    calls = tuple(
        call.model_copy(
            update={
                "name": f"call{index}x{number}probe",
                "arguments": json.dumps({"key": f"value{index}x{number}probe"}),
            }
        )
        for number, call in enumerate(message.tool_calls)
    )
    words = {
        field: f"{field}{index}probe" for field in ("content", "reasoning") if getattr(message, field).strip()
    }
    return message.model_copy(update={**words, "tool_calls": calls})


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

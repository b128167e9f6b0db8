"""Prompts as the model reads them: rendered with the chat template, tokenised, refused by name where they
do not fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from tunix_rt_evaluator.evaluations.model import WorkerItem
from tunix_rt_evaluator.evaluations.results import Generation
from tunix_rt_evaluator.worker.engine import Prompt
from tunix_rt_kit.artifacts import digest_json
from tunix_rt_kit.chat import ChatTemplate, Message
from tunix_rt_kit.errors import InvalidArgument

# Reasons that concern one prompt; any other means that the template itself cannot be used.
_ITEM_REASONS = frozenset({"CHAT_MARKER_IN_CONTENT", "CHAT_MESSAGES_INVALID", "TOKENIZER_INVALID"})


class Tokenizer(Protocol):
    """The part of ``tunix_rt_kit.models.tokenizer.ModelTokenizer`` that is used."""

    def encode(self, text: str) -> list[int]:
        """Token ids of a text as it is, no special token added."""


def read_prompts(
    items: Sequence[WorkerItem],
    template: ChatTemplate,
    tokenizer: Tokenizer,
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

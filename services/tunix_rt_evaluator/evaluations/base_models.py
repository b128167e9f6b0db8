"""Base models on this host, without a model library."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Final, Protocol

from tunix_rt_evaluator.evaluations.model import BaseModelFacts
from tunix_rt_kit.chat import ChatTemplate
from tunix_rt_kit.errors import DomainError, FailedPrecondition, FieldViolation, InvalidArgument
from tunix_rt_kit.models.store import ModelStore
from tunix_rt_kit.models.tokenizer import ModelTokenizer, load_tokenizer
from tunix_rt_kit.values import ChatTemplateFields


class HostBaseModels:
    """The base models of a ``ModelStore``."""

    def __init__(self, models_dir: Path) -> None:
        self._store = ModelStore(models_dir)

    def resolve(self, base_model: str) -> BaseModelFacts:
        """What a name means.

        Raises:
            NotFound: BASE_MODEL_UNKNOWN.
            FailedPrecondition: BASE_MODEL_UNSUPPORTED.
        """
        info = self._store.resolve(base_model)
        template = None
        if info.chat_template and info.eos_token:
            template = ChatTemplateFields(
                jinja=info.chat_template, bos_token=info.bos_token or "", eos_token=info.eos_token
            )
        return BaseModelFacts(
            id=info.id,
            available=info.pulled,
            path=str(info.path),
            weights_digest=info.weights_digest,
            chat_template=template,
        )

    def token_counter(self, base_model: str) -> Callable[[str], int | None]:
        """Counts the tokens of texts for a model, whose tokenizer is loaded for the first of them.

        What it returns gives None where the model is not on this host, or cannot be used.
        """

        @cache
        def tokenizer() -> ModelTokenizer | None:
            try:
                info = self._store.resolve(base_model)
                return load_tokenizer(info.path) if info.pulled else None
            except DomainError:
                return None

        def count(text: str) -> int | None:
            found = tokenizer()
            return None if found is None else len(found.encode(text))

        return count

    def check_template(self, model: BaseModelFacts, template: ChatTemplateFields) -> None:
        """Raise FailedPrecondition(CHAT_TEMPLATE_MISMATCH) for a control text that is no token of the model.

        A model that is not on the host yet is let through: the worker checks it.
        """
        if model.available:
            stop_ids(ChatTemplate.of(template), load_tokenizer(model.path))


class Tokenizer(Protocol):
    """The part of ``tunix_rt_kit.models.tokenizer.ModelTokenizer`` that is used."""

    def encode(self, text: str) -> list[int]:
        """Token ids of a text as it is, no special token added."""

    def token_id(self, token: str) -> int | None:
        """The id of a token given as text."""

    def eos_id(self) -> int:
        """The id of the model's own end token."""


def stop_ids(template: ChatTemplate, tokenizer: Tokenizer, of_model: Sequence[int] = ()) -> tuple[int, ...]:
    """The tokens at which generation stops: the template's end of turn, the tokenizer's end token and those
    ``of_model``, see ``hf_folder.read_stop_ids``.

    Raises:
        FailedPrecondition: CHAT_TEMPLATE_MISMATCH, a control text of the template is no single token here.
    """
    for marker in template.markers:
        if tokenizer.token_id(marker) is None or tokenizer.encode(marker) != [tokenizer.token_id(marker)]:
            raise FailedPrecondition(
                f"chat template: {marker!r} is not a single token of the model's tokenizer; use a template "
                "of this model",
                reason="CHAT_TEMPLATE_MISMATCH",
                metadata={"marker": marker},
            )
    ids = tokenizer.encode(template.end_of_turn)
    if len(ids) != 1:
        raise FailedPrecondition(
            f"chat template: the end of turn {template.end_of_turn!r} is {len(ids)} tokens of the model's "
            "tokenizer; it must be one",
            reason="CHAT_TEMPLATE_MISMATCH",
            metadata={"marker": template.end_of_turn},
        )
    return tuple(sorted({ids[0], tokenizer.eos_id(), *of_model}))


MAX_SYSTEM_INSTRUCTION: Final = 20_000


def chat_template(fields: ChatTemplateFields) -> ChatTemplate:
    """The template that ``fields`` describe, tried on a small conversation.

    Raises:
        InvalidArgument: CHAT_TEMPLATE_INVALID, CHAT_TEMPLATE_UNKNOWN or CHAT_TEMPLATE_PREFIX.
    """
    if len(fields.system_instruction) > MAX_SYSTEM_INSTRUCTION:
        description = (
            f"has {len(fields.system_instruction):,} characters; at most {MAX_SYSTEM_INSTRUCTION:,} would "
            "be right"
        )
        raise InvalidArgument(
            f"chat_template.system_instruction: {description}",
            reason="CHAT_TEMPLATE_INVALID",
            violations=[FieldViolation("spec.chat_template.system_instruction", description)],
        )
    template = ChatTemplate.of(fields)
    template.check()
    return template

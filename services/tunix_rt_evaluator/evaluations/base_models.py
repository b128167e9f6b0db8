"""Base models on this host, without a model library."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

from tunix_rt_evaluator.evaluations.model import BaseModelFacts
from tunix_rt_evaluator.evaluations.stop_tokens import stop_ids
from tunix_rt_kit.chat import ChatTemplate
from tunix_rt_kit.errors import DomainError
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

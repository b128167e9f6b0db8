"""Base models on this host, without a model library."""

from __future__ import annotations

from pathlib import Path

from tunix_rt_evaluator.model import BaseModelFacts, ChatTemplateFields
from tunix_rt_evaluator.stop_tokens import stop_ids
from tunix_rt_kit.chat import ChatTemplate
from tunix_rt_kit.models.store import ModelStore
from tunix_rt_kit.models.tokenizer import load_tokenizer


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

    def check_template(self, model: BaseModelFacts, template: ChatTemplateFields) -> None:
        """Raise FailedPrecondition(CHAT_TEMPLATE_MISMATCH) for a control text that is no token of the model.

        A model that is not on the host yet is let through: the worker checks it.
        """
        if model.available:
            stop_ids(ChatTemplate.model_validate(template.model_dump()), load_tokenizer(model.path))

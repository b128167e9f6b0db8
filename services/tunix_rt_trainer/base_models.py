"""Base models on this host, without a model library."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tunix_rt_kit.chat import ChatTemplate
from tunix_rt_kit.models.store import BaseModelInfo, ModelStore
from tunix_rt_kit.models.tokenizer import load_tokenizer
from tunix_rt_trainer.model import BaseModelSummary, ChatTemplateFields
from tunix_rt_trainer.turn_markers import require_single_tokens


class HostBaseModels:
    """The base models of a ``ModelStore``."""

    def __init__(self, models_dir: Path) -> None:
        self._store = ModelStore(models_dir)

    def list(self) -> Sequence[BaseModelSummary]:
        """All of them."""
        return [_summary(info) for info in self._store.list()]

    def resolve(self, base_model: str) -> BaseModelSummary:
        """What a name means.

        Raises:
            NotFound: BASE_MODEL_UNKNOWN.
            FailedPrecondition: BASE_MODEL_UNSUPPORTED.
        """
        return _summary(self._store.resolve(base_model))

    def check_template(self, model: BaseModelSummary, turn_markers: Sequence[str]) -> None:
        """Raises FailedPrecondition(CHAT_TEMPLATE_MISMATCH) for a marker that is not a token of the model.

        One that is not on the host yet is let through: the worker checks it.
        """
        if model.available:
            require_single_tokens(turn_markers, load_tokenizer(model.path), model.id)


def _summary(info: BaseModelInfo) -> BaseModelSummary:
    fields, digest = None, ""
    if info.chat_template and info.eos_token:
        template = ChatTemplate.from_jinja(
            info.chat_template, bos_token=info.bos_token or "", eos_token=info.eos_token
        )
        fields, digest = ChatTemplateFields(**template.model_dump()), template.digest
    return BaseModelSummary(
        id=info.id,
        available=info.pulled,
        family=info.family,
        parameter_count=info.parameter_count if info.pulled else 0,
        context_length=info.context_length,
        license=info.license or "",
        weights_digest=info.weights_digest or "",
        tokenizer_digest=info.tokenizer_digest or "",
        path=str(info.path),
        chat_template=fields,
        chat_template_digest=digest,
    )

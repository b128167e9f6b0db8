"""Base models between the protobuf contract and the domain."""

from __future__ import annotations

from collections.abc import Iterable

from tunix_rt import v1
from tunix_rt_kit.convert import template_message, to_message
from tunix_rt_trainer.base_models.service import BaseModelSummary


def base_models_response(
    models: Iterable[BaseModelSummary], next_page_token: str
) -> v1.ListBaseModelsResponse:
    """One page of base models."""
    return v1.ListBaseModelsResponse(
        base_models=[base_model_message(model) for model in models], next_page_token=next_page_token
    )


def base_model_message(model: BaseModelSummary) -> v1.BaseModel:
    """A base model."""
    template = model.chat_template
    return to_message(
        model,
        v1.BaseModel,
        name=f"baseModels/{model.id}",
        base_model=model.id,
        chat_template=None if template is None else template_message(template, model.chat_template_digest),
    )

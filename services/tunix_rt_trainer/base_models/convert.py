"""Base models between the protobuf contract and the domain."""

from __future__ import annotations

from tunix_rt import v1
from tunix_rt_kit.convert import template_message, to_message
from tunix_rt_trainer.base_models.service import BaseModelSummary


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

"""The chat template that a spec names."""

from __future__ import annotations

from tunix_rt_exporter.datasets.model import TemplateFacts
from tunix_rt_kit.chat import ChatTemplate, losses
from tunix_rt_kit.values import ChatTemplateFields


def chat_template(fields: ChatTemplateFields) -> ChatTemplate:
    """The chat template of a spec; raises InvalidArgument (CHAT_TEMPLATE_...)."""
    return ChatTemplate.of(fields)


def template_facts(template: ChatTemplate) -> TemplateFacts:
    """What a dataset says about its chat template; raises InvalidArgument if the template fails."""
    return TemplateFacts(
        required_tokens=template.markers,
        control_texts=template.control_texts,
        losses=tuple(losses(template)),
    )

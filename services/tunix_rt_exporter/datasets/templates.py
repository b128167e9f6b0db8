"""The chat template that a spec names."""

from __future__ import annotations

from tunix_rt_exporter.datasets.model import TemplateFacts
from tunix_rt_kit.chat import ChatTemplate, losses
from tunix_rt_kit.values import ChatTemplateFields


def chat_template(fields: ChatTemplateFields) -> ChatTemplate:
    """The chat template of a spec; raises InvalidArgument (CHAT_TEMPLATE_...)."""
    if fields.jinja is not None:
        return ChatTemplate.from_jinja(
            fields.jinja,
            bos_token=fields.bos_token,
            eos_token=fields.eos_token,
            system_instruction=fields.system_instruction,
        )
    known = ChatTemplate.built_in(fields.builtin or "", system_instruction=fields.system_instruction)
    return ChatTemplate(
        **{**known.model_dump(), "bos_token": fields.bos_token, "eos_token": fields.eos_token}
    )


def template_facts(template: ChatTemplate) -> TemplateFacts:
    """What a dataset says about its chat template; raises InvalidArgument if the template fails."""
    return TemplateFacts(
        required_tokens=template.markers,
        control_texts=template.control_texts,
        losses=tuple(losses(template)),
    )

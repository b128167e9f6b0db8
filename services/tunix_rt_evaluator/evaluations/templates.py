"""Chat templates as they are sent, as values that render."""

from __future__ import annotations

from typing import Final

from tunix_rt_kit.chat import ChatTemplate
from tunix_rt_kit.errors import FieldViolation, InvalidArgument
from tunix_rt_kit.values import ChatTemplateFields

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


def fields_of(template: ChatTemplate) -> ChatTemplateFields:
    """A template as it is sent and stored."""
    return template.fields

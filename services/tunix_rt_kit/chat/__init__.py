"""Chat templates, and how a reasoning trace is written as text."""

from tunix_rt_kit.chat.builtin_templates import BUILTIN_NAMES
from tunix_rt_kit.chat.messages import (
    Message,
    ReasoningStyle,
    Role,
    render_response,
    trace_messages,
)
from tunix_rt_kit.chat.template import ChatTemplate, Frame, LostText, losses

__all__ = [
    "BUILTIN_NAMES",
    "ChatTemplate",
    "Frame",
    "LostText",
    "Message",
    "ReasoningStyle",
    "Role",
    "losses",
    "render_response",
    "trace_messages",
]

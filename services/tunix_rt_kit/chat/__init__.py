"""Chat templates, and how a reasoning trace is written and read as text."""

from tunix_rt_kit.chat.messages import Message, Role
from tunix_rt_kit.chat.reasoning import (
    REASONING_STYLES,
    ReasoningStyle,
    extract_answer,
    render_response,
    trace_messages,
)
from tunix_rt_kit.chat.template import BUILTIN_NAMES, BuiltinName, ChatTemplate
from tunix_rt_kit.chat.trace_text import trace_text

__all__ = [
    "BUILTIN_NAMES",
    "REASONING_STYLES",
    "BuiltinName",
    "ChatTemplate",
    "Message",
    "ReasoningStyle",
    "Role",
    "extract_answer",
    "render_response",
    "trace_messages",
    "trace_text",
]

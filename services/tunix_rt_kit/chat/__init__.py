"""Chat templates, how a reasoning trace is written as text, and conversations as training examples."""

from tunix_rt_kit.chat.builtin_templates import BUILTIN_NAMES
from tunix_rt_kit.chat.conversations import (
    ChangedHistory,
    Conversation,
    ConversationRenderer,
    LearnedTurn,
    RenderedConversation,
    Segment,
    Unrendered,
)
from tunix_rt_kit.chat.messages import (
    Message,
    ReasoningStyle,
    Role,
    ToolCall,
    render_response,
    trace_messages,
)
from tunix_rt_kit.chat.template import ChatTemplate, Frame, LostText, losses

__all__ = [
    "BUILTIN_NAMES",
    "ChangedHistory",
    "ChatTemplate",
    "Conversation",
    "ConversationRenderer",
    "Frame",
    "LearnedTurn",
    "LostText",
    "Message",
    "ReasoningStyle",
    "RenderedConversation",
    "Role",
    "Segment",
    "ToolCall",
    "Unrendered",
    "losses",
    "render_response",
    "trace_messages",
]

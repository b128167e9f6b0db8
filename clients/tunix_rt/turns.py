"""What is said in a trace, in either of its forms."""

from __future__ import annotations

from tunix_rt import v1


def role_of(message: v1.Message) -> str:
    """Who speaks, such as "user"."""
    return v1.Message.Role.Name(message.role).removeprefix("ROLE_").lower()


def text_of(message: v1.Message) -> str:
    """The text of a message."""
    return "".join(part.text for part in message.content)


def call_text(call: v1.ToolCall) -> str:
    """A call on one line, such as ``add({"a": 1})``."""
    return f"{call.name}({call.arguments_text})"


def question(trace: v1.Trace) -> str:
    """What is asked: the prompt, or what the user of a conversation says first."""
    users = (text_of(turn) for turn in trace.messages if turn.role == v1.Message.ROLE_USER)
    return next(users, trace.prompt)


def answer(trace: v1.Trace) -> str:
    """The answer: the final one, or what the assistant of a conversation says last, which may be a call."""
    if not trace.messages:
        return trace.final_answer
    spoken = [turn for turn in trace.messages if turn.role == v1.Message.ROLE_ASSISTANT]
    if not spoken:
        return ""
    return text_of(spoken[-1]) or ", ".join(call_text(call) for call in spoken[-1].tool_calls)


def assistant_turns(trace: v1.Trace) -> int:
    """How often the assistant speaks, as filters count it."""
    return sum(turn.role == v1.Message.ROLE_ASSISTANT for turn in trace.messages) or 1


def turn_role(trace: v1.Trace, index: int) -> str:
    """Who speaks in a turn, such as "user"."""
    return role_of(trace.messages[index]) if trace.messages else ("user", "assistant")[index]

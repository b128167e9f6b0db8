"""What is said in a trace, in either of its forms."""

from __future__ import annotations

import json
from collections.abc import Sequence

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


def tool_name(tool: v1.Tool) -> str:
    """The name of a tool, which may stand in its definition alone; "" if that has none."""
    try:
        definition = json.loads(tool.definition_text or "{}")
        return tool.name or str(definition.get("function", definition).get("name", ""))
    except (ValueError, AttributeError):
        return tool.name


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


def in_call_order(messages: Sequence[v1.Message]) -> list[int]:
    """The places of messages such that the results behind calls stand in the order of these calls.

    Most chat templates write no ids, so that the order alone says which call a result is of. Results of which
    the call is not known stay where they are.
    """
    order: list[int] = []
    at = 0
    while at < len(messages):
        end = at + 1
        while end < len(messages) and messages[end].role == v1.Message.ROLE_TOOL:
            end += 1
        order += [at, *_sorted_results(messages, at, end)]
        at = end
    return order


def _sorted_results(messages: Sequence[v1.Message], at: int, end: int) -> list[int]:
    """The places of the results between ``at``, the message with their calls, and ``end``."""
    calls = messages[at].tool_calls
    answered: dict[int, int] = {}
    for place in range(at + 1, end):
        wanted = messages[place].tool_call_id
        open_calls = (
            number for number, call in enumerate(calls) if call.id == wanted and number not in answered
        )
        number = next(open_calls, None)
        if number is None:
            return list(range(at + 1, end))
        answered[number] = place
    return [answered[number] for number in sorted(answered)]

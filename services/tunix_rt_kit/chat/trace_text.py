"""How a trace is written as the text that a model learns.

The style ``numbered``::

    Reasoning:
    1. first step
    2. second step
    Answer: 42

and ``answer-only`` is its last line alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, get_args

from tunix_rt_kit.chat.messages import Message
from tunix_rt_kit.errors import InvalidArgument

ReasoningStyle = Literal["numbered", "answer-only"]
REASONING_STYLES: Final[tuple[ReasoningStyle, ...]] = get_args(ReasoningStyle)

REASONING_HEADING: Final = "Reasoning:"
ANSWER_LABEL: Final = "Answer:"


def render_response(steps: Sequence[str], final_answer: str, style: ReasoningStyle = "numbered") -> str:
    """The text of a model's turn: reasoning and answer to the byte, without any chat marker.

    Steps keep their line breaks. Without steps, ``numbered`` is the answer alone. Raises InvalidArgument
    (REASONING_STYLE_UNKNOWN).
    """
    if style not in REASONING_STYLES:
        raise InvalidArgument(
            f"reasoning_style is {style!r}; one of {', '.join(REASONING_STYLES)} would be right",
            reason="REASONING_STYLE_UNKNOWN",
        )
    answer = f"{ANSWER_LABEL} {final_answer}"
    if style == "answer-only" or not steps:
        return answer
    numbered = [f"{number}. {step}" for number, step in enumerate(steps, start=1)]
    return "\n".join([REASONING_HEADING, *numbered, answer])


def trace_messages(
    prompt: str, steps: Sequence[str], final_answer: str, style: ReasoningStyle = "numbered"
) -> tuple[Message, Message]:
    """A trace as two messages: the user's prompt and the assistant's response."""
    response = render_response(steps, final_answer, style)
    return Message(role="user", content=prompt), Message(role="assistant", content=response)

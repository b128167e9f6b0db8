"""How a trace's reasoning is written in the text that a model learns, and how the answer is read back.

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


def numbered_steps(steps: Sequence[str]) -> str:
    """The steps numbered from 1, one a line; a line break inside a step becomes a space."""
    return "\n".join([f"{number}. {_one_line(step)}".rstrip() for number, step in enumerate(steps, start=1)])


def render_response(steps: Sequence[str], final_answer: str, style: ReasoningStyle = "numbered") -> str:
    """The text of a model's turn: reasoning and answer, trimmed, without any chat marker.

    With no steps ``numbered`` is the answer line alone. Raises InvalidArgument (REASONING_STYLE_UNKNOWN).
    """
    answer = f"{ANSWER_LABEL} {final_answer.strip()}".rstrip()
    if style == "answer-only":
        return answer
    if style == "numbered":
        return f"{REASONING_HEADING}\n{numbered_steps(steps)}\n{answer}" if steps else answer
    raise InvalidArgument(
        f"reasoning_style is {style!r}; one of {', '.join(REASONING_STYLES)} would be right",
        reason="REASONING_STYLE_UNKNOWN",
    )


def trace_messages(
    prompt: str, steps: Sequence[str], final_answer: str, style: ReasoningStyle = "numbered"
) -> tuple[Message, Message]:
    """A trace as two messages: the user's prompt and the assistant's response."""
    response = render_response(steps, final_answer, style)
    return Message(role="user", content=prompt), Message(role="assistant", content=response)


def extract_answer(text: str) -> str:
    """The answer in a model's text: what follows the last ``Answer:``; the whole text if there is none."""
    return text.rpartition(ANSWER_LABEL)[2].strip()


def _one_line(text: str) -> str:
    lines = text.splitlines()
    return text.strip() if len(lines) == 1 else " ".join(line.strip() for line in lines if line.strip())

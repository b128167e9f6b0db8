"""The text format of Gemma's instruction-tuned models.

A turn is ``<start_of_turn>``, ``user`` or ``model``, a newline, the trimmed text, ``<end_of_turn>`` and a
newline. There is no system turn: a system instruction is put before the first user text with an empty line
between, as Gemma 3's own template does. Functions here leave ``<bos>`` out; `ChatTemplate` puts it first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tunix_rt_kit.chat.messages import Message, check_alternation
from tunix_rt_kit.chat.reasoning import ReasoningStyle, render_response

BOS: Final = "<bos>"
START: Final = "<start_of_turn>"
END: Final = "<end_of_turn>"
MARKERS: Final = (BOS, START, END)


def turn(role: str, text: str) -> str:
    """One closed turn of ``user`` or ``model``."""
    return f"{START}{role}\n{text.strip()}{END}\n"


def user_turn(text: str, *, system_instruction: str = "") -> str:
    """A user's turn, with the system instruction folded in before the text if there is one."""
    return turn("user", fold_system_instruction(text, system_instruction))


def model_turn(text: str) -> str:
    """A model's turn."""
    return turn("model", text)


def generation_prompt() -> str:
    """What opens the turn that the model is to write."""
    return f"{START}model\n"


def fold_system_instruction(text: str, system_instruction: str) -> str:
    """The first user text with the system instruction before it; the text alone when there is none."""
    return f"{system_instruction}\n\n{text.strip()}" if system_instruction else text


def conversation(messages: Sequence[Message]) -> str:
    """All turns, in order; a leading system message is folded into the first user turn.

    Raises InvalidArgument (CHAT_MESSAGES_INVALID) unless user and assistant take turns and user begins.
    """
    check_alternation(messages)
    system = messages[0].content if messages[0].role == "system" else ""
    turns = messages[1:] if messages[0].role == "system" else messages
    first, rest = turns[0], turns[1:]
    return user_turn(first.content, system_instruction=system) + "".join(
        turn("model" if message.role == "assistant" else "user", message.content) for message in rest
    )


def trace_prompt(
    prompt: str,
    steps: Sequence[str],
    final_answer: str,
    *,
    system_instruction: str = "",
    style: ReasoningStyle = "numbered",
) -> str:
    """A whole trace as one text: the user's turn with the prompt, the model's with reasoning and answer."""
    asked = user_turn(prompt, system_instruction=system_instruction)
    return asked + model_turn(render_response(steps, final_answer, style))

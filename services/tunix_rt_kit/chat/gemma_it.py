"""The text format of Gemma's instruction-tuned models.

A turn is ``<start_of_turn>``, ``user`` or ``model``, a newline, the trimmed text, ``<end_of_turn>`` and a
newline. There is no system turn: a system instruction is put before the first user text with an empty line
between, as Gemma 3's own template does. Functions here leave ``<bos>`` out; `ChatTemplate` puts it first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tunix_rt_kit.chat.frame import TextFormat
from tunix_rt_kit.chat.messages import Message, check_alternation

BOS: Final = "<bos>"
START: Final = "<start_of_turn>"
END: Final = "<end_of_turn>"
MARKERS: Final = (BOS, START, END)


def turn(role: str, text: str) -> str:
    """One closed turn of ``user`` or ``model``."""
    return f"{START}{role}\n{text.strip()}{END}\n"


def user_turn(text: str, *, system_instruction: str | None = None) -> str:
    """A user's turn; a system instruction stands before the text, untrimmed."""
    if system_instruction is None:
        return turn("user", text)
    return f"{START}user\n{system_instruction}\n\n{text.strip()}{END}\n"


def model_turn(text: str) -> str:
    """A model's turn."""
    return turn("model", text)


def generation_prompt() -> str:
    """The text that opens the turn that the model is to write."""
    return f"{START}model\n"


def conversation(messages: Sequence[Message]) -> str:
    """All turns, in order; a leading system message is folded into the first user turn.

    Raises InvalidArgument (CHAT_MESSAGES_INVALID) unless user and assistant take turns and user begins.
    """
    check_alternation(messages)
    has_system = messages[0].role == "system"
    system = messages[0].content if has_system else None
    first, *rest = messages[1:] if has_system else messages
    return user_turn(first.content, system_instruction=system) + "".join(
        model_turn(message.content) if message.role == "assistant" else user_turn(message.content)
        for message in rest
    )


FORMAT: Final = TextFormat(
    bos=BOS,
    end_of_turn=END,
    markers=MARKERS,
    generation_prompt=generation_prompt(),
    conversation=conversation,
    system_turn=False,
)

"""ChatML: every turn is ``<|im_start|>role``, a newline, the text as it is, ``<|im_end|>`` and a newline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tunix_rt_kit.chat.messages import Message

START: Final = "<|im_start|>"
END: Final = "<|im_end|>"
MARKERS: Final = (START, END)


def turn(role: str, text: str) -> str:
    """One closed turn."""
    return f"{START}{role}\n{text}{END}\n"


def generation_prompt() -> str:
    """What opens the turn that the model is to write."""
    return f"{START}assistant\n"


def conversation(messages: Sequence[Message]) -> str:
    """All turns, in order. ChatML asks nothing of the order of roles."""
    return "".join(turn(message.role, message.content) for message in messages)

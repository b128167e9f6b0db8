"""ChatML: every turn is ``<|im_start|>role``, a newline, the text as it is, ``<|im_end|>`` and a newline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tunix_rt_kit.chat.messages import Message
from tunix_rt_kit.chat.text_format import TextFormat

_START: Final = "<|im_start|>"
_END: Final = "<|im_end|>"


def _conversation(messages: Sequence[Message]) -> str:
    # ChatML asks nothing of the order of roles.
    return "".join(f"{_START}{message.role}\n{message.content}{_END}\n" for message in messages)


FORMAT: Final = TextFormat(
    bos="",
    end_of_turn=_END,
    markers=(_START, _END),
    generation_prompt=f"{_START}assistant\n",
    conversation=_conversation,
    trims=False,
)

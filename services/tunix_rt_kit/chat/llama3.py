"""The text format of Llama 3's instruction-tuned models, as Meta's model card gives it.

A turn is ``<|start_header_id|>``, the role, ``<|end_header_id|>``, an empty line, the trimmed text and
``<|eot_id|>``, with no line break behind it. ``<|begin_of_text|>`` stands once, before everything.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tunix_rt_kit.chat.messages import Message
from tunix_rt_kit.chat.text_format import TextFormat

_BOS: Final = "<|begin_of_text|>"
_START: Final = "<|start_header_id|>"
_END_OF_HEADER: Final = "<|end_header_id|>"
_END: Final = "<|eot_id|>"


def _header(role: str) -> str:
    return f"{_START}{role}{_END_OF_HEADER}\n\n"


def _conversation(messages: Sequence[Message]) -> str:
    # The published template asks nothing of the order of roles.
    return "".join(f"{_header(message.role)}{message.content.strip()}{_END}" for message in messages)


FORMAT: Final = TextFormat(
    bos=_BOS,
    end_of_turn=_END,
    markers=(_BOS, _START, _END_OF_HEADER, _END),
    generation_prompt=_header("assistant"),
    conversation=_conversation,
)

"""What the built-in templates have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tunix_rt_kit.chat.messages import Message


@dataclass(frozen=True, slots=True)
class TextFormat:
    """A built-in chat template.

    Args:
        bos: what stands before everything; empty if nothing does.
        end_of_turn: what closes a model's turn.
        markers: all control texts, ``bos`` and ``end_of_turn`` among them.
        generation_prompt: what opens the turn that the model is to write.
        conversation: all turns, in order, without ``bos``.
        system_turn: whether a system instruction has a turn of its own.
        trims: whether user's and assistant's texts are written without the white space at their ends.
    """

    bos: str
    end_of_turn: str
    markers: tuple[str, ...]
    generation_prompt: str
    conversation: Callable[[Sequence[Message]], str]
    system_turn: bool = True
    trims: bool = True

"""What a chat template writes around texts."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from tunix_rt_kit.chat.messages import Message

LostText = Literal["prompt", "reply"]

# <|im_start|>, </s>, <start_of_turn>, <think>; [INST], [/INST].
_CONTROL: Final = re.compile(r"<[^<>\s]{1,64}>|\[/?[A-Z][A-Z_]+\]")


@dataclass(frozen=True, slots=True)
class TextFormat:
    """A built-in chat template.

    Args:
        bos: the text before everything; empty for none.
        end_of_turn: the text that closes a model's turn.
        markers: all control texts, ``bos`` and ``end_of_turn`` among them.
        generation_prompt: the text that opens the turn that the model is to write.
        conversation: writes all turns, in order, without ``bos``.
        system_turn: whether a system instruction has a turn of its own.
        trims: whether white space at the ends of user's and assistant's texts is left out.
    """

    bos: str
    end_of_turn: str
    markers: tuple[str, ...]
    generation_prompt: str
    conversation: Callable[[Sequence[Message]], str]
    system_turn: bool = True
    trims: bool = True


@dataclass(frozen=True, slots=True)
class Frame:
    """The texts that a template writes around a user's text and its reply.

    ``opening`` and ``between`` stand around the user's text in the prompt, ``before`` and ``closing`` around
    the reply in the response.
    """

    opening: str
    between: str
    before: str
    closing: str

    def lost(self, turn: tuple[str, str], example: tuple[str, str]) -> LostText | None:
        """Which text of ``turn`` its rendering ``example`` does not hold as it is; None if it holds both.

        The reply must be there to the byte. The prompt may lose white space at its ends: it is asked in the
        same way when the model is evaluated.
        """
        (asked, reply), (prompt, response) = turn, example
        if response != f"{self.before}{reply}{self.closing}":
            return "reply"
        framed = len(self.opening) + len(self.between) <= len(prompt)
        if not (framed and prompt.startswith(self.opening) and prompt.endswith(self.between)):
            return "prompt"
        written = prompt[len(self.opening) : len(prompt) - len(self.between)]
        return None if written == asked or written.strip() == asked.strip() else "prompt"

    def whole(self, asked: str, reply: str) -> str:
        """Both texts in one, as the template writes them."""
        return f"{self.opening}{asked}{self.between}{self.before}{reply}{self.closing}"

    def reply(self, response: str) -> str:
        """The reply in a rendered response."""
        return response.removeprefix(self.before).removesuffix(self.closing)

    def control_texts(self) -> list[str]:
        """The parts of the frame that look like single tokens of a tokenizer."""
        parts = (self.opening, self.between, self.before, self.closing)
        return list(dict.fromkeys(found for part in parts for found in _CONTROL.findall(part)))

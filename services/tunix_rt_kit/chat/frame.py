"""What a chat template writes around texts, and so whether it writes the texts themselves as they are."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

LostText = Literal["prompt", "reply"]

# <|im_start|>, </s>, <start_of_turn>, <think>; [INST], [/INST].
_CONTROL: Final = re.compile(r"<[^<>\s]{1,64}>|\[/?[A-Z][A-Z_]+\]")


@dataclass(frozen=True, slots=True)
class Frame:
    """What stands around a user's text and the reply to it, whatever these say.

    ``opening`` and ``between`` stand around the user's text in the prompt, ``before`` and ``closing`` around
    the reply in the response.
    """

    opening: str
    between: str
    before: str
    closing: str

    def lost(self, turn: tuple[str, str], example: tuple[str, str]) -> LostText | None:
        """The text that ``example``, the rendered ``turn``, does not hold as it is; None if it holds both.

        The reply must be there to the byte; of the prompt, which is asked in the same way when the model is
        evaluated, white space at its ends may be missing.
        """
        (asked, reply), (prompt, response) = turn, example
        if response != f"{self.before}{reply}{self.closing}":
            return "reply"
        framed = len(self.opening) + len(self.between) <= len(prompt)
        if not (framed and prompt.startswith(self.opening) and prompt.endswith(self.between)):
            return "prompt"
        written = prompt[len(self.opening) : len(prompt) - len(self.between)]
        return None if written == asked or written.strip() == asked.strip() else "prompt"

    def reply(self, response: str) -> str:
        """The reply in a rendered response."""
        return response.removeprefix(self.before).removesuffix(self.closing)

    def control_texts(self) -> list[str]:
        """What stands in it and looks like a text that a tokenizer knows as one token."""
        parts = (self.opening, self.between, self.before, self.closing)
        return list(dict.fromkeys(found for part in parts for found in _CONTROL.findall(part)))

"""How chat templates write texts: ChatML, Llama 3, all built-in ones as Jinja, and the frame of a turn.

Gemma's format is in ``gemma_it``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
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


def _chatml(messages: Sequence[Message]) -> str:
    # Roles may come in any order.
    return "".join(f"<|im_start|>{message.role}\n{message.content}<|im_end|>\n" for message in messages)


CHATML: Final = TextFormat(
    bos="",
    end_of_turn="<|im_end|>",
    markers=("<|im_start|>", "<|im_end|>"),
    generation_prompt="<|im_start|>assistant\n",
    conversation=_chatml,
    trims=False,
)
"""A turn is ``<|im_start|>role``, a newline, the text as it is, ``<|im_end|>`` and a newline."""


def _llama3_header(role: str) -> str:
    return f"<|start_header_id|>{role}<|end_header_id|>\n\n"


def _llama3(messages: Sequence[Message]) -> str:
    # The published template takes roles in any order.
    return "".join(
        f"{_llama3_header(message.role)}{message.content.strip()}<|eot_id|>" for message in messages
    )


LLAMA3: Final = TextFormat(
    bos="<|begin_of_text|>",
    end_of_turn="<|eot_id|>",
    markers=("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    generation_prompt=_llama3_header("assistant"),
    conversation=_llama3,
)
"""The format of Llama 3's instruction-tuned models, as Meta's model card gives it.

A turn is ``<|start_header_id|>``, the role, ``<|end_header_id|>``, an empty line, the trimmed text and
``<|eot_id|>``, without a line break. ``<|begin_of_text|>`` stands once, before everything.
"""


def builtin_source(name: str) -> str:
    """Jinja source that renders like the built-in template ``name``; ``bos_token`` is a variable in it."""
    return resources.files(__package__).joinpath("templates", f"{name}.jinja").read_text(encoding="utf-8")


def with_system_instruction(source: str, instruction: str) -> str:
    """``source`` with a system message before every conversation that does not bring one."""
    if not instruction:
        return source
    literal = instruction.encode("unicode_escape").decode("ascii").replace("'", "\\'")
    return (
        "{%- if messages[0].role != 'system' -%}"
        f"{{%- set messages = [{{'role': 'system', 'content': '{literal}'}}] + messages -%}}"
        "{%- endif -%}" + source
    )

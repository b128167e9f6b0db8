"""The built-in chat templates: which there are, what each writes, and its Jinja source in ``templates/``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Final, Literal, get_args

from tunix_rt_kit.chat import gemma_it
from tunix_rt_kit.chat.frame import TextFormat
from tunix_rt_kit.chat.messages import Message

BuiltinName = Literal["gemma-it", "chatml", "llama-3"]
BUILTIN_NAMES: Final[tuple[BuiltinName, ...]] = get_args(BuiltinName)


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


BUILTIN_FORMATS: Final[Mapping[BuiltinName, TextFormat]] = {
    "gemma-it": gemma_it.FORMAT,
    "chatml": CHATML,
    "llama-3": LLAMA3,
}


def builtin_source(name: str) -> str:
    """Jinja source that renders like the built-in template ``name``; ``bos_token`` is a variable in it."""
    return resources.files(__package__).joinpath("templates", f"{name}.jinja").read_text(encoding="utf-8")

"""The built-in chat templates: which there are, what each writes, and its Jinja source in ``templates/``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Final, Literal, get_args

from tunix_rt_kit.chat.messages import Message, check_alternation

BuiltinName = Literal["gemma-it", "chatml", "llama-3"]
BUILTIN_NAMES: Final[tuple[BuiltinName, ...]] = get_args(BuiltinName)


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


_START: Final = "<start_of_turn>"
_END: Final = "<end_of_turn>"


def gemma_turn(role: str, text: str) -> str:
    """One closed turn of ``user`` or ``model``."""
    return f"{_START}{role}\n{text.strip()}{_END}\n"


def gemma_user_turn(text: str, *, system_instruction: str | None = None) -> str:
    """A user's turn; a system instruction stands before the text, untrimmed."""
    if system_instruction is None:
        return gemma_turn("user", text)
    return f"{_START}user\n{system_instruction}\n\n{text.strip()}{_END}\n"


def gemma_model_turn(text: str) -> str:
    """A model's turn."""
    return gemma_turn("model", text)


def gemma_conversation(messages: Sequence[Message]) -> str:
    """All turns, in order; a leading system message is folded into the first user turn.

    Raises InvalidArgument (CHAT_MESSAGES_INVALID) unless user and assistant take turns and user begins.
    """
    check_alternation(messages)
    has_system = messages[0].role == "system"
    system = messages[0].content if has_system else None
    first, *rest = messages[1:] if has_system else messages
    return gemma_user_turn(first.content, system_instruction=system) + "".join(
        gemma_model_turn(message.content) if message.role == "assistant" else gemma_user_turn(message.content)
        for message in rest
    )


GEMMA_IT: Final = TextFormat(
    bos="<bos>",
    end_of_turn=_END,
    markers=("<bos>", _START, _END),
    generation_prompt=f"{_START}model\n",
    conversation=gemma_conversation,
    system_turn=False,
)
"""The format of Gemma's instruction-tuned models.

A turn is ``<start_of_turn>``, ``user`` or ``model``, a newline, the trimmed text, ``<end_of_turn>`` and a
newline. There is no system turn: a system instruction is put before the first user text with an empty line
between, as Gemma 3's own template does.
"""


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
    "gemma-it": GEMMA_IT,
    "chatml": CHATML,
    "llama-3": LLAMA3,
}


def builtin_source(name: str) -> str:
    """Jinja source that renders like the built-in template ``name``; ``bos_token`` is a variable in it."""
    return resources.files(__package__).joinpath("templates", f"{name}.jinja").read_text(encoding="utf-8")

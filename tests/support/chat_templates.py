# ruff: noqa: RUF001  (some models mark turns with full-width characters)
"""Chat templates in the manner of models that reason, or that trim: written for the tests."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tunix_rt_kit.chat import BUILTIN_NAMES, ChatTemplate

_TOKENS: Final = {
    "r1_like": ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"),
    "qwen3_like": ("", "<|im_end|>"),
    "llama3_like": ("<|begin_of_text|>", "<|eot_id|>"),
    "marked_like": ("", "<|im_end|>"),
    "trainer_like": ("", "<|im_end|>"),
}

REPLY_FRAMES: Final = {
    "gemma-it": ("", "<end_of_turn>\n"),
    "chatml": ("", "<|im_end|>\n"),
    "llama-3": ("", "<|eot_id|>"),
    "r1_like": ("", "<｜end▁of▁sentence｜>"),
    "qwen3_like": ("<think>\n\n</think>\n\n", "<|im_end|>\n"),
    "llama3_like": ("", "<|eot_id|>"),
}
"""What each of them writes before and behind a reply."""


def template(name: str) -> ChatTemplate:
    """The built-in template of that name, or one of those in ``templates/``."""
    if name in BUILTIN_NAMES:
        return ChatTemplate.built_in(name)
    source = Path(__file__).with_name("templates").joinpath(f"{name}.jinja").read_text(encoding="utf-8")
    bos, eos = _TOKENS[name]
    return ChatTemplate.from_jinja(source, bos_token=bos, eos_token=eos)

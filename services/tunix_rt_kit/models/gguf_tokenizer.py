"""Rebuilds a byte-level BPE ``tokenizer.json`` from the vocabulary in a GGUF header."""

from __future__ import annotations

import json
from typing import Any, Protocol

from tunix_rt_kit.errors import InvalidArgument

# How text is cut before merging, by llama.cpp's name. The pattern is published with Qwen2 and Llama 3, which
# differ in how many digits stay together.
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_DIGITS_TOGETHER = {"qwen2": "", "llama-bpe": "{1,3}"}
# llama.cpp's number for a control token in ``tokenizer.ggml.token_type``.
_CONTROL = 3
_ADDED_FLAGS = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}


class Metadata(Protocol):
    """Reads values of a GGUF header."""

    def get(self, key: str, default: Any = None) -> Any:
        """The value of ``key``, or ``default``."""

    def __getitem__(self, key: str) -> Any: ...


def tokenizer_json(metadata: Metadata) -> str:
    """The ``tokenizer.json`` of a GPT-2-style vocabulary.

    Written out here, not by the ``tokenizers`` package, so that its bytes do not change with that package.

    ``tokenizer.ggml.pre`` names how text is cut before merging. ``smollm`` is: every digit apart, then
    GPT-2's own pattern, no space put in front. Qwen's text is composed (NFC) before; Llama 3 takes a word
    that is a token without merging.

    Raises:
        InvalidArgument: GGUF_UNSUPPORTED, for another kind of vocabulary.
    """
    kind, pre = metadata["tokenizer.ggml.model"], metadata["tokenizer.ggml.pre"]
    if kind != "gpt2" or pre not in {"smollm", *_DIGITS_TOGETHER}:
        raise InvalidArgument(
            f"GGUF tokenizer is {kind!r} with pre-tokenizer {pre!r}; understood is 'gpt2' with one of "
            f"{', '.join(['smollm', *_DIGITS_TOGETHER])}",
            reason="GGUF_UNSUPPORTED",
        )
    tokens: list[str] = metadata["tokenizer.ggml.tokens"]
    added = [{"id": i, "content": tokens[i], **_ADDED_FLAGS} for i in _control_ids(metadata)]
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {"type": "NFC"} if pre == "qwen2" else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": _cutting(pre)},
        "post_processor": None,
        "decoder": _BYTE_LEVEL,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": pre == "llama-bpe",
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": metadata["tokenizer.ggml.merges"],
        },
    }
    return json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":"))


def tokenizer_config(metadata: Metadata) -> dict[str, Any]:
    """The ``tokenizer_config.json``; the class is the one that takes ``tokenizer.json`` as it is."""
    tokens: list[str] = metadata["tokenizer.ggml.tokens"]

    def token(name: str) -> str | None:
        index: int | None = metadata.get(f"tokenizer.ggml.{name}_token_id")
        return None if index is None else tokens[index]

    config = {
        "add_bos_token": bool(metadata.get("tokenizer.ggml.add_bos_token", False)),
        "add_prefix_space": False,
        "additional_special_tokens": [tokens[i] for i in _control_ids(metadata)],
        "bos_token": token("bos"),
        "chat_template": metadata.get("tokenizer.chat_template"),
        "clean_up_tokenization_spaces": False,
        "eos_token": token("eos"),
        "model_max_length": metadata[f"{metadata['general.architecture']}.context_length"],
        "pad_token": token("padding"),
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": token("unknown"),
    }
    return {name: value for name, value in config.items() if value is not None}


def _cutting(pre: str) -> list[dict[str, Any]]:
    if pre == "smollm":
        return [{"type": "Digits", "individual_digits": True}, _BYTE_LEVEL]
    pattern = {"Regex": _WORDS % _DIGITS_TOGETHER[pre]}
    words = {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}
    return [words, _BYTE_LEVEL | {"use_regex": False}]


def _control_ids(metadata: Metadata) -> list[int]:
    types: list[int] = metadata["tokenizer.ggml.token_type"]
    return [i for i, kind in enumerate(types) if kind == _CONTROL]

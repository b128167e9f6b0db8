"""Rebuilds a byte-level BPE ``tokenizer.json`` from the vocabulary in a GGUF header."""

from __future__ import annotations

import json
from typing import Any

from tunix_rt_kit.models.gguf_header import GgufMetadata, refusal

# How text is cut before merging, by llama.cpp's name. The pattern is published with Qwen2 and Llama 3, which
# differ in how many digits stay together.
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_DIGITS_TOGETHER = {"qwen2": "", "llama-bpe": "{1,3}"}
_ADDED_FLAGS = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}


def tokenizer_json(metadata: GgufMetadata) -> str:
    """The ``tokenizer.json`` of a GPT-2-style vocabulary.

    Written out here, not by the ``tokenizers`` package, so that its bytes do not change with that package.

    ``tokenizer.ggml.pre`` names how text is cut before merging. ``smollm`` is: every digit apart, then
    GPT-2's own pattern, no space put in front. Qwen's text is composed (NFC) before; Llama 3 takes a word
    that is a token without merging.

    Raises:
        InvalidArgument: GGUF_UNSUPPORTED, for another kind of vocabulary.
    """
    kind, pre = metadata.text("tokenizer.ggml.model"), metadata.text("tokenizer.ggml.pre")
    if kind != "gpt2" or pre not in {"smollm", *_DIGITS_TOGETHER}:
        raise refusal(
            f"GGUF tokenizer is {kind!r} with pre-tokenizer {pre!r}; understood is 'gpt2' with one of "
            f"{', '.join(['smollm', *_DIGITS_TOGETHER])}"
        )
    tokens = metadata.tokens
    added = [{"id": i, "content": tokens[i], **_ADDED_FLAGS} for i in metadata.control_ids]
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
            "merges": metadata.texts("tokenizer.ggml.merges"),
        },
    }
    return json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":"))


def tokenizer_config(metadata: GgufMetadata) -> dict[str, Any]:
    """The ``tokenizer_config.json``; the class is the one that takes ``tokenizer.json`` as it is."""
    tokens = metadata.tokens

    def token(name: str) -> str | None:
        index = metadata.token_id(name)
        return None if index is None else tokens[index]

    config = {
        "add_bos_token": bool(metadata.get("tokenizer.ggml.add_bos_token", False)),
        "add_prefix_space": False,
        "additional_special_tokens": [tokens[i] for i in metadata.control_ids],
        "bos_token": token("bos"),
        "chat_template": metadata.text("tokenizer.chat_template", "") or None,
        "clean_up_tokenization_spaces": False,
        "eos_token": token("eos"),
        "model_max_length": metadata.count(f"{metadata.architecture}.context_length"),
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

"""Turns a GGUF file into a Hugging Face folder: the same bytes from the same file on every machine."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gguf
import ml_dtypes
import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import save_file

from tunix_rt_kit.models.gguf_file import GgufMetadata, check_layout, model_config, refusal
from tunix_rt_kit.models.hf_folder import read_config
from tunix_rt_kit.models.tensor_files import system_error
from tunix_rt_kit.regular_files import UnfitFile

# How text is split before merging: the pattern of Qwen2 and Llama 3, which differ in how many digits stay
# together.
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_DIGITS_TOGETHER = {"qwen2": "", "llama-bpe": "{1,3}"}
_ADDED_FLAGS = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
_PLAIN_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_LAYER_NAMES = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
_LAYER_TENSOR = re.compile(r"blk\.(\d+)\.([a-z_]+)\.(weight|bias)")
_ROPE_FACTORS = "rope_freqs.weight"


def tokenizer_json(metadata: GgufMetadata) -> str:
    """The ``tokenizer.json`` of a GPT-2-style vocabulary.

    It is written here, not by the ``tokenizers`` package, so that its bytes do not change with that package.

    ``tokenizer.ggml.pre`` names how text is split before merging. ``smollm`` takes every digit apart, then
    GPT-2's own pattern, without a space in front. Qwen's text is composed (NFC) first; Llama 3 takes a word
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
    """The ``tokenizer_config.json``; its class takes ``tokenizer.json`` as it is."""
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


def convert_gguf(gguf_path: Path, folder: Path, progress: Callable[[int, int], None]) -> None:
    """Write config.json, generation_config.json, the tokenizer and the weights into ``folder``.

    The dequantised weights are rounded to bfloat16, the type of the published models. The relative error
    (0.14%) is far below that of 4-bit quantisation, and runs in float32 and bfloat16 start from equal
    weights.

    Args:
        gguf_path: a GGUF file of the architecture ``llama``, ``qwen2`` or ``qwen3``.
        folder: an existing folder.
        progress: called with (tensors done, tensors in all).

    Raises:
        InvalidArgument: GGUF_UNSUPPORTED, naming what is not understood.
        OSError: the folder cannot be written.
    """
    reader = _opened(gguf_path)
    metadata = GgufMetadata(reader)
    by_name = {tensor.name: tensor for tensor in reader.tensors}
    if "token_embd.weight" not in by_name:
        raise refusal("GGUF file has no tensor 'token_embd.weight'")
    factors = by_name.get(_ROPE_FACTORS)
    config = model_config(
        metadata,
        tied="output.weight" not in by_name,
        # GGUF has the fastest axis first.
        vocab_size=int(by_name["token_embd.weight"].shape[-1]),
        rope_factors=None if factors is None else factors.data.ravel().tolist(),
    )
    _write_json(folder / "config.json", config)
    _write_json(folder / "generation_config.json", _generation_config(metadata))
    _write_json(folder / "tokenizer_config.json", tokenizer_config(metadata))
    (folder / "tokenizer.json").write_text(tokenizer_json(metadata), encoding="utf-8")
    expected = read_config(folder).tensor_shapes()
    weights: dict[str, npt.NDArray[Any]] = {}
    for done, (gguf_name, name, tensor, heads) in enumerate(_tensors(reader, metadata), start=1):
        if tensor.shape != expected.get(name):
            raise refusal(f"GGUF tensor {gguf_name!r} of shape {list(tensor.shape)} is not understood")
        ordered = tensor if heads is None else unpermute_rotary(tensor, heads)
        weights[name] = ordered.astype(ml_dtypes.bfloat16)
        progress(done, len(reader.tensors))
    _save_weights(weights, folder / "model.safetensors")


def _opened(path: Path) -> gguf.GGUFReader:
    try:
        check_layout(path)
        return gguf.GGUFReader(str(path))
    except UnfitFile as error:
        raise refusal(f"{path} {error.strerror}") from error
    except (ValueError, LookupError, ArithmeticError, TypeError) as error:
        # The library raises all of these for types and places that are not there.
        raise refusal(f"{path} is not a GGUF file that can be read: {error}") from error


def unpermute_rotary(weight: npt.NDArray[np.float32], heads: int) -> npt.NDArray[np.float32]:
    """Undo llama.cpp's reordering of a Q or K projection.

    In each head llama.cpp puts the two rows of a rotary pair side by side; Hugging Face and Tunix have all
    first rows, then all second rows.

    Args:
        weight: [heads * head_dim, width].
        heads: query heads for Q, key-value heads for K.
    """
    rows, width = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, width).swapaxes(1, 2).reshape(rows, width)


def _tensors(
    reader: gguf.GGUFReader, metadata: GgufMetadata
) -> Iterator[tuple[str, str, npt.NDArray[np.float32], int | None]]:
    """Of each tensor its name in the file, Hugging Face's name, its values, and how many heads llama.cpp
    reordered (None: it did not)."""
    prefix = metadata.architecture
    query_heads = metadata.count(f"{prefix}.attention.head_count")
    key_heads = metadata.count(f"{prefix}.attention.head_count_kv", query_heads)
    heads = {"attn_q": query_heads, "attn_k": key_heads}
    for tensor in reader.tensors:
        if tensor.name == _ROPE_FACTORS:
            continue
        try:
            weight = gguf.dequantize(tensor.data, tensor.tensor_type)
        except (NotImplementedError, ValueError) as error:
            raise refusal(
                f"GGUF tensor {tensor.name!r} of type {tensor.tensor_type.name}: {error}"
            ) from error
        if tensor.name in _PLAIN_NAMES:
            yield tensor.name, _PLAIN_NAMES[tensor.name], weight, None
            continue
        match = _LAYER_TENSOR.fullmatch(tensor.name)
        if match is None or match[2] not in _LAYER_NAMES:
            raise refusal(f"GGUF tensor {tensor.name!r} is not understood")
        layer, kind, what = match.groups()
        # llama.cpp reorders Llama's alone, and rotates the others in halves as Hugging Face does.
        reordered = prefix == "llama" and what == "weight"
        name = f"model.layers.{layer}.{_LAYER_NAMES[kind]}.{what}"
        yield tensor.name, name, weight, heads.get(kind) if reordered else None


def _generation_config(metadata: GgufMetadata) -> dict[str, Any]:
    ids = {
        "bos_token_id": metadata.token_id("bos"),
        "eos_token_id": metadata.token_id("eos", required=True),
        "pad_token_id": metadata.token_id("padding"),
    }
    return {name: token for name, token in ids.items() if token is not None}


def _save_weights(weights: dict[str, npt.NDArray[Any]], path: Path) -> None:
    try:
        save_file(weights, path, metadata={"format": "pt"})
    except SafetensorError as error:
        raise system_error(error) from error


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")

"""A random model of a few hundred kilobytes as a Hugging Face folder: tests train and generate in seconds."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file
from tokenizers.pre_tokenizers import ByteLevel

from tunix_rt_kit.models.hf_folder import read_config

SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
ONE_LAYER = {"num_hidden_layers": 1}
"""A ``config`` for tests that are not about layers: half of what it takes to compile."""
NULL: Any = object()
"""Stands for null in a ``config``, where None leaves an entry out."""

_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}


_GEMMA = {
    "hidden_act": None,
    "hidden_activation": "gelu_pytorch_tanh",
    "query_pre_attn_scalar": 24,
    "rms_norm_eps": 1e-6,
    "sliding_window": 8,
}
_FAMILIES: Mapping[str, Mapping[str, Any]] = {
    "llama": {},
    "qwen2": {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "rms_norm_eps": 1e-6},
    "qwen3": {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "rms_norm_eps": 1e-6},
    "gemma2": _GEMMA
    | {
        "architectures": ["Gemma2ForCausalLM"],
        "attn_logit_softcapping": 5.0,
        "final_logit_softcapping": 3.0,
        "model_type": "gemma2",
    },
    "gemma3": _GEMMA
    | {
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        "rope_local_base_freq": 1000.0,
        "rope_theta": 50000.0,
        "sliding_window_pattern": 2,
    },
}


def make_tiny_model(
    folder: Path,
    *,
    seed: int = 0,
    config: Mapping[str, Any] | None = None,
    shards: int = 1,
    scale: float = 0.08,
    family: str = "llama",
    dtype: str = "float32",
) -> Path:
    """Write a tiny random model into ``folder`` and return it; the same arguments make the same bytes.

    Every byte is a token, and the three ChatML specials come first (``<|im_end|>`` ends a turn).

    Args:
        folder: created if absent.
        seed: seed of the weights.
        config: entries of ``config.json`` to set, or to leave out where the value is None.
        shards: number of safetensors files; with more than one there is an index.
        scale: standard deviation of the weights.
        family: one of ``tunix_rt_kit.models.families.FAMILIES``.
        dtype: type of the weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    entries = _config(_FAMILIES[family] | dict(config or {}))
    for name, content in _files(json.dumps(entries), seed, shards, scale, dtype).items():
        (folder / name).write_bytes(content)
    return folder


@lru_cache(maxsize=16)
def _files(config: str, seed: int, shards: int, scale: float, dtype: str) -> dict[str, bytes]:
    """Contents by name. Hundreds of tests have the same model, which takes a while to make."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        _write_json(folder / "config.json", json.loads(config))
        _write_tokenizer(folder)
        _write_weights(folder, seed, shards, scale, dtype)
        return {file.name: file.read_bytes() for file in folder.iterdir()}


def _config(overrides: Mapping[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {
        "architectures": ["LlamaForCausalLM"],
        "bos_token_id": 1,
        "eos_token_id": 2,
        "head_dim": 16,
        "hidden_act": "silu",
        "hidden_size": 64,
        "intermediate_size": 128,
        "max_position_embeddings": 1024,
        "model_type": "llama",
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
        "vocab_size": len(SPECIAL_TOKENS) + 256,
    }
    values |= overrides
    return {name: None if value is NULL else value for name, value in values.items() if value is not None}


def _write_tokenizer(folder: Path) -> None:
    vocabulary = [*SPECIAL_TOKENS, *sorted(ByteLevel.alphabet())]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": token, **flags} for i, token in enumerate(SPECIAL_TOKENS)],
        "normalizer": None,
        "pre_tokenizer": _BYTE_LEVEL,
        "post_processor": None,
        "decoder": _BYTE_LEVEL,
        "model": {"type": "BPE", "vocab": {token: i for i, token in enumerate(vocabulary)}, "merges": []},
    }
    _write_json(folder / "tokenizer.json", tokenizer)
    names = {
        "bos_token": "<|im_start|>",
        "chat_template": CHAT_TEMPLATE,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    _write_json(folder / "tokenizer_config.json", names)


def _write_weights(folder: Path, seed: int, shards: int, scale: float, dtype: str) -> None:
    random = np.random.default_rng(seed)
    config = read_config(folder)
    # Gemma keeps the weights of its norms less 1.
    norm = np.float32(0.0 if config.family.startswith("gemma") else 1.0)
    tensors = {}
    for name, shape in config.tensor_shapes().items():
        noise = random.standard_normal(shape, dtype=np.float32) * np.float32(scale)
        tensors[name] = (noise + norm if "norm" in name else noise).astype(ml_dtypes.finfo(dtype).dtype)
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return
    weight_map: dict[str, str] = {}
    for shard in range(shards):
        file = f"model-{shard + 1:05d}-of-{shards:05d}.safetensors"
        part = {name: tensors[name] for name in list(tensors)[shard::shards]}
        save_file(part, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    size = sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": weight_map}
    _write_json(folder / "model.safetensors.index.json", index)


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")

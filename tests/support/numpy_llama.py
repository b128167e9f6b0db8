"""Llama in plain numpy, float64: an independent reference for logits on tiny models."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file

Array = npt.NDArray[np.float64]


def numpy_logits(folder: Path, sequences: Sequence[Sequence[int]]) -> Iterator[npt.NDArray[np.float32]]:
    """Next-token logits [length, vocabulary] of each sequence, straight from the files of ``folder``."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    weights: dict[str, Array] = {}
    for file in sorted(folder.glob("model*.safetensors")):
        weights |= {name: tensor.astype(np.float64) for name, tensor in load_file(file).items()}
    return (_forward(config, weights, np.asarray(tokens)).astype(np.float32) for tokens in sequences)


def _forward(config: dict[str, Any], weights: dict[str, Array], tokens: npt.NDArray[np.int64]) -> Array:
    embedding = weights["model.embed_tokens.weight"]
    x = embedding[tokens]
    for layer in range(config["num_hidden_layers"]):
        part = {
            name.split(f"model.layers.{layer}.")[1].removesuffix(".weight"): tensor
            for name, tensor in weights.items()
            if name.startswith(f"model.layers.{layer}.")
        }
        normed = _rms_norm(x, part["input_layernorm"], config["rms_norm_eps"])
        x = x + _attention(config, part, normed)
        normed = _rms_norm(x, part["post_attention_layernorm"], config["rms_norm_eps"])
        gate = normed @ part["mlp.gate_proj"].T
        x = x + (gate / (1 + np.exp(-gate)) * (normed @ part["mlp.up_proj"].T)) @ part["mlp.down_proj"].T
    x = _rms_norm(x, weights["model.norm.weight"], config["rms_norm_eps"])
    return x @ (embedding if config["tie_word_embeddings"] else weights["lm_head.weight"]).T


def _attention(config: dict[str, Any], part: dict[str, Array], x: Array) -> Array:
    heads, kv_heads, size = config["num_attention_heads"], config["num_key_value_heads"], config["head_dim"]
    length = len(x)
    query = _rotate((x @ part["self_attn.q_proj"].T).reshape(length, heads, size), config["rope_theta"])
    key = _rotate((x @ part["self_attn.k_proj"].T).reshape(length, kv_heads, size), config["rope_theta"])
    value = (x @ part["self_attn.v_proj"].T).reshape(length, kv_heads, size)
    output = np.empty_like(query)
    for head in range(heads):
        shared = head * kv_heads // heads
        scores = query[:, head] @ key[:, shared].T / np.sqrt(size)
        scores = np.where(np.tri(length, dtype=bool), scores, -np.inf)
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        output[:, head] = shares / shares.sum(-1, keepdims=True) @ value[:, shared]
    return output.reshape(length, heads * size) @ part["self_attn.o_proj"].T


def _rotate(x: Array, theta: float) -> Array:
    half = x.shape[-1] // 2
    angles = np.arange(len(x))[:, None, None] * theta ** (-np.arange(half) / half)
    first, second = x[..., :half], x[..., half:]
    rotated = (first + 1j * second) * np.exp(1j * angles)
    return np.concatenate([rotated.real, rotated.imag], axis=-1)


def _rms_norm(x: Array, weight: Array, epsilon: float) -> Array:
    scale = 1 / np.sqrt((x**2).mean(-1, keepdims=True) + epsilon)
    return np.asarray(x * scale * weight)

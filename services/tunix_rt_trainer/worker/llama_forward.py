"""The forward computation of Tunix's Llama as one scan over its layers, on the model's own parameters.

Tunix's modules unrolled take three to five times as long to compile, and qwix's interception leaves the order
and the type of each product to XLA. What is computed is the same; tests hold the two against each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

import jax
import jax.numpy as jnp
import qwix
from flax import nnx
from tunix.models.llama3 import model as llama3

from tunix_rt_kit.models.families import ModelConfig
from tunix_rt_trainer.jobs.model import Remat
from tunix_rt_trainer.worker.kernels import KEPT, adapted, as_bits, attention, dense, from_bits, kept
from tunix_rt_trainer.worker.stacked import StackedLlama

_PROJECTIONS: Final = {
    "q_proj": ("attn", "w"),
    "k_proj": ("attn", "w"),
    "v_proj": ("attn", "w"),
    "o_proj": ("attn", "w"),
    "gate_proj": ("mlp", "kernel"),
    "up_proj": ("mlp", "kernel"),
    "down_proj": ("mlp", "kernel"),
}

_ACTIVATIONS: Final = llama3.ShardingConfig.get_default_sharding().act_btd

Weights = Mapping[str, Any]


def supervised_states(
    model: StackedLlama,
    tokens: jax.Array,
    positions: jax.Array,
    mask: jax.Array,
    supervised: jax.Array,
    *,
    lora_scale: float,
    remat: Remat,
) -> jax.Array:
    """What the head makes next-token logits of, at some of the tokens.

    Args:
        model: with or without LoRA, its projections quantised by qwix or not.
        tokens: [B, L].
        positions: [B, L], for the rotary embedding.
        mask: [B, L, L], true where a token (second axis) attends to another.
        supervised: [K], indices into the B * L tokens.
        lora_scale: alpha over rank.
        remat: what to recompute.

    Returns:
        [K, D] in the type of the model.
    """
    config = model.description
    rotation = _rotation(positions, config)
    layer = partial(_layer, config=config, lora_scale=lora_scale, rotation=rotation, mask=mask)
    # What has an adapter is frozen; bits have no gradients.
    packed = as_bits if nnx.state(model, nnx.LoRAParam) else _as_it_is
    weights = _weights(model.layers, packed)
    hidden, _ = jax.lax.scan(_remat(layer, remat), model.embedder.encode(tokens), weights)
    chosen = hidden.reshape(-1, config.hidden_size)[supervised]
    return _normed(chosen, model.final_norm.w[...], config.rms_norm_eps)


def head(model: StackedLlama) -> tuple[jax.Array, int]:
    """The weights that make logits, and which of their axes is that of the states."""
    if model.description.tied:
        return model.embedder.input_embedding[...], 1
    return model.lm_head.w[...], 0


def _as_it_is(weight: jax.Array) -> jax.Array:
    return weight


def _remat(layer: Any, remat: Remat) -> Any:
    if remat == "none":
        return layer
    policy = jax.checkpoint_policies.save_only_these_names(KEPT) if remat == "dots" else None
    return jax.checkpoint(layer, policy=policy)


def _weights(layer: llama3.DecoderLayer, packed: Callable[[jax.Array], jax.Array]) -> Weights:
    """The weights of all layers, those of the base model as ``packed`` gives them."""
    weights: dict[str, Any] = {
        "input_norm": packed(layer.input_layernorm.w[...]),
        "mlp_norm": packed(layer.post_attention_layernorm.w[...]),
    }
    for name, (parent, weight) in _PROJECTIONS.items():
        projection = getattr(getattr(layer, parent), name)
        w = getattr(projection, weight)[...]
        # qwix wraps the array of a weight that it quantised.
        weights[name] = {"w": jax.tree.map(packed, getattr(w, "array", w))}
        if hasattr(projection, f"{weight}_lora_a"):
            weights[name]["a"] = getattr(projection, f"{weight}_lora_a")[...]
            weights[name]["b"] = getattr(projection, f"{weight}_lora_b")[...]
    return weights


def _layer(
    hidden: jax.Array,
    weights: Weights,
    *,
    config: ModelConfig,
    lora_scale: float,
    rotation: tuple[jax.Array, jax.Array],
    mask: jax.Array,
) -> tuple[jax.Array, None]:
    weights = jax.tree.map(from_bits, weights)
    rows, length, width = hidden.shape
    dtype = hidden.dtype
    project = partial(_project, weights, lora_scale)

    def heads(x: jax.Array) -> jax.Array:
        """[B * L, H * G * D] -> [B, H, L, G, D], for each key-value head the G heads that share it."""
        return x.reshape(rows, length, config.num_kv_heads, -1, config.head_dim).swapaxes(1, 2)

    x = hidden.reshape(-1, width)
    normed = _normed(x, weights["input_norm"], config.rms_norm_eps)
    q, k = (_rotated(heads(project(name, normed)), rotation) for name in ("q_proj", "k_proj"))
    q, k, v = (kept(each.astype(dtype)) for each in (q, k, heads(project("v_proj", normed))))
    q_rows, k_rows, v_rows = (each.reshape(*each.shape[:2], -1, config.head_dim) for each in (q, k, v))
    mixed = attention(q_rows, k_rows, v_rows, mask)
    mixed = mixed.reshape(q.shape).swapaxes(1, 2).reshape(rows * length, -1)
    x = kept((x + project("o_proj", mixed)).astype(dtype))
    normed = _normed(x, weights["mlp_norm"], config.rms_norm_eps)
    gate, up = (kept(project(name, normed).astype(dtype)) for name in ("gate_proj", "up_proj"))
    active = (nnx.silu(gate.astype(jnp.float32)) * up).astype(dtype)
    x = (x + project("down_proj", active)).astype(dtype)
    return llama3.shard(x.reshape(hidden.shape), _ACTIVATIONS), None


def _project(weights: Weights, lora_scale: float, name: str, x: jax.Array) -> jax.Array:
    """[T, K] -> [T, N] in float32, whatever axes Tunix and qwix split K and N into."""
    projection = weights[name]
    w = projection["w"]
    if isinstance(w, qwix.QArray):
        w = qwix.dequantize(w).astype(x.dtype)
    w = w.reshape(x.shape[1], -1)
    if "a" not in projection:
        return dense(x, w)
    a, b = projection["a"], projection["b"]
    return adapted(x, w, a.reshape(x.shape[1], -1), b.reshape(b.shape[0], -1), lora_scale)


def _normed(x: jax.Array, weight: jax.Array, epsilon: float) -> jax.Array:
    wide = x.astype(jnp.float32)
    scale = jax.lax.rsqrt((wide * wide).mean(-1, keepdims=True) + epsilon)
    return (wide * scale * weight.astype(jnp.float32)).astype(x.dtype)


def _rotation(positions: jax.Array, config: ModelConfig) -> tuple[jax.Array, jax.Array]:
    """Sine and cosine, [B, 1, L, 1, D / 2]."""
    frequencies = jnp.asarray(config.rope.inverse_frequencies(config.head_dim), jnp.float32)
    angles = positions[:, None, :, None, None] * frequencies
    return jnp.sin(angles), jnp.cos(angles)


def _rotated(x: jax.Array, rotation: tuple[jax.Array, jax.Array]) -> jax.Array:
    sin, cos = rotation
    first, second = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)

"""Attention of every family, which puts right what Tunix's own modules get wrong.

Of google-tunix 0.1.7, measured against ``transformers``:

- Llama and Qwen3 ignore ``ModelConfig.rope_theta`` and turn by a base of 1e6, Gemma 2 by 1e4; none but Gemma
3
  scales frequencies.
- Gemma 2 compares a sliding window in positions with columns of keys, which differ in packed and in
  left-padded rows; Gemma 3's window is wrong where several tokens are read behind a filled cache.
- Gemma ignores ``query_pre_attn_scalar``, divides scores by the square root of the head's size, and takes
  their softmax in the model's type.
- Gemma keeps keys and values in one weight: LoRA would give both the same A, which ``peft`` cannot express.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from tunix.models.llama3 import model as llama3

from tunix_rt_kit.models.config import ModelConfig, Rope

Cache = dict[str, jax.Array]
"""Of one layer: ``k`` [B, KV heads, head dim, S], ``v`` [B, KV heads, S, head dim], and ``end_index`` [B],
each row's next column. Tunix's order of axes would cost a transposition for each product."""

Product = Callable[[jax.Array, jax.Array], jax.Array]
"""A kernel: rows [R, inputs] times weights, in a layout of its own, to [R, outputs]."""


class Attention(nnx.Module):
    """Grouped-query attention, with projections named and laid out as Tunix's Llama has them.

    Args:
        config: of the model.
        layer: which layer it is of, from 0.
        norms: those of queries and keys, where the family has them.
        rngs: for the fresh weights.

    Where ``product`` is set, see ``Decoder.only_run``, it computes the projections.
    """

    def __init__(
        self, config: ModelConfig, layer: int, norms: tuple[nnx.Module, nnx.Module] | None, *, rngs: nnx.Rngs
    ) -> None:
        width, size = config.hidden_size, config.head_dim
        shardings = llama3.ShardingConfig.get_default_sharding()

        def project(equation: str, shape: tuple[int, ...], sharding: tuple[str | None, ...]) -> Any:
            return llama3.Einsum(equation, shape, rngs=rngs, sharding=sharding)

        self.q_proj = project("BTD,DNH->BTNH", (width, config.num_heads, size), shardings.q_weight_dnh)
        self.k_proj = project("BSD,DKH->BSKH", (width, config.num_kv_heads, size), shardings.kv_weight_dnh)
        self.v_proj = project("BSD,DKH->BSKH", (width, config.num_kv_heads, size), shardings.kv_weight_dnh)
        self.o_proj = project("BTNH,NHD->BTD", (config.num_heads, size, width), shardings.o_weight_nhd)
        if config.attention_bias:
            self.q_bias = nnx.Param(jnp.zeros((config.num_heads, size)), sharding=("tp", None))
            self.k_bias = nnx.Param(jnp.zeros((config.num_kv_heads, size)), sharding=("tp", None))
            self.v_bias = nnx.Param(jnp.zeros((config.num_kv_heads, size)), sharding=("tp", None))
        if norms is not None:
            self.q_norm, self.k_norm = norms
        self.config = config
        self.layer = layer
        self.product: Product | None = None

    def __call__(
        self, x: jax.Array, positions: jax.Array, cache: Cache | None, mask: jax.Array
    ) -> tuple[Cache | None, jax.Array]:
        """Attend from each of the T tokens of ``x`` to the S columns that ``mask`` allows.

        Args:
            x: [B, T, D].
            positions: [B, T] for the rotary embedding; they restart in each packed segment.
            cache: of the tokens before, or None; then S is T.
            mask: [B, T, S] bool. A sliding window is applied here, in columns, which within a segment are as
                far apart as positions.
        """
        query, key, value = self._projected(x)
        frequencies = self.config.rope_of(self.layer)
        query = rotated(query, positions, frequencies)
        key, value = rotated(key, positions, frequencies).transpose(0, 2, 3, 1), value.swapaxes(1, 2)
        first = jnp.zeros(x.shape[0], jnp.int32)
        filled = None
        if cache is not None:
            first = cache["end_index"]
            key, value = _written(cache["k"], key, first, 3), _written(cache["v"], value, first, 2)
            filled = {"k": key, "v": value, "end_index": first + x.shape[1]}
        window = self.config.window_of(self.layer)
        if window is not None:
            mask = mask & _within(window, first, x.shape[1], mask.shape[-1])
        scale, softcap = self.config.query_scale, self.config.attention_softcap
        output = attend(query, key, value, mask, scale=scale, softcap=softcap, wide=self.product is not None)
        return filled, self._projection(self.o_proj, output, output.shape[2:])

    def _projected(self, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        width = x.shape[2:]
        query, key, value = (
            self._projection(each, x, width) for each in (self.q_proj, self.k_proj, self.v_proj)
        )
        if self.config.attention_bias:
            query, key, value = query + self.q_bias[...], key + self.k_bias[...], value + self.v_bias[...]
        if self.config.query_key_norm:
            query, key = self.q_norm(query), self.k_norm(key)
        return query, key, value

    def _projection(self, projection: Any, x: jax.Array, inputs: tuple[int, ...]) -> jax.Array:
        if self.product is None:
            output: jax.Array = projection(x)
            return output
        size = math.prod(inputs)
        outputs = projection.shape[len(inputs) :]
        flat = self.product(x.reshape(-1, size), projection.w[...])
        return flat.reshape(*x.shape[:2], *outputs)


def rotated(x: jax.Array, positions: jax.Array, rope: Rope) -> jax.Array:
    """Turn each half-split pair of ``x`` [B, T, N, H] by its frequency times ``positions`` [B, T]."""
    frequencies = jnp.asarray(rope.inverse_frequencies(x.shape[-1]), jnp.float32)
    angles = positions[..., None, None].astype(jnp.float32) * frequencies
    sine, cosine = jnp.sin(angles), jnp.cos(angles)
    first, second = jnp.split(x, 2, axis=-1)
    turned = [first * cosine - second * sine, second * cosine + first * sine]
    return jnp.concatenate(turned, axis=-1).astype(x.dtype)


def attend(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    mask: jax.Array,
    *,
    scale: float,
    softcap: float | None,
    wide: bool = False,
) -> jax.Array:
    """Values [B, T, N, H] weighted by the softmax of the scores, which is taken in float32.

    Args:
        query: [B, T, N, H].
        key: [B, K, H, S]; K divides N.
        value: [B, K, S, H].
        mask: [B, T, S] bool.
        scale: of the scores.
        softcap: bounds them, see ``ModelConfig``.
        wide: whether values are summed in float32, as scores are.
    """
    batch, length, heads, size = query.shape
    groups, kv_heads = heads // key.shape[1], key.shape[1]
    # The queries of a group of heads as rows of one matrix: XLA has no product of bfloat16 into float32 on a
    # CPU for what has more than one axis of rows.
    grouped = query.reshape(batch, length, kv_heads, groups, size).transpose(0, 2, 3, 1, 4)
    rows = grouped.reshape(batch, kv_heads, groups * length, size).astype(key.dtype)
    scores = jnp.einsum("bkrh,bkhs->bkrs", rows, key, preferred_element_type=jnp.float32) * scale
    if softcap is not None:
        scores = jnp.tanh(scores / softcap) * softcap
    scores = scores.reshape(batch, kv_heads, groups, length, -1)
    scores = jnp.where(mask[:, None, None], scores, llama3.K_MASK)
    shares = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
    shares = shares.reshape(batch, kv_heads, groups * length, -1)
    summed = jnp.float32 if wide else None
    mixed = jnp.einsum("bkrs,bksh->bkrh", shares, value, preferred_element_type=summed).astype(query.dtype)
    back = mixed.reshape(batch, kv_heads, groups, length, size).transpose(0, 3, 1, 2, 4)
    return back.reshape(query.shape)


def _written(cache: jax.Array, new: jax.Array, first: jax.Array, axis: int) -> jax.Array:
    """``cache`` with ``new`` in each row from its column ``first`` [B] on; ``axis`` is the columns'."""

    def write(row: jax.Array, part: jax.Array, column: jax.Array) -> jax.Array:
        return jax.lax.dynamic_update_slice_in_dim(row, part, column, axis=axis - 1)

    written: jax.Array = jax.vmap(write)(cache, new.astype(cache.dtype), first)
    return written


def _within(window: int, first: jax.Array, queries: int, keys: int) -> jax.Array:
    """[B, T, S]: the columns less than ``window`` before the query's, the first of which is ``first`` [B]."""
    columns = first[:, None, None] + jnp.arange(queries)[:, None]
    inside: jax.Array = columns - jnp.arange(keys) < window
    return inside

"""Qwen2 and Qwen3 on Tunix's modules."""

from __future__ import annotations

from typing import Any

import jax
from flax import nnx
from tunix.models.qwen2 import model as qwen2
from tunix.models.qwen3 import model as qwen3

from tunix_rt_kit.models.families import ModelConfig
from tunix_rt_kit.models.networks.attention import Attention, Cache
from tunix_rt_kit.models.networks.decoder import Decoder, tunix_sizes


class Qwen2(Decoder, qwen2.Qwen2):  # type: ignore[misc]
    """Tunix's ``Qwen2`` as ``config`` describes it."""

    def __init__(self, config: ModelConfig, *, dtype: Any, rngs: nnx.Rngs) -> None:
        super().__init__(_tunix_config(config, qwen2.ModelConfig, dtype), rngs=rngs)
        self.description = config
        for index, layer in enumerate(self.layers):
            layer.attn = _Qwen2Attention(config, index, None, rngs=rngs)

    def run_layer(
        self, layer: Any, hidden: jax.Array, positions: jax.Array, cache: Any, mask: jax.Array
    ) -> tuple[Any, jax.Array]:
        """As in ``Decoder``."""
        # Tunix's layer hands on the angles of all layers; those here are made from the positions.
        output: tuple[Any, jax.Array] = layer(hidden, cache, mask, positions, None)
        return output


class Qwen3(Decoder, qwen3.Qwen3):  # type: ignore[misc]
    """Tunix's ``Qwen3`` as ``config`` describes it."""

    def __init__(self, config: ModelConfig, *, dtype: Any, rngs: nnx.Rngs) -> None:
        super().__init__(_tunix_config(config, qwen3.ModelConfig, dtype), rngs=rngs)
        self.description = config
        for index, layer in enumerate(self.layers):
            layer.attn = _Qwen3Attention(config, index, (layer.attn.q_norm, layer.attn.k_norm), rngs=rngs)


class _Qwen2Attention(Attention):
    def __call__(  # type: ignore[override]
        self,
        x: jax.Array,
        cache: Cache | None,
        attn_mask: jax.Array,
        sin: jax.Array,
        cos: None,
        segment_ids: None = None,
    ) -> tuple[Cache | None, jax.Array]:
        del cos, segment_ids
        return super().__call__(x, sin, cache, attn_mask)


class _Qwen3Attention(Attention):
    def __call__(
        self,
        x: jax.Array,
        positions: jax.Array,
        cache: Cache | None,
        mask: jax.Array,
        segment_ids: None = None,
    ) -> tuple[Cache | None, jax.Array]:
        del segment_ids
        return super().__call__(x, positions, cache, mask)


def _tunix_config(config: ModelConfig, kind: Any, dtype: Any) -> Any:
    return kind(
        **tunix_sizes(config),
        vocab_size=config.vocab_size,
        rope_theta=config.rope.theta,
        norm_eps=config.rms_norm_eps,
        use_tied_embedding=config.tied,
        dtype=dtype,
        param_dtype=dtype,
    )

"""Llama on Tunix's module."""

from __future__ import annotations

from typing import Any

from flax import nnx
from tunix.models.llama3 import model as llama3

from tunix_rt_kit.models.families import ModelConfig
from tunix_rt_kit.models.networks.attention import Attention
from tunix_rt_kit.models.networks.decoder import Decoder


class Llama(Decoder, llama3.Llama3):  # type: ignore[misc]
    """Tunix's ``Llama3`` as ``config`` describes it."""

    def __init__(self, config: ModelConfig, *, dtype: Any, rngs: nnx.Rngs) -> None:
        del dtype  # Tunix's Llama computes in the type of its weights.
        super().__init__(_tunix_config(config), rngs=rngs)
        self.description = config
        for index, layer in enumerate(self.layers):
            layer.attn = Attention(config, index, None, rngs=rngs)


def _tunix_config(config: ModelConfig) -> llama3.ModelConfig:
    return llama3.ModelConfig(
        num_layers=config.num_layers,
        vocab_size=config.vocab_size,
        embed_dim=config.hidden_size,
        hidden_dim=config.intermediate_size,
        num_heads=config.num_heads,
        head_dim=config.head_dim,
        num_kv_heads=config.num_kv_heads,
        rope_theta=config.rope.theta,
        norm_eps=config.rms_norm_eps,
        weight_tying=config.tied,
    )

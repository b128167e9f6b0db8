"""Llama on Tunix's module."""

from __future__ import annotations

from typing import Any

from flax import nnx
from tunix.models.llama3 import model as llama3

from tunix_rt_kit.models.families import ModelConfig
from tunix_rt_kit.models.networks.attention import Attention
from tunix_rt_kit.models.networks.decoder import Decoder, tunix_sizes


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
        **tunix_sizes(config),
        vocab_size=config.vocab_size,
        rope_theta=config.rope.theta,
        norm_eps=config.rms_norm_eps,
        weight_tying=config.tied,
    )

"""Gemma 2 and 3 on Tunix's modules."""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from tunix.models.gemma import model as gemma2
from tunix.models.gemma3 import model as gemma3

from tunix_rt_kit.models.families import ModelConfig
from tunix_rt_kit.models.networks.attention import Attention
from tunix_rt_kit.models.networks.decoder import Decoder, tunix_sizes

_SHARED_PATHS = {
    "self_attn.q_norm.weight": "attn.q_norm.scale",
    "self_attn.k_norm.weight": "attn.k_norm.scale",
    "input_layernorm.weight": "pre_attention_norm.scale",
    "pre_feedforward_layernorm.weight": "pre_ffw_norm.scale",
    "post_feedforward_layernorm.weight": "post_ffw_norm.scale",
}


class Gemma2(Decoder, gemma2.Gemma):  # type: ignore[misc]
    """Tunix's ``Gemma`` as ``config`` describes it."""

    paths: ClassVar = {
        **Decoder.paths,
        **_SHARED_PATHS,
        "post_attention_layernorm.weight": "post_attn_norm.scale",
    }
    final_norm_path: ClassVar = "final_norm.scale"

    def __init__(self, config: ModelConfig, *, dtype: Any, rngs: nnx.Rngs) -> None:
        del dtype  # Tunix's Gemma computes in the type of its weights.
        super().__init__(_gemma2_config(config), rngs=rngs)
        self.description = config
        _mend(self, ("pre_attention_norm", "post_attn_norm", "pre_ffw_norm", "post_ffw_norm"), rngs)


class Gemma3(Decoder, gemma3.Gemma3):  # type: ignore[misc]
    """Tunix's ``Gemma3``, without images, as ``config`` describes it."""

    paths: ClassVar = {
        **Decoder.paths,
        **_SHARED_PATHS,
        "post_attention_layernorm.weight": "post_attention_norm.scale",
    }
    final_norm_path: ClassVar = "final_norm.scale"

    def __init__(self, config: ModelConfig, *, dtype: Any, rngs: nnx.Rngs) -> None:
        super().__init__(_gemma3_config(config, dtype), rngs=rngs)
        self.description = config
        _mend(self, ("pre_attention_norm", "post_attention_norm", "pre_ffw_norm", "post_ffw_norm"), rngs)


class Norm(nnx.Module):
    """Gemma's RMS norm, whose weight is kept less 1.

    Tunix's has an epsilon of its own and computes in the model's type: in bfloat16, ``1 + scale`` rounds most
    of a small weight away.
    """

    def __init__(self, size: int, *, epsilon: float, sharding: tuple[str, ...], rngs: nnx.Rngs) -> None:
        self.scale = nnx.Param(nnx.initializers.zeros_init()(rngs.params(), (size,)), sharding=sharding)
        self.epsilon = epsilon

    def __call__(self, x: jax.Array) -> jax.Array:
        """``x`` [..., size] brought to a mean square of 1 and weighted, in float32; of the type of ``x``."""
        wide = x.astype(jnp.float32)
        normed = wide * jax.lax.rsqrt(jnp.mean(wide**2, axis=-1, keepdims=True) + self.epsilon)
        return (normed * (1 + self.scale[...].astype(jnp.float32))).astype(x.dtype)


def _mend(model: Any, norms: tuple[str, ...], rngs: nnx.Rngs) -> None:
    config: ModelConfig = model.description

    def norm(size: int, *sharding: str) -> Norm:
        return Norm(size, epsilon=config.rms_norm_eps, sharding=sharding, rngs=rngs)

    for index, layer in enumerate(model.layers):
        of_heads = (norm(config.head_dim), norm(config.head_dim)) if config.query_key_norm else None
        layer.attn = Attention(config, index, of_heads, rngs=rngs)
        for name in norms:
            setattr(layer, name, norm(config.hidden_size, "tp"))
    model.final_norm = norm(config.hidden_size, "tp")


def _gemma2_config(config: ModelConfig) -> gemma2.ModelConfig:
    local, everywhere = gemma2.AttentionType.LOCAL_SLIDING, gemma2.AttentionType.GLOBAL
    return gemma2.ModelConfig(
        **tunix_sizes(config),
        num_embed=config.vocab_size,
        final_logit_softcap=config.logit_softcap,
        use_post_attn_norm=True,
        use_post_ffw_norm=True,
        attention_types=[local if windowed else everywhere for windowed in config.windowed],
        attn_logits_soft_cap=config.attention_softcap,
        sliding_window_size=config.window,
    )


def _gemma3_config(config: ModelConfig, dtype: Any) -> gemma3.ModelConfig:
    local = config.local_rope or config.rope
    return gemma3.ModelConfig(
        **tunix_sizes(config),
        num_embed=config.vocab_size,
        # Tunix asks for one even where no layer has a window.
        sliding_window_size=config.window or config.context_length,
        local_base_frequency=local.theta,
        global_base_frequency=config.rope.theta,
        param_dtype=dtype,
    )

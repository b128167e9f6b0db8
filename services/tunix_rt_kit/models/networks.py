"""How each family of ``tunix_rt_kit.models.families`` is run: a Tunix model, mended where it is wrong."""

from __future__ import annotations

from typing import Any, ClassVar, Final

import jax
import jax.numpy as jnp
from flax import nnx
from tunix.models.gemma import model as gemma2
from tunix.models.gemma3 import model as gemma3
from tunix.models.llama3 import model as llama3
from tunix.models.qwen2 import model as qwen2
from tunix.models.qwen3 import model as qwen3

from tunix_rt_kit.models.config import ModelConfig
from tunix_rt_kit.models.decoder import Attention, Cache, Decoder, tunix_sizes

_GEMMA_PATHS = {
    "self_attn.q_norm.weight": "attn.q_norm.scale",
    "self_attn.k_norm.weight": "attn.k_norm.scale",
    "input_layernorm.weight": "pre_attention_norm.scale",
    "pre_feedforward_layernorm.weight": "pre_ffw_norm.scale",
    "post_feedforward_layernorm.weight": "post_ffw_norm.scale",
}


class Llama(Decoder, llama3.Llama3):  # type: ignore[misc]
    """Tunix's ``Llama3`` as ``config`` describes it."""

    def __init__(self, config: ModelConfig, *, dtype: Any, rngs: nnx.Rngs) -> None:
        del dtype  # Tunix's Llama computes in the type of its weights.
        super().__init__(_llama_config(config), rngs=rngs)
        self.description = config
        for index, layer in enumerate(self.layers):
            layer.attn = Attention(config, index, None, rngs=rngs)


def _llama_config(config: ModelConfig) -> llama3.ModelConfig:
    return llama3.ModelConfig(
        **tunix_sizes(config),
        vocab_size=config.vocab_size,
        rope_theta=config.rope.theta,
        norm_eps=config.rms_norm_eps,
        weight_tying=config.tied,
    )


class Qwen2(Decoder, qwen2.Qwen2):  # type: ignore[misc]
    """Tunix's ``Qwen2`` as ``config`` describes it."""

    def __init__(self, config: ModelConfig, *, dtype: Any, rngs: nnx.Rngs) -> None:
        super().__init__(_qwen_config(config, qwen2.ModelConfig, dtype), rngs=rngs)
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
        super().__init__(_qwen_config(config, qwen3.ModelConfig, dtype), rngs=rngs)
        self.description = config
        for index, layer in enumerate(self.layers):
            layer.attn = Attention(config, index, (layer.attn.q_norm, layer.attn.k_norm), rngs=rngs)


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


def _qwen_config(config: ModelConfig, kind: Any, dtype: Any) -> Any:
    return kind(
        **tunix_sizes(config),
        vocab_size=config.vocab_size,
        rope_theta=config.rope.theta,
        norm_eps=config.rms_norm_eps,
        use_tied_embedding=config.tied,
        dtype=dtype,
        param_dtype=dtype,
    )


class Gemma2(Decoder, gemma2.Gemma):  # type: ignore[misc]
    """Tunix's ``Gemma`` as ``config`` describes it."""

    paths: ClassVar = {
        **Decoder.paths,
        **_GEMMA_PATHS,
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
        **_GEMMA_PATHS,
        "post_attention_layernorm.weight": "post_attention_norm.scale",
    }
    final_norm_path: ClassVar = "final_norm.scale"

    def __init__(self, config: ModelConfig, *, dtype: Any, rngs: nnx.Rngs) -> None:
        super().__init__(_gemma3_config(config, dtype), rngs=rngs)
        self.description = config
        _mend(self, ("pre_attention_norm", "post_attention_norm", "pre_ffw_norm", "post_ffw_norm"), rngs)


class Norm(nnx.Module):
    """Gemma's RMS norm, whose weight is stored as ``weight - 1``.

    Tunix's has an epsilon of its own and computes in the model's type: in bfloat16, ``1 + scale`` rounds most
    of a small weight away.
    """

    def __init__(self, size: int, *, epsilon: float, sharding: tuple[str, ...], rngs: nnx.Rngs) -> None:
        self.scale = nnx.Param(nnx.initializers.zeros_init()(rngs.params(), (size,)), sharding=sharding)
        self.epsilon = epsilon

    def __call__(self, x: jax.Array) -> jax.Array:
        """``x`` [..., size] normed to a mean square of 1 and weighted in float32; of the type of ``x``."""
        exact = x.astype(jnp.float32)
        normed = exact * jax.lax.rsqrt(jnp.mean(exact**2, axis=-1, keepdims=True) + self.epsilon)
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


NETWORKS: Final[dict[str, Any]] = {
    "llama": Llama,
    "qwen2": Qwen2,
    "qwen3": Qwen3,
    "gemma2": Gemma2,
    "gemma3": Gemma3,
}
"""The class of a family's models by the family's name; called with ``config``, ``dtype`` and ``rngs``."""

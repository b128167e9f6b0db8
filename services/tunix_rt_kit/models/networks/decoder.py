"""What the models of all families have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from tunix_rt_kit.models.families import ModelConfig
from tunix_rt_kit.models.networks.attention import Attention

Caches = dict[str, dict[str, jax.Array]]
"""``layer_0``, ``layer_1`` and so on to the cache of that layer, see ``attention.Cache``."""


class Decoder(nnx.Module):
    """A Tunix model that was mended and given an LM head that can be computed at chosen tokens alone.

    A family's class inherits from this and from Tunix's class, in this order. ``description`` is what was
    read from ``config.json``; ``paths`` maps the name of a tensor within a layer, as Hugging Face has it, to
    its path within Tunix's layer, ``final_norm_path`` is that of the last norm.
    """

    paths: ClassVar[Mapping[str, str]] = {
        **{f"self_attn.{name}_proj.weight": f"attn.{name}_proj.w" for name in "qkvo"},
        **{f"self_attn.{name}_proj.bias": f"attn.{name}_bias" for name in "qkv"},
        **{f"mlp.{name}_proj.weight": f"mlp.{name}_proj.kernel" for name in ("gate", "up", "down")},
        "self_attn.q_norm.weight": "attn.q_norm.w",
        "self_attn.k_norm.weight": "attn.k_norm.w",
        "input_layernorm.weight": "input_layernorm.w",
        "post_attention_layernorm.weight": "post_attention_layernorm.w",
    }
    final_norm_path: ClassVar[str] = "final_norm.w"

    description: ModelConfig
    embedder: Any
    layers: Any
    final_norm: Any
    lm_head: Any

    def __call__(
        self,
        input_tokens: jax.Array,
        positions: jax.Array,
        cache: Caches | None,
        attention_mask: jax.Array,
        supervised: jax.Array | None = None,
    ) -> tuple[jax.Array, Caches | None]:
        """Next-token logits in float32, and the cache with the tokens in it (None without one).

        Args:
            input_tokens: [B, T] int32.
            positions: [B, T] of each token in its sequence.
            cache: see ``init_cache``, or None.
            attention_mask: [B, T, S] bool: the columns that a token may attend to. S is T without a cache.
            supervised: [K], places among the B * T tokens. Over a big vocabulary the head costs as much as
                several layers, and most tokens of a training row (prompts, padding) are not learned.

        Returns:
            Logits [B, T, vocabulary], or [K, vocabulary] where ``supervised`` is given.
        """
        hidden, filled = self.hidden_states(input_tokens, positions, cache, attention_mask)
        if supervised is not None:
            hidden = hidden.reshape(-1, hidden.shape[-1])[supervised]
        return self.head(hidden), filled

    def hidden_states(
        self, tokens: jax.Array, positions: jax.Array, cache: Caches | None, mask: jax.Array
    ) -> tuple[jax.Array, Caches | None]:
        """What the last layer puts out, [B, T, D], before the last norm; arguments as for calling the model.

        qwix intercepts ``__call__`` alone: of a model with LoRA, call the model.
        """
        hidden = self.embedder.encode(tokens)
        filled: Caches | None = None if cache is None else {}
        for index, layer in enumerate(self.layers):
            name = f"layer_{index}"
            part, hidden = self.run_layer(layer, hidden, positions, cache and cache[name], mask)
            if filled is not None:
                filled[name] = part
        return hidden, filled

    def run_layer(
        self, layer: Any, hidden: jax.Array, positions: jax.Array, cache: Any, mask: jax.Array
    ) -> tuple[Any, jax.Array]:
        """The cache and the output of one of Tunix's layers."""
        output: tuple[Any, jax.Array] = layer(hidden, positions, cache, mask)
        return output

    def head(self, hidden: jax.Array) -> jax.Array:
        """Float32 logits [..., vocabulary] of what ``hidden_states`` returned, [..., D].

        Rounded to bfloat16 many would be equal, and the choice between them arbitrary.
        """
        normed = self.final_norm(hidden)
        if self.description.tied:
            weight, axis = self.embedder.input_embedding[...], 1
        else:
            weight, axis = self.lm_head.w[...], 0
        contracted = (((normed.ndim - 1,), (axis,)), ((), ()))
        logits = jax.lax.dot_general(normed, weight, contracted, preferred_element_type=jnp.float32)
        cap = self.description.logit_softcap
        return logits if cap is None else jnp.tanh(logits / cap) * cap

    def sum_in_float32(self) -> None:
        """Have every product of activations and weights summed in float32 and rounded once.

        A CPU computes such products of bfloat16 two to four times as fast as those that are summed in
        bfloat16. Their automatic gradients would mix types, so this is for models that are only run.
        """
        for _, module in nnx.iter_modules(self):
            if isinstance(module, nnx.Linear):
                module.dot_general = _dot_in_float32
            elif isinstance(module, Attention):
                module.wide = True

    def init_cache(self, batch_size: int, cache_size: int, dtype: Any) -> Caches:
        """An empty cache for ``batch_size`` rows of ``cache_size`` tokens."""
        heads, size = self.description.num_kv_heads, self.description.head_dim
        return {
            f"layer_{index}": {
                "k": jnp.zeros((batch_size, heads, size, cache_size), dtype),
                "v": jnp.zeros((batch_size, heads, cache_size, size), dtype),
                "end_index": jnp.zeros(batch_size, jnp.int32),
            }
            for index in range(self.description.num_layers)
        }

    def get_model_input(self) -> dict[str, Any]:
        """The smallest arguments to call the model with, by name."""
        one = jnp.zeros((1, 1), jnp.int32)
        mask = jnp.ones((1, 1, 1), bool)
        return {"input_tokens": one, "positions": one, "cache": None, "attention_mask": mask}

    @classmethod
    def path_of(cls, name: str) -> str:
        """Where the tensor that Hugging Face calls ``name`` lies in the model, joined by dots."""
        if name.startswith("model.layers."):
            _, _, layer, inner = name.split(".", 3)
            return f"layers.{layer}.{cls.paths[inner]}"
        outer = {
            "model.embed_tokens.weight": "embedder.input_embedding",
            "model.norm.weight": cls.final_norm_path,
            "lm_head.weight": "lm_head.w",
        }
        return outer[name]


def _dot_in_float32(x: jax.Array, y: jax.Array, dimensions: Any, **_: Any) -> jax.Array:
    wide = jax.lax.dot_general(x, y, dimensions, preferred_element_type=jnp.float32)
    return wide.astype(x.dtype)


def is_transposed(name: str) -> bool:
    """Whether Tunix keeps the tensor as [inputs..., outputs...], not as Hugging Face's [outputs, inputs]."""
    return name.endswith("_proj.weight") or name == "lm_head.weight"


def tunix_sizes(config: ModelConfig) -> dict[str, int]:
    """The sizes of a model by the names that all of Tunix's configurations have for them."""
    return {
        "num_layers": config.num_layers,
        "embed_dim": config.hidden_size,
        "hidden_dim": config.intermediate_size,
        "num_heads": config.num_heads,
        "head_dim": config.head_dim,
        "num_kv_heads": config.num_kv_heads,
    }

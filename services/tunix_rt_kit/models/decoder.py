"""The base of the models of all families."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Final

import jax
import jax.numpy as jnp
from flax import nnx

from tunix_rt_kit.models.attention import Attention, Product
from tunix_rt_kit.models.config import ModelConfig

Caches = dict[str, dict[str, jax.Array]]
"""``layer_0``, ``layer_1`` and so on to the cache of that layer, see ``attention.Cache``."""


class Decoder(nnx.Module):
    """A Tunix model, mended, whose LM head can be computed at chosen tokens alone.

    A family's class inherits from this and from Tunix's class, in this order. ``description`` is its
    ``config.json``. ``paths`` maps Hugging Face's name of a tensor within a layer to its path within Tunix's
    layer; ``final_norm_path`` is the path of the last norm.
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
    weights_first: bool = False

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
            supervised: [K], indices into the B * T tokens: those that are learned. Over a big vocabulary the
                head costs as much as several layers, and most tokens of a training row are not learned.

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
        """Output of the last layer, [B, T, D], before the last norm; arguments as for calling the model.

        qwix intercepts ``__call__`` alone: call a model with LoRA itself.
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
        """Float32 logits [..., vocabulary] of ``hidden_states`` [..., D].

        In bfloat16 many would be equal, and the choice between them arbitrary.
        """
        normed = self.final_norm(hidden)
        tied = self.description.tied
        weight = self.embedder.input_embedding[...] if tied else self.lm_head.w[...]
        if self.weights_first:
            logits = _rowwise(_by_weights_first, normed, weight)
        else:
            contracted = (((normed.ndim - 1,), (1 if tied else 0,)), ((), ()))
            logits = jax.lax.dot_general(normed, weight, contracted, preferred_element_type=jnp.float32)
        cap = self.description.logit_softcap
        return logits if cap is None else jnp.tanh(logits / cap) * cap

    def only_run(self) -> None:
        """Use the fastest kernels of this host for products of activations and weights.

        They accumulate in float32 and round once: in bfloat16 a CPU is two to four times as fast so. In
        float32 on a CPU the weights are the first factor, laid out for it: XLA packs the second factor for
        each product, which costs as much as the product of a few rows. Gradients would mix types, so this is
        for models that are not trained.
        """
        in_float32 = self.embedder.input_embedding.dtype == jnp.float32
        self.weights_first = in_float32 and jax.default_backend() == "cpu"
        product, linear = _PRODUCTS[self.weights_first]
        for _, module in nnx.iter_modules(self):
            if isinstance(module, nnx.Linear):
                module.dot_general = linear
                self._lay_out(module.kernel, 1)
            elif isinstance(module, Attention):
                module.product = product
                for projection in (module.q_proj, module.k_proj, module.v_proj):
                    self._lay_out(projection.w, 1)
                self._lay_out(module.o_proj.w, 2)
        if not self.description.tied:
            self._lay_out(self.lm_head.w, 1)

    def _lay_out(self, weights: Any, inputs: int) -> None:
        """Make weights with ``inputs`` axes of inputs a matrix [outputs, inputs], if weights come first.

        Otherwise they stay as they are, and may be shared with a model that stays loaded.
        """
        if self.weights_first:
            value = weights[...]
            weights.set_value(value.reshape(math.prod(value.shape[:inputs]), -1).T)

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
        """The path in the model of Hugging Face's tensor ``name``, joined by dots."""
        if name.startswith("model.layers."):
            _, _, layer, inner = name.split(".", 3)
            return f"layers.{layer}.{cls.paths[inner]}"
        outer = {
            "model.embed_tokens.weight": "embedder.input_embedding",
            "model.norm.weight": cls.final_norm_path,
            "lm_head.weight": "lm_head.w",
        }
        return outer[name]


def _rowwise(product: Product, x: jax.Array, weights: jax.Array) -> jax.Array:
    flat = product(x.reshape(-1, x.shape[-1]), weights)
    return flat.reshape(*x.shape[:-1], -1)


def _in_float32(x: jax.Array, weights: jax.Array) -> jax.Array:
    """``weights`` are [inputs, outputs], either on several axes."""
    weights = weights.reshape(x.shape[-1], -1)
    return jax.lax.dot(x, weights, preferred_element_type=jnp.float32).astype(x.dtype)


def _by_weights_first(x: jax.Array, weights: jax.Array) -> jax.Array:
    """``weights`` are [outputs, inputs]."""
    columns = jax.lax.dot_general(weights, x, (((1,), (1,)), ((), ())))
    # Without the barrier XLA writes the product in rows, which costs what was gained.
    written: jax.Array = jax.lax.optimization_barrier(columns)  # type: ignore[no-untyped-call]
    return written.T


def _linear_in_float32(x: jax.Array, kernel: jax.Array, *_: Any, **__: Any) -> jax.Array:
    return _rowwise(_in_float32, x, kernel)


def _linear_by_weights_first(x: jax.Array, kernel: jax.Array, *_: Any, **__: Any) -> jax.Array:
    return _rowwise(_by_weights_first, x, kernel)


# By whether weights come first. Plain functions, so that the structures of two models are equal.
_PRODUCTS: Final = {
    False: (_in_float32, _linear_in_float32),
    True: (_by_weights_first, _linear_by_weights_first),
}


def is_transposed(name: str) -> bool:
    """Whether Tunix keeps the tensor as [inputs..., outputs...], not as Hugging Face's [outputs, inputs]."""
    return name.endswith("_proj.weight") or name == "lm_head.weight"


def tunix_sizes(config: ModelConfig) -> dict[str, int]:
    """A model's sizes, by their names in all of Tunix's configurations."""
    return {
        "num_layers": config.num_layers,
        "embed_dim": config.hidden_size,
        "hidden_dim": config.intermediate_size,
        "num_heads": config.num_heads,
        "head_dim": config.head_dim,
        "num_kv_heads": config.num_kv_heads,
    }

"""The base of the models of all families, and their attention, which puts right what Tunix gets wrong.

Of google-tunix 0.1.7, measured against ``transformers``:

- Llama and Qwen3 ignore ``ModelConfig.rope_theta`` and turn by a base of 1e6, Gemma 2 by 1e4; none but
  Gemma 3 scales frequencies.
- Gemma 2 compares a sliding window in positions with columns of keys, which differ in packed and in
  left-padded rows; Gemma 3's window is wrong where several tokens are read behind a filled cache.
- Gemma ignores ``query_pre_attn_scalar``, divides scores by the square root of the head's size, and takes
  their softmax in the model's type.
- Gemma keeps keys and values in one weight: LoRA would give both the same A, which ``peft`` cannot express.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final

import jax
import jax.numpy as jnp
from flax import nnx
from tunix.models.llama3 import model as llama3

from tunix_rt_kit.models.config import ModelConfig, Rope

Cache = dict[str, jax.Array]
"""Of one layer: ``k`` [B, KV heads, head dim, S], ``v`` [B, KV heads, S, head dim], and ``end_index`` [B],
each row's next column. Tunix's order of axes would cost a transposition for each product."""

Kernel = Callable[[jax.Array, jax.Array], jax.Array]
"""A kernel: rows [R, inputs] times weights, in a layout of its own, to [R, outputs]."""


class Attention(nnx.Module):
    """Grouped-query attention, with projections named and laid out as Tunix's Llama has them.

    Args:
        config: of the model.
        layer: which layer it is of, from 0.
        norms: those of queries and keys, where the family has them.
        rngs: for the fresh weights.

    Where ``kernel`` is set, see ``Decoder.only_run``, it computes the projections.
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
        self.kernel: Kernel | None = None

    def __call__(
        self,
        x: jax.Array,
        positions: jax.Array,
        cache: Cache | None,
        mask: jax.Array,
        segment_ids: None = None,
    ) -> tuple[Cache | None, jax.Array]:
        """Attend from each of the T tokens of ``x`` to the S columns that ``mask`` allows.

        Args:
            x: [B, T, D].
            positions: [B, T] for the rotary embedding; they restart in each packed segment.
            cache: of the tokens before, or None; then S is T.
            mask: [B, T, S] bool. A sliding window is applied here, in columns, which within a segment are as
                far apart as positions.
            segment_ids: not used; some of Tunix's layers hand it on.
        """
        del segment_ids
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
        output = attend(
            query, key, value, mask, scale=scale, softcap=softcap, in_float32=self.kernel is not None
        )
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
        if self.kernel is None:
            output: jax.Array = projection(x)
            return output
        size = math.prod(inputs)
        outputs = projection.shape[len(inputs) :]
        flat = self.kernel(x.reshape(-1, size), projection.w[...])
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
    in_float32: bool = False,
) -> jax.Array:
    """Values [B, T, N, H] weighted by the softmax of the scores, which is taken in float32.

    Args:
        query: [B, T, N, H].
        key: [B, K, H, S]; K divides N.
        value: [B, K, S, H].
        mask: [B, T, S] bool.
        scale: of the scores.
        softcap: bounds them, see ``ModelConfig``.
        in_float32: whether values are accumulated in float32, as scores are.
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
    summed = jnp.float32 if in_float32 else None
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
        kernel, linear = _KERNELS[self.weights_first]
        for _, module in nnx.iter_modules(self):
            if isinstance(module, nnx.Linear):
                module.dot_general = linear
                self._lay_out(module.kernel, 1)
            elif isinstance(module, Attention):
                module.kernel = kernel
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


def _rowwise(kernel: Kernel, x: jax.Array, weights: jax.Array) -> jax.Array:
    flat = kernel(x.reshape(-1, x.shape[-1]), weights)
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
_KERNELS: Final = {
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

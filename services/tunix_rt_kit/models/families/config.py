"""What a decoder of any family is, in numbers, once its ``config.json`` was read and checked."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

RopeKind = Literal["default", "linear", "llama3"]


@dataclass(frozen=True, slots=True)
class Rope:
    """Rotary position embedding: its base, and how its frequencies are scaled for longer contexts.

    ``factor`` counts for ``linear`` and ``llama3``, the last three for ``llama3`` alone.
    """

    theta: float
    kind: RopeKind = "default"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_context: float = 8192.0

    def inverse_frequencies(self, head_dim: int) -> tuple[float, ...]:
        """Radians by which each of the ``head_dim / 2`` pairs turns from one position to the next."""
        plain = [self.theta ** (-2 * pair / head_dim) for pair in range(head_dim // 2)]
        if self.kind == "linear":
            return tuple(frequency / self.factor for frequency in plain)
        if self.kind == "llama3":
            return tuple(self._llama3(frequency) for frequency in plain)
        return tuple(plain)

    def _llama3(self, frequency: float) -> float:
        """Llama 3.1's rule: slow pairs are slowed by ``factor``, fast ones kept, and those between blended.

        Source: ``apply_scaling`` in https://github.com/meta-llama/llama-models (``llama3/model.py``).
        """
        turns = self.original_context * frequency / (2 * math.pi)
        if turns > self.high_freq_factor:
            return frequency
        if turns < self.low_freq_factor:
            return frequency / self.factor
        kept = (turns - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)
        return (1 - kept) * frequency / self.factor + kept * frequency


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """What ``config.json`` says of a model, checked.

    ``hidden_size`` is the width of the residual stream. ``layer_norms`` names the norms of a layer as Hugging
    Face does. ``query_scale`` multiplies the attention scores; the softcaps bound scores and logits by
    ``cap * tanh(x / cap)``. A layer whose entry in ``windowed`` is true attends to the last ``window`` tokens
    only (the one that asks among them) and turns by ``local_rope``; the others see all tokens and turn by
    ``rope``.
    """

    family: str
    num_layers: int
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rms_norm_eps: float
    context_length: int
    tied: bool
    rope: Rope
    layer_norms: tuple[str, ...]
    query_scale: float
    attention_bias: bool = False
    query_key_norm: bool = False
    attention_softcap: float | None = None
    logit_softcap: float | None = None
    window: int | None = None
    windowed: tuple[bool, ...] = ()
    local_rope: Rope | None = None

    def window_of(self, layer: int) -> int | None:
        """How many tokens the layer attends to, or None for all."""
        return self.window if self.windowed and self.windowed[layer] else None

    def rope_of(self, layer: int) -> Rope:
        """The rotary embedding of the layer."""
        local = self.local_rope if self.window_of(layer) is not None else None
        return local or self.rope

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every tensor that the model needs, as Hugging Face names them."""
        shapes: dict[str, tuple[int, ...]] = {
            "model.embed_tokens.weight": (self.vocab_size, self.hidden_size),
            "model.norm.weight": (self.hidden_size,),
        }
        if not self.tied:
            shapes["lm_head.weight"] = (self.vocab_size, self.hidden_size)
        in_a_layer = self.layer_shapes()
        for layer in range(self.num_layers):
            shapes |= {f"model.layers.{layer}.{name}": shape for name, shape in in_a_layer.items()}
        return shapes

    def layer_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name within a layer and shape of every tensor of a layer."""
        width, inner = self.hidden_size, self.intermediate_size
        query, key = self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim
        shapes: dict[str, tuple[int, ...]] = {f"{name}.weight": (width,) for name in self.layer_norms}
        shapes |= {
            "self_attn.q_proj.weight": (query, width),
            "self_attn.k_proj.weight": (key, width),
            "self_attn.v_proj.weight": (key, width),
            "self_attn.o_proj.weight": (width, query),
            "mlp.gate_proj.weight": (inner, width),
            "mlp.up_proj.weight": (inner, width),
            "mlp.down_proj.weight": (width, inner),
        }
        if self.attention_bias:
            shapes |= {
                "self_attn.q_proj.bias": (query,),
                "self_attn.k_proj.bias": (key,),
                "self_attn.v_proj.bias": (key,),
            }
        if self.query_key_norm:
            shapes |= {
                "self_attn.q_norm.weight": (self.head_dim,),
                "self_attn.k_norm.weight": (self.head_dim,),
            }
        return shapes

    def parameter_count(self) -> int:
        """Number of weights; a tied head counts once."""
        return sum(math.prod(shape) for shape in self.tensor_shapes().values())

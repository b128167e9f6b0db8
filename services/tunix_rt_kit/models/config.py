"""A model's ``config.json``: its fields, checked one by one, and what they say as a ``ModelConfig``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, cast

from tunix_rt_kit.errors import FailedPrecondition

RopeKind = Literal["default", "linear", "llama3"]
CONFIG_FILE: Final = "config.json"
_ROPE_KINDS: Final = ("default", "linear", "llama3")
_SHOWN: Final = 200
# Beyond any model there is. Larger ones would fill the memory before a weight is read.
_MOST: Final = {
    "num_hidden_layers": 1 << 10,
    "num_attention_heads": 1 << 12,
    "head_dim": 1 << 13,
    "vocab_size": 1 << 24,
    "hidden_size": 1 << 20,
    "intermediate_size": 1 << 22,
}
_MOST_TOKENS: Final = 1 << 30
_LEAST, _GREATEST = 1e-12, 1e12


@dataclass(frozen=True, slots=True)
class Rope:
    """Rotary position embedding: its base, and how its frequencies are scaled for longer contexts.

    ``factor`` belongs to ``linear`` and ``llama3``, the last three to ``llama3`` alone.
    """

    theta: float
    kind: RopeKind = "default"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_context: float = 8192.0

    def inverse_frequencies(self, head_dim: int) -> tuple[float, ...]:
        """How far each of the ``head_dim / 2`` pairs turns from one position to the next, in radians."""
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

    ``hidden_size`` is the width of the residual stream. ``layer_norms`` are Hugging Face's names of the norms
    of a layer. ``query_scale`` multiplies the attention scores; the softcaps bound scores and logits by
    ``cap * tanh(x / cap)``. A layer whose entry in ``windowed`` is true attends to the last ``window``
    tokens, the querying one included, and turns by ``local_rope``; the others see all tokens and turn by
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


def unsupported(folder: Path, field: str, found: Any, wanted: str, *, file: str = "") -> FailedPrecondition:
    """The error for a folder whose ``field`` (of ``file``) has a value that is not supported."""
    return unfit(folder, field, f"is {found!r:.{_SHOWN}}; {wanted}", file=file)


def unfit(folder: Path, field: str, problem: str, *, file: str = "") -> FailedPrecondition:
    """The error for a folder with a ``problem`` in ``field`` (of ``file``), or in a file of that name."""
    return FailedPrecondition(
        f"{folder}: {file and f'{file}: '}{field} {problem}",
        reason="BASE_MODEL_UNSUPPORTED",
        metadata={"path": str(folder), "field": field},
    )


class Fields:
    """The entries of a ``config.json``, or of an object in it. An entry that is null counts as absent.

    Every method that reads one raises FailedPrecondition (BASE_MODEL_UNSUPPORTED) that names it.
    """

    def __init__(self, folder: Path, values: Mapping[str, Any], prefix: str = "") -> None:
        self._folder = folder
        self._named = frozenset(values)
        self._values = {name: value for name, value in values.items() if value is not None}
        self._prefix = prefix

    def __contains__(self, field: str) -> bool:
        return field in self._values

    def named(self, field: str) -> bool:
        """Whether the file has the entry, be it null."""
        return field in self._named

    def raw(self, field: str, default: Any = None) -> Any:
        """The value as it stands."""
        return self._values.get(field, default)

    def count(self, field: str, default: int | None = None) -> int:
        """A positive integer, of a size that a model can have."""
        value, most = self._values.get(field, default), _MOST.get(field, _MOST_TOKENS)
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
            raise self.refusal(field, value, f"it must be a positive integer, at most {most:,}")
        return value

    def number(self, field: str, default: float | None = None) -> float:
        """A positive number of a size that can be computed with."""
        value = self._values.get(field, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not _LEAST <= value <= _GREATEST:
            raise self.refusal(
                field, value, f"it must be a positive number, from {_LEAST:g} to {_GREATEST:g}"
            )
        return float(value)

    def optional_number(self, field: str) -> float | None:
        """As ``number``, or None where it is absent."""
        return self.number(field) if field in self._values else None

    def flag(self, field: str, *, default: bool) -> bool:
        """True or false."""
        value = self._values.get(field, default)
        if not isinstance(value, bool):
            raise self.refusal(field, value, "it must be true or false")
        return value

    def require(self, field: str, wanted: Any) -> None:
        """Refuse every value but ``wanted``; the field may be absent."""
        value = self._values.get(field, wanted)
        if value != wanted:
            raise self.refusal(field, value, f"only {wanted!r} is supported")

    def refuse(self, field: str) -> None:
        """Refuse the field, unless it is empty, false or absent."""
        if self._values.get(field):
            raise self.refusal(field, self._values[field], "it is not supported; it must be absent")

    def refusal(self, field: str, found: Any, wanted: str) -> FailedPrecondition:
        """The error for ``field``, to raise."""
        return unsupported(self._folder, f"{self._prefix}{field}", found, wanted, file=CONFIG_FILE)

    def inner(self, field: str) -> Fields:
        """The entries of the object ``field``, none where it is absent."""
        value = self._values.get(field, {})
        if not isinstance(value, dict):
            raise self.refusal(field, value, "it must be an object")
        return Fields(self._folder, value, f"{self._prefix}{field}.")

    def windowed_layers(self, layers: int, default: Sequence[bool]) -> tuple[bool, ...]:
        """For each layer whether ``layer_types`` gives it a sliding window."""
        kinds = self._values.get("layer_types")
        if kinds is None:
            return tuple(default)
        known = {"sliding_attention": True, "full_attention": False}
        if (
            not isinstance(kinds, list)
            or len(kinds) != layers
            or not all(isinstance(kind, str) and kind in known for kind in kinds)
        ):
            raise self.refusal(
                "layer_types", kinds, f"it must name {layers} layers, each one of {', '.join(known)}"
            )
        return tuple(known[kind] for kind in kinds)

    def heads(self, *, default_head_dim: int | None = None) -> tuple[int, int, int]:
        """Query heads, key-value heads and the size of a head, as they must be for grouped attention."""
        heads = self.count("num_attention_heads")
        kv_heads = self.count("num_key_value_heads", heads)
        if heads % kv_heads:
            raise self.refusal("num_key_value_heads", kv_heads, f"it must divide {heads} attention heads")
        head_dim = self.count("head_dim", default_head_dim or max(self.count("hidden_size") // heads, 1))
        if head_dim % 2:
            raise self.refusal("head_dim", head_dim, "it must be even, for rotary positions")
        return heads, kv_heads, head_dim

    def sizes(self, *, default_head_dim: int | None = None) -> dict[str, Any]:
        """The fields that every family reads alike, by their names in ``ModelConfig``."""
        heads, kv_heads, head_dim = self.heads(default_head_dim=default_head_dim)
        return {
            "num_layers": self.count("num_hidden_layers"),
            "vocab_size": self.count("vocab_size"),
            "hidden_size": self.count("hidden_size"),
            "intermediate_size": self.count("intermediate_size"),
            "num_heads": heads,
            "num_kv_heads": kv_heads,
            "head_dim": head_dim,
            "rms_norm_eps": self.number("rms_norm_eps", 1e-6),
            "context_length": self.count("max_position_embeddings"),
        }

    def rope(self, *, default_theta: float = 10_000.0) -> Rope:
        """The rotary embedding: ``rope_theta`` and ``rope_scaling``, or newer files' ``rope_parameters``."""
        older, newer = self._values.get("rope_scaling"), self._values.get("rope_parameters")
        if older and newer and older != newer:
            raise self.refusal("rope_parameters", newer, f"it contradicts rope_scaling, which is {older}")
        theta = self.number("rope_theta", default_theta)
        self.require("partial_rotary_factor", 1.0)
        return self._rope(
            "rope_scaling" if older else "rope_parameters", theta, self.count("max_position_embeddings")
        )

    def rope_for(self, field: str, *, theta: float) -> Rope:
        """The rotary embedding of the object ``field``, with base ``theta`` unless it names one."""
        return self._rope(field, theta, None)

    def _rope(self, field: str, theta: float, context: int | None) -> Rope:
        inner = self.inner(field)
        named = "rope_type" if "rope_type" in inner or "type" not in inner else "type"
        kind = inner.raw(named, "default")
        if kind not in _ROPE_KINDS or (named not in inner and "factor" in inner):
            raise self.refusal(
                field, self._values[field], f"its rope_type must be one of {', '.join(_ROPE_KINDS)}"
            )
        inner.require("partial_rotary_factor", 1.0)
        theta = inner.number("rope_theta", theta)
        if kind == "default":
            return Rope(theta)
        if kind == "linear":
            return Rope(theta, "linear", inner.number("factor"))
        low, high = inner.number("low_freq_factor"), inner.number("high_freq_factor")
        if low >= high:
            raise inner.refusal("low_freq_factor", low, f"it must be below high_freq_factor ({high})")
        original = inner.number("original_max_position_embeddings", context)
        if "original_max_position_embeddings" in self:
            # Beside the object it wins over the object's own, as in transformers.
            original = self.number("original_max_position_embeddings")
        return Rope(theta, cast(RopeKind, kind), inner.number("factor"), low, high, original)

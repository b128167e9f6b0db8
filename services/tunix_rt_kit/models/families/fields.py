"""Reads the fields of a ``config.json``, and refuses by name and value those that cannot be honoured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast

from tunix_rt_kit.errors import FailedPrecondition
from tunix_rt_kit.models.families.config import Rope, RopeKind

CONFIG_FILE: Final = "config.json"
_ROPE_KINDS: Final = ("default", "linear", "llama3")
_SHOWN: Final = 200
# Beyond any model there is; what is computed from larger ones would fill the memory before a weight is read.
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


def unsupported(folder: Path, field: str, found: Any, wanted: str, *, file: str = "") -> FailedPrecondition:
    """The error for a folder whose ``field``, of ``file`` where that is not said by it, is not what is
    supported."""
    return unfit(folder, field, f"is {found!r:.{_SHOWN}}; {wanted}", file=file)


def unfit(folder: Path, field: str, problem: str, *, file: str = "") -> FailedPrecondition:
    """The error for a folder with a ``problem`` in ``field``, which may be a file."""
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
        """A positive number, neither so small nor so large that nothing can be computed with it."""
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
        """Refuse every value but ``wanted``; absence is as good."""
        value = self._values.get(field, wanted)
        if value != wanted:
            raise self.refusal(field, value, f"only {wanted!r} is supported")

    def refuse(self, field: str) -> None:
        """Refuse any value that says something."""
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
        """What every family reads alike, by the names of ``ModelConfig``."""
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
        """The rotary embedding, in the spelling of older files (``rope_theta`` and ``rope_scaling``) or of
        newer ones (``rope_parameters``)."""
        older, newer = self._values.get("rope_scaling"), self._values.get("rope_parameters")
        if older and newer and older != newer:
            raise self.refusal("rope_parameters", newer, f"it contradicts rope_scaling, which is {older}")
        theta = self.number("rope_theta", default_theta)
        self.require("partial_rotary_factor", 1.0)
        return self._rope(
            "rope_scaling" if older else "rope_parameters", theta, self.count("max_position_embeddings")
        )

    def rope_for(self, field: str, *, theta: float) -> Rope:
        """The rotary embedding that the object ``field`` describes, of base ``theta`` unless it names one."""
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
            # Said beside the object, it goes before what the object says: so transformers has it.
            original = self.number("original_max_position_embeddings")
        return Rope(theta, cast(RopeKind, kind), inner.number("factor"), low, high, original)

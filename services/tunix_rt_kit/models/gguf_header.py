"""The header of a GGUF file, and the ``config.json`` of the model that it describes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import gguf
import numpy as np

from tunix_rt_kit.errors import InvalidArgument
from tunix_rt_kit.models.families import Rope

# llama.cpp's name of an architecture to Hugging Face's, and what that says beyond the numbers.
_ARCHITECTURES: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "llama": ("LlamaForCausalLM", {"attention_bias": False, "mlp_bias": False, "pretraining_tp": 1}),
    "qwen2": ("Qwen2ForCausalLM", {"use_sliding_window": False}),
    "qwen3": ("Qwen3ForCausalLM", {"attention_bias": False, "use_sliding_window": False}),
}
# What Llama 3.1, 3.2 and 3.3 were published with, but for the factor.
_LLAMA3: Final = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
_CLOSE: Final = 1e-3


class GgufMetadata:
    """The key-value header of a GGUF file, with errors that name the missing key."""

    def __init__(self, reader: gguf.GGUFReader) -> None:
        self._fields = reader.fields

    def get(self, key: str, default: Any = None) -> Any:
        """The value of ``key``, or ``default``."""
        field = self._fields.get(key)
        return default if field is None else field.contents()

    def __getitem__(self, key: str) -> Any:
        value = self.get(key)
        if value is None:
            raise refusal(f"GGUF file has no metadata {key!r}")
        return value

    @property
    def architecture(self) -> str:
        """llama.cpp's name of the architecture, which begins the keys of its numbers.

        Raises:
            InvalidArgument: GGUF_UNSUPPORTED, it is not understood.
        """
        name: str = self["general.architecture"]
        if name not in _ARCHITECTURES:
            known = ", ".join(_ARCHITECTURES)
            raise refusal(
                f"GGUF architecture is {name!r}; understood are {known}. Use the model's Hugging Face folder"
            )
        return name


def refusal(message: str) -> InvalidArgument:
    """The error for a GGUF file that is not understood, to raise."""
    return InvalidArgument(message, reason="GGUF_UNSUPPORTED")


def model_config(
    metadata: GgufMetadata, *, tied: bool, vocab_size: int, rope_factors: Sequence[float] | None
) -> dict[str, Any]:
    """The Hugging Face config of the model that a GGUF header describes.

    Args:
        metadata: the header.
        tied: whether the file has no output matrix.
        vocab_size: rows of the embedding.
        rope_factors: the tensor ``rope_freqs``, by which Llama 3.1 slows its rotary pairs, or None.

    Raises:
        InvalidArgument: GGUF_UNSUPPORTED, naming what is not understood.
    """
    prefix = metadata.architecture
    architecture, facts = _ARCHITECTURES[prefix]
    heads = metadata[f"{prefix}.attention.head_count"]
    width = metadata[f"{prefix}.embedding_length"]
    head_dim = metadata.get(f"{prefix}.attention.key_length", width // heads)
    if metadata.get(f"{prefix}.rope.dimension_count", head_dim) != head_dim:
        raise refusal("GGUF file rotates only a part of each head")
    # The header holds float32; its shortest decimal form is what the publisher wrote.
    theta = float(str(np.float32(metadata[f"{prefix}.rope.freq_base"])))
    config = {
        "architectures": [architecture],
        "attention_dropout": 0.0,
        "bos_token_id": metadata.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": metadata["tokenizer.ggml.eos_token_id"],
        "head_dim": head_dim,
        "hidden_act": "silu",
        "hidden_size": width,
        "initializer_range": 0.02,
        "intermediate_size": metadata[f"{prefix}.feed_forward_length"],
        "max_position_embeddings": metadata[f"{prefix}.context_length"],
        "model_type": prefix,
        "num_attention_heads": heads,
        "num_hidden_layers": metadata[f"{prefix}.block_count"],
        "num_key_value_heads": metadata.get(f"{prefix}.attention.head_count_kv", heads),
        "rms_norm_eps": float(str(np.float32(metadata[f"{prefix}.attention.layer_norm_rms_epsilon"]))),
        "rope_scaling": _rope_scaling(metadata, Rope(theta), head_dim, rope_factors),
        "rope_theta": theta,
        "tie_word_embeddings": tied,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "vocab_size": vocab_size,
    }
    return config | facts


def _rope_scaling(
    metadata: GgufMetadata, plain: Rope, head_dim: int, factors: Sequence[float] | None
) -> dict[str, Any] | None:
    prefix = metadata.architecture
    kind = metadata.get(f"{prefix}.rope.scaling.type", "none")
    if kind not in ("none", "linear"):
        raise refusal(f"GGUF file uses RoPE scaling {kind!r}, which is not understood")
    if kind == "linear":
        return {"rope_type": "linear", "factor": float(metadata[f"{prefix}.rope.scaling.factor"])}
    if factors is None:
        return None
    factor = float(max(factors))
    scaled = Rope(plain.theta, "llama3", factor, 1.0, 4.0, 8192.0).inverse_frequencies(head_dim)
    expected = [a / b for a, b in zip(plain.inverse_frequencies(head_dim), scaled, strict=True)]
    if len(factors) != len(expected) or not np.allclose(factors, expected, rtol=_CLOSE):
        raise refusal(
            "GGUF file has rope_freqs other than those of Llama 3.1's rule, which are not understood"
        )
    return {"rope_type": "llama3", "factor": factor, **_LLAMA3}

"""Qwen2 (2.5 and the distilled R1 among them) and Qwen3, the dense models."""

from __future__ import annotations

from tunix_rt_kit.models.families.config import ModelConfig
from tunix_rt_kit.models.families.family import Family, refuse_unknown_arithmetic
from tunix_rt_kit.models.families.fields import Fields
from tunix_rt_kit.models.families.llama import plain_decoder

_QWEN3_HEAD_DIM = 128


def read_qwen2(fields: Fields) -> ModelConfig:
    """See ``Family.read``."""
    _refuse(fields)
    return plain_decoder(fields, "qwen2", attention_bias=True)


def read_qwen3(fields: Fields) -> ModelConfig:
    """See ``Family.read``."""
    _refuse(fields)
    fields.refuse("attention_bias")
    return plain_decoder(fields, "qwen3", query_key_norm=True, head_dim=_QWEN3_HEAD_DIM)


def _refuse(fields: Fields) -> None:
    refuse_unknown_arithmetic(fields, activation_field="hidden_act", activation="silu")
    # Windows over the upper layers alone, and attention in chunks: no published dense model needs them at the
    # lengths that are trained here.
    fields.refuse("use_sliding_window")
    fields.refuse("dual_chunk_attention_config")
    layers = fields.count("num_hidden_layers")
    if any(fields.windowed_layers(layers, [False] * layers)):
        raise fields.refusal("layer_types", fields.raw("layer_types"), "only 'full_attention' is supported")


QWEN2 = Family("qwen2", "Qwen2ForCausalLM", "qwen2", read_qwen2)
QWEN3 = Family("qwen3", "Qwen3ForCausalLM", "qwen3", read_qwen3)

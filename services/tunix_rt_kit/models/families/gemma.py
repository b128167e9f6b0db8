"""Gemma 2 and the text models of Gemma 3."""

from __future__ import annotations

from collections.abc import Sequence

from tunix_rt_kit.models.families.config import ModelConfig, Rope
from tunix_rt_kit.models.families.family import Family, refuse_unknown_arithmetic
from tunix_rt_kit.models.families.fields import Fields

LAYER_NORMS = (
    "input_layernorm",
    "post_attention_layernorm",
    "pre_feedforward_layernorm",
    "post_feedforward_layernorm",
)
_HEAD_DIM = 256
_QUERY_SCALAR = 256.0
_WINDOW = 4096
_GLOBAL_THETA, _LOCAL_THETA = 1_000_000.0, 10_000.0


def read_gemma2(fields: Fields) -> ModelConfig:
    """See ``Family.read``."""
    _refuse(fields)
    layers = fields.count("num_hidden_layers")
    return _gemma(
        fields,
        "gemma2",
        rope=fields.rope(),
        local_rope=None,
        windowed=fields.windowed_layers(layers, [layer % 2 == 0 for layer in range(layers)]),
        attention_softcap=_softcap(fields, "attn_logit_softcapping", 50.0),
        logit_softcap=_softcap(fields, "final_logit_softcapping", 30.0),
        query_key_norm=False,
    )


def read_gemma3(fields: Fields) -> ModelConfig:
    """See ``Family.read``."""
    _refuse(fields)
    # transformers reads it and applies it nowhere; no published model sets it.
    fields.refuse("attn_logit_softcapping")
    layers = fields.count("num_hidden_layers")
    pattern = fields.count("sliding_window_pattern", 6)
    rope, local_rope = _gemma3_ropes(fields)
    return _gemma(
        fields,
        "gemma3",
        rope=rope,
        local_rope=local_rope,
        windowed=fields.windowed_layers(layers, [(layer + 1) % pattern != 0 for layer in range(layers)]),
        attention_softcap=None,
        logit_softcap=fields.optional_number("final_logit_softcapping"),
        query_key_norm=True,
    )


def _gemma(
    fields: Fields,
    family: str,
    *,
    rope: Rope,
    local_rope: Rope | None,
    windowed: Sequence[bool],
    attention_softcap: float | None,
    logit_softcap: float | None,
    query_key_norm: bool,
) -> ModelConfig:
    return ModelConfig(
        **fields.sizes(default_head_dim=_HEAD_DIM),
        family=family,
        tied=True,
        rope=rope,
        layer_norms=LAYER_NORMS,
        query_scale=fields.number("query_pre_attn_scalar", _QUERY_SCALAR) ** -0.5,
        query_key_norm=query_key_norm,
        attention_softcap=attention_softcap,
        logit_softcap=logit_softcap,
        window=fields.count("sliding_window", _WINDOW) if any(windowed) else None,
        windowed=tuple(windowed),
        local_rope=local_rope,
    )


def _refuse(fields: Fields) -> None:
    refuse_unknown_arithmetic(fields, activation_field="hidden_activation", activation="gelu_pytorch_tanh")
    fields.refuse("attention_bias")
    fields.refuse("use_bidirectional_attention")
    fields.require("tie_word_embeddings", True)


def _softcap(fields: Fields, field: str, default: float) -> float | None:
    """None where the file says null; the default of the architecture where it says nothing."""
    return fields.optional_number(field) if fields.named(field) else default


def _gemma3_ropes(fields: Fields) -> tuple[Rope, Rope]:
    """Of layers that see all tokens, and of those with a window."""
    theta = fields.number("rope_theta", _GLOBAL_THETA)
    local_theta = fields.number("rope_local_base_freq", _LOCAL_THETA)
    if "rope_parameters" not in fields:
        return fields.rope_for("rope_scaling", theta=theta), Rope(local_theta)
    fields.refuse("rope_scaling")
    value, kinds = fields.raw("rope_parameters"), ("full_attention", "sliding_attention")
    both = fields.inner("rope_parameters")
    if not set(value) <= set(kinds):
        raise fields.refusal("rope_parameters", value, f"it must have no entries but {' and '.join(kinds)}")
    return both.rope_for(kinds[0], theta=theta), both.rope_for(kinds[1], theta=local_theta)


GEMMA2 = Family("gemma2", "Gemma2ForCausalLM", "gemma2", read_gemma2)
GEMMA3 = Family("gemma3", "Gemma3ForCausalLM", "gemma3_text", read_gemma3)

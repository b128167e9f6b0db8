"""Llama: SmolLM2, Llama 2 and 3, with Llama 3.1's scaling of the rotary frequencies."""

from __future__ import annotations

from tunix_rt_kit.models.families.config import ModelConfig
from tunix_rt_kit.models.families.family import Family, refuse_unknown_arithmetic
from tunix_rt_kit.models.families.fields import Fields

LAYER_NORMS = ("input_layernorm", "post_attention_layernorm")


def read(fields: Fields) -> ModelConfig:
    """See ``Family.read``."""
    refuse_unknown_arithmetic(fields, activation_field="hidden_act", activation="silu")
    fields.refuse("attention_bias")
    return plain_decoder(fields, "llama")


def plain_decoder(
    fields: Fields,
    family: str,
    *,
    attention_bias: bool = False,
    query_key_norm: bool = False,
    head_dim: int | None = None,
) -> ModelConfig:
    """What Llama and Qwen share: two norms a layer, full attention, scores scaled by the head's size.

    Args:
        fields: of ``config.json``.
        family: its name.
        attention_bias: whether the projections to queries, keys and values have one.
        query_key_norm: whether queries and keys are normalised.
        head_dim: what its absence means, ``hidden_size / num_attention_heads`` if None.
    """
    sizes = fields.sizes(default_head_dim=head_dim)
    return ModelConfig(
        **sizes,
        family=family,
        tied=fields.flag("tie_word_embeddings", default=False),
        rope=fields.rope(),
        layer_norms=LAYER_NORMS,
        query_scale=sizes["head_dim"] ** -0.5,
        attention_bias=attention_bias,
        query_key_norm=query_key_norm,
    )


FAMILY = Family("llama", "LlamaForCausalLM", "llama", read)

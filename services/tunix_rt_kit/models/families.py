"""The families of models that can be run: how each reads ``config.json``. Needs no model library.

``tunix_rt_kit.models.networks`` runs them, under the same names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tunix_rt_kit.models.config import CONFIG_FILE, Fields, ModelConfig, Rope, unsupported

_LLAMA_NORMS: Final = ("input_layernorm", "post_attention_layernorm")
_GEMMA_NORMS: Final = (*_LLAMA_NORMS, "pre_feedforward_layernorm", "post_feedforward_layernorm")
# What the absence of a field means.
_QWEN3_HEAD_DIM: Final = 128
_GEMMA_HEAD_DIM: Final = 256
_GEMMA_QUERY_SCALAR: Final = 256.0
_GEMMA_WINDOW: Final = 4096
_GEMMA3_THETA, _GEMMA3_LOCAL_THETA = 1_000_000.0, 10_000.0
_MULTIMODAL: Final = "Gemma3ForConditionalGeneration"


@dataclass(frozen=True, slots=True)
class Family:
    """A family of models.

    ``architecture`` and ``model_type`` are its names in ``config.json``; ``read`` turns the fields of that
    file into a ``ModelConfig`` and raises FailedPrecondition (BASE_MODEL_UNSUPPORTED) for one that cannot be
    honoured.
    """

    name: str
    architecture: str
    model_type: str
    read: Callable[[Fields], ModelConfig]


def _refuse_unknown_arithmetic(fields: Fields, *, activation_field: str, activation: str) -> None:
    # No family here computes other activations, biased projections or quantised weights.
    fields.require(activation_field, activation)
    fields.refuse("quantization_config")
    fields.refuse("mlp_bias")


def _read_llama(fields: Fields) -> ModelConfig:
    # SmolLM2, Llama 2 and 3, with Llama 3.1's scaling of the rotary frequencies.
    _refuse_unknown_arithmetic(fields, activation_field="hidden_act", activation="silu")
    fields.refuse("attention_bias")
    return _plain_decoder(fields, "llama")


def _plain_decoder(
    fields: Fields,
    family: str,
    *,
    attention_bias: bool = False,
    query_key_norm: bool = False,
    head_dim: int | None = None,
) -> ModelConfig:
    """What Llama and Qwen share: two norms a layer, full attention, scores scaled by the head's size.

    ``head_dim`` is the default of that field; None is ``hidden_size / num_attention_heads``.
    """
    sizes = fields.sizes(default_head_dim=head_dim)
    return ModelConfig(
        **sizes,
        family=family,
        tied=fields.flag("tie_word_embeddings", default=False),
        rope=fields.rope(),
        layer_norms=_LLAMA_NORMS,
        query_scale=sizes["head_dim"] ** -0.5,
        attention_bias=attention_bias,
        query_key_norm=query_key_norm,
    )


def _read_qwen2(fields: Fields) -> ModelConfig:
    _refuse_beyond_qwen(fields)
    return _plain_decoder(fields, "qwen2", attention_bias=True)


def _read_qwen3(fields: Fields) -> ModelConfig:
    _refuse_beyond_qwen(fields)
    fields.refuse("attention_bias")
    return _plain_decoder(fields, "qwen3", query_key_norm=True, head_dim=_QWEN3_HEAD_DIM)


def _refuse_beyond_qwen(fields: Fields) -> None:
    # Qwen2 (2.5 and the distilled R1 among them) and Qwen3: the dense models.
    _refuse_unknown_arithmetic(fields, activation_field="hidden_act", activation="silu")
    # Windows over the upper layers alone, and attention in chunks: no published dense model needs them at the
    # lengths that are trained here.
    fields.refuse("use_sliding_window")
    fields.refuse("dual_chunk_attention_config")
    layers = fields.count("num_hidden_layers")
    if any(fields.windowed_layers(layers, [False] * layers)):
        raise fields.refusal("layer_types", fields.raw("layer_types"), "only 'full_attention' is supported")


def _read_gemma2(fields: Fields) -> ModelConfig:
    _refuse_beyond_gemma(fields)
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


def _read_gemma3(fields: Fields) -> ModelConfig:
    _refuse_beyond_gemma(fields)
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
    """What Gemma 2 and the text models of Gemma 3 share."""
    return ModelConfig(
        **fields.sizes(default_head_dim=_GEMMA_HEAD_DIM),
        family=family,
        tied=True,
        rope=rope,
        layer_norms=_GEMMA_NORMS,
        query_scale=fields.number("query_pre_attn_scalar", _GEMMA_QUERY_SCALAR) ** -0.5,
        query_key_norm=query_key_norm,
        attention_softcap=attention_softcap,
        logit_softcap=logit_softcap,
        window=fields.count("sliding_window", _GEMMA_WINDOW) if any(windowed) else None,
        windowed=tuple(windowed),
        local_rope=local_rope,
    )


def _refuse_beyond_gemma(fields: Fields) -> None:
    _refuse_unknown_arithmetic(fields, activation_field="hidden_activation", activation="gelu_pytorch_tanh")
    fields.refuse("attention_bias")
    fields.refuse("use_bidirectional_attention")
    fields.require("tie_word_embeddings", True)


def _softcap(fields: Fields, field: str, default: float) -> float | None:
    """None where the file says null; the default of the architecture where it says nothing."""
    return fields.optional_number(field) if fields.named(field) else default


def _gemma3_ropes(fields: Fields) -> tuple[Rope, Rope]:
    """Of layers that see all tokens, and of those with a window."""
    theta = fields.number("rope_theta", _GEMMA3_THETA)
    local_theta = fields.number("rope_local_base_freq", _GEMMA3_LOCAL_THETA)
    if "rope_parameters" not in fields:
        return fields.rope_for("rope_scaling", theta=theta), Rope(local_theta)
    fields.refuse("rope_scaling")
    value, kinds = fields.raw("rope_parameters"), ("full_attention", "sliding_attention")
    both = fields.inner("rope_parameters")
    if not set(value) <= set(kinds):
        raise fields.refusal("rope_parameters", value, f"it must have no entries but {' and '.join(kinds)}")
    return both.rope_for(kinds[0], theta=theta), both.rope_for(kinds[1], theta=local_theta)


FAMILIES: Final[dict[str, Family]] = {
    family.name: family
    for family in (
        Family("llama", "LlamaForCausalLM", "llama", _read_llama),
        Family("qwen2", "Qwen2ForCausalLM", "qwen2", _read_qwen2),
        Family("qwen3", "Qwen3ForCausalLM", "qwen3", _read_qwen3),
        Family("gemma2", "Gemma2ForCausalLM", "gemma2", _read_gemma2),
        Family("gemma3", "Gemma3ForCausalLM", "gemma3_text", _read_gemma3),
    )
}
"""Every family by name."""


def family_of(folder: Path, architectures: Any) -> Family:
    """The family whose ``architectures`` entry a ``config.json`` in ``folder`` has.

    Raises:
        FailedPrecondition: BASE_MODEL_UNSUPPORTED, with the architectures that are known.
    """
    for family in FAMILIES.values():
        if architectures == [family.architecture]:
            return family
    known = ", ".join(family.architecture for family in FAMILIES.values())
    wanted = f"it must name one of {known}"
    if architectures == [_MULTIMODAL]:
        wanted = f"models of text and images are not supported; {wanted}"
    raise unsupported(folder, "architectures", architectures, wanted, file=CONFIG_FILE)

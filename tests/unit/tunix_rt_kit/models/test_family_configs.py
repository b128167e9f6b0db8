"""What is read from the ``config.json`` of each family, and what is refused by field."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.tiny_model import NULL, make_tiny_model
from tunix_rt_kit.errors import FailedPrecondition
from tunix_rt_kit.models.config import ModelConfig, Rope
from tunix_rt_kit.models.families import FAMILIES
from tunix_rt_kit.models.hf_folder import read_config


def read(folder: Path, family: str, **config: Any) -> ModelConfig:
    return read_config(make_tiny_model(folder, family=family, config=config))


def read_alone(folder: Path, config: dict[str, Any]) -> ModelConfig:
    (folder / "config.json").write_text(json.dumps(config))
    return read_config(folder)


@pytest.mark.parametrize(
    ("family", "changes", "field"),
    [
        ("qwen2", {"use_sliding_window": True}, "use_sliding_window"),
        ("qwen2", {"layer_types": ["full_attention", "sliding_attention"]}, "layer_types"),
        ("qwen2", {"dual_chunk_attention_config": {"chunk_size": 1}}, "dual_chunk_attention_config"),
        ("qwen2", {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "rope_scaling"),
        ("qwen2", {"hidden_act": "gelu"}, "hidden_act"),
        ("qwen3", {"attention_bias": True}, "attention_bias"),
        ("qwen3", {"rope_scaling": {"type": "yarn", "factor": 4.0}}, "rope_scaling"),
        ("gemma2", {"hidden_activation": "gelu"}, "hidden_activation"),
        ("gemma2", {"attention_bias": True}, "attention_bias"),
        ("gemma2", {"tie_word_embeddings": False}, "tie_word_embeddings"),
        ("gemma2", {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
        ("gemma2", {"sliding_window": 0}, "sliding_window"),
        ("gemma2", {"query_pre_attn_scalar": -1}, "query_pre_attn_scalar"),
        ("gemma2", {"attn_logit_softcapping": 0.0}, "attn_logit_softcapping"),
        ("gemma2", {"final_logit_softcapping": "30"}, "final_logit_softcapping"),
        ("gemma2", {"layer_types": ["full_attention"]}, "layer_types"),
        ("gemma2", {"layer_types": ["full_attention", "chunked_attention"]}, "layer_types"),
        ("gemma3", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
        ("gemma3", {"rope_scaling": {"rope_type": "yarn", "factor": 8.0}}, "rope_scaling"),
        (
            "gemma3",
            {"rope_parameters": {"sliding_attention": {"rope_type": "dynamic"}}},
            "rope_parameters.sliding_attention",
        ),
        ("gemma3", {"rope_local_base_freq": 0}, "rope_local_base_freq"),
        ("gemma3", {"rope_parameters": {"rope_type": "linear", "factor": 8.0}}, "rope_parameters"),
        ("gemma3", {"rope_parameters": 7}, "rope_parameters"),
        (
            "gemma3",
            {
                "rope_parameters": {"full_attention": {}},
                "rope_scaling": {"rope_type": "linear", "factor": 8.0},
            },
            "rope_scaling",
        ),
        ("gemma3", {"sliding_window_pattern": 0}, "sliding_window_pattern"),
    ],
)
def test_what_no_family_here_computes_is_refused_by_field(
    tmp_path: Path, family: str, changes: dict[str, Any], field: str
) -> None:
    folder = make_tiny_model(tmp_path / "model", family=family)
    config = json.loads((folder / "config.json").read_text()) | changes
    with pytest.raises(FailedPrecondition) as caught:
        read_alone(folder, config)
    assert caught.value.reason == "BASE_MODEL_UNSUPPORTED"
    assert caught.value.metadata["field"] == field
    assert field in str(caught.value)


def test_a_model_of_text_and_images_is_refused_as_such(tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match=r"text and images are not supported.*Gemma3ForCausalLM"):
        read_alone(tmp_path, {"architectures": ["Gemma3ForConditionalGeneration"], "text_config": {}})


def test_llama_31_is_read_as_it_is_published(tmp_path: Path) -> None:
    scaling = {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    }
    config = read(tmp_path, "llama", rope_theta=5e5, rope_scaling=scaling)
    assert config.rope == Rope(5e5, "llama3", 8.0, 1.0, 4.0, 8192.0)
    assert config.rope_of(1) == config.rope
    newer = read(
        tmp_path, "llama", rope_theta=None, rope_parameters={"rope_theta": 5e5, **scaling}, rope_scaling=None
    )
    assert newer == config


def test_scaled_frequencies_keep_fast_pairs_and_slow_the_others() -> None:
    plain = Rope(5e5).inverse_frequencies(64)
    scaled = Rope(5e5, "llama3", 8.0, 1.0, 4.0, 8192.0).inverse_frequencies(64)
    ratios = [a / b for a, b in zip(plain, scaled, strict=True)]
    assert ratios[0] == 1.0
    assert ratios[-1] == pytest.approx(8.0)
    assert sorted(ratios) == ratios
    assert any(1.0 < ratio < 8.0 for ratio in ratios)
    assert Rope(1e4, "linear", 4.0).inverse_frequencies(4) == (0.25, 0.0025)


def test_what_a_gemma_config_leaves_out_means_what_it_means_to_transformers(tmp_path: Path) -> None:
    small = {
        "hidden_size": 64,
        "intermediate_size": 8,
        "max_position_embeddings": 64,
        "num_attention_heads": 2,
        "num_hidden_layers": 7,
        "vocab_size": 9,
    }
    gemma2 = read_alone(tmp_path, {"architectures": ["Gemma2ForCausalLM"], **small})
    assert (gemma2.attention_softcap, gemma2.logit_softcap, gemma2.window) == (50.0, 30.0, 4096)
    assert gemma2.windowed == (True, False, True, False, True, False, True)
    assert (gemma2.head_dim, gemma2.query_scale, gemma2.tied) == (256, 1 / 16, True)
    gemma3 = read_alone(tmp_path, {"architectures": ["Gemma3ForCausalLM"], **small})
    assert gemma3.windowed == (True,) * 5 + (False, True)
    assert (gemma3.rope, gemma3.local_rope) == (Rope(1e6), Rope(1e4))
    assert [gemma3.rope_of(layer) for layer in (4, 5)] == [Rope(1e4), Rope(1e6)]
    assert (gemma3.attention_softcap, gemma3.logit_softcap) == (None, None)


def test_a_softcap_of_null_is_none(tmp_path: Path) -> None:
    config = read(tmp_path, "gemma2", attn_logit_softcapping=NULL, final_logit_softcapping=NULL)
    assert (config.attention_softcap, config.logit_softcap) == (None, None)


def test_qwen2_has_biases_and_qwen3_norms(tmp_path: Path) -> None:
    layer = read(tmp_path / "2", "qwen2").layer_shapes()
    assert layer["self_attn.k_proj.bias"] == (32,)
    assert "self_attn.q_norm.weight" not in layer
    layer = read(tmp_path / "3", "qwen3", head_dim=None, num_key_value_heads=1).layer_shapes()
    assert layer["self_attn.k_norm.weight"] == (128,)
    assert layer["self_attn.k_proj.weight"] == (128, 64)
    assert not any(name.endswith("bias") for name in layer)


def test_unused_windows_of_qwen_do_not_matter(tmp_path: Path) -> None:
    published = {"max_window_layers": 21, "sliding_window": 32768, "use_sliding_window": False}
    assert read(tmp_path, "qwen2", **published).window_of(1) is None


def test_descriptions_need_no_model_library() -> None:
    heavy = "{'jax', 'flax', 'tunix', 'qwix', 'numpy', 'transformers', 'torch'}"
    code = f"import sys, tunix_rt_kit.models.hf_folder; print(sorted({heavy} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
    assert list(FAMILIES) == ["llama", "qwen2", "qwen3", "gemma2", "gemma3"]


LLAMA_32_1B = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "head_dim": 64,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "max_position_embeddings": 131072,
    "mlp_bias": False,
    "num_attention_heads": 32,
    "num_hidden_layers": 16,
    "num_key_value_heads": 8,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "factor": 32.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "rope_theta": 500000.0,
    "tie_word_embeddings": True,
    "vocab_size": 128256,
}
QWEN25_05B = {
    "architectures": ["Qwen2ForCausalLM"],
    "hidden_act": "silu",
    "hidden_size": 896,
    "intermediate_size": 4864,
    "max_position_embeddings": 32768,
    "max_window_layers": 21,
    "num_attention_heads": 14,
    "num_hidden_layers": 24,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 32768,
    "tie_word_embeddings": True,
    "use_sliding_window": False,
    "vocab_size": 151936,
}
QWEN3_06B = {
    "architectures": ["Qwen3ForCausalLM"],
    "attention_bias": False,
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "max_position_embeddings": 40960,
    "max_window_layers": 28,
    "num_attention_heads": 16,
    "num_hidden_layers": 28,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": None,
    "tie_word_embeddings": True,
    "use_sliding_window": False,
    "vocab_size": 151936,
}
GEMMA2_2B = {
    "architectures": ["Gemma2ForCausalLM"],
    "attention_bias": False,
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
    "head_dim": 256,
    "hidden_act": "gelu_pytorch_tanh",
    "hidden_activation": "gelu_pytorch_tanh",
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "max_position_embeddings": 8192,
    "num_attention_heads": 8,
    "num_hidden_layers": 26,
    "num_key_value_heads": 4,
    "query_pre_attn_scalar": 256,
    "rms_norm_eps": 1e-06,
    "rope_theta": 10000.0,
    "sliding_window": 4096,
    "vocab_size": 256000,
}
GEMMA3_270M = {
    "_sliding_window_pattern": 6,
    "architectures": ["Gemma3ForCausalLM"],
    "attention_bias": False,
    "attn_logit_softcapping": None,
    "final_logit_softcapping": None,
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "hidden_size": 640,
    "intermediate_size": 2048,
    "layer_types": (["sliding_attention"] * 5 + ["full_attention"]) * 3,
    "max_position_embeddings": 32768,
    "num_attention_heads": 4,
    "num_hidden_layers": 18,
    "num_key_value_heads": 1,
    "query_pre_attn_scalar": 256,
    "rms_norm_eps": 1e-06,
    "rope_local_base_freq": 10000.0,
    "rope_scaling": None,
    "rope_theta": 1000000.0,
    "sliding_window": 512,
    "use_bidirectional_attention": False,
    "vocab_size": 262144,
}


@pytest.mark.parametrize(
    ("config", "family", "parameters"),
    [
        (LLAMA_32_1B, "llama", 1_235_814_400),
        (QWEN25_05B, "qwen2", 494_032_768),
        (QWEN3_06B, "qwen3", 596_049_920),
        (GEMMA2_2B, "gemma2", 2_614_341_888),
        (GEMMA3_270M, "gemma3", 268_098_176),
    ],
    ids=list(FAMILIES),
)
def test_published_models_are_accepted_with_as_many_parameters_as_are_published(
    tmp_path: Path, config: dict[str, Any], family: str, parameters: int
) -> None:
    read = read_alone(tmp_path, config)
    assert (read.family, read.parameter_count()) == (family, parameters)

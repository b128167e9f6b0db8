"""Tiny models of every family, one for each thing that a family could get wrong.

``python -m support.tiny_families FOLDER``, run in ``tests`` with torch installed, writes their goldens.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from support.golden import make_golden
from support.tiny_model import NULL, make_tiny_model

PROMPTS = (
    "Ünï 12 + 30 = 42, and 17 * 3 = 51: rotary positions that are far apart, beyond any window.",
    "A second one; shorter.",
)

_LLAMA3 = {
    "factor": 8.0,
    "high_freq_factor": 4.0,
    "low_freq_factor": 1.0,
    "original_max_position_embeddings": 32,
    "rope_type": "llama3",
}
_KINDS = ["full_attention", "sliding_attention", "sliding_attention"]

VARIANTS: dict[str, dict[str, Any]] = {
    "llama_scaled_untied": {"config": {"rope_scaling": _LLAMA3, "tie_word_embeddings": False}, "shards": 2},
    "llama_linear_bfloat16": {
        "config": {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 500.0}},
        "dtype": "bfloat16",
    },
    "qwen2_tied_float16": {"family": "qwen2", "dtype": "float16"},
    "qwen2_untied": {
        "family": "qwen2",
        "config": {
            "tie_word_embeddings": False,
            "rope_theta": 1e6,
            "num_key_value_heads": 1,
            "head_dim": None,
        },
        "shards": 3,
    },
    "qwen3_tied": {"family": "qwen3", "config": {"head_dim": 32, "rope_theta": 5e6}},
    "qwen3_untied_bfloat16": {
        "family": "qwen3",
        "config": {"tie_word_embeddings": False, "num_key_value_heads": 4},
        "shards": 2,
        "dtype": "bfloat16",
    },
    "gemma2_grouped": {"family": "gemma2"},
    "gemma2_uncapped_bfloat16": {
        "family": "gemma2",
        "config": {
            "attn_logit_softcapping": NULL,
            "final_logit_softcapping": NULL,
            "layer_types": _KINDS,
            "num_hidden_layers": 3,
            "num_key_value_heads": 4,
            "rms_norm_eps": 1e-2,
            "rope_theta": 300.0,
        },
        "shards": 2,
        "dtype": "bfloat16",
    },
    "gemma3_scaled": {
        "family": "gemma3",
        "config": {"rope_scaling": {"rope_type": "linear", "factor": 8.0}, "num_hidden_layers": 3},
    },
    "gemma3_one_key_head_bfloat16": {
        "family": "gemma3",
        "config": {
            "final_logit_softcapping": 3.0,
            "head_dim": 32,
            "layer_types": _KINDS,
            "num_hidden_layers": 3,
            "num_key_value_heads": 1,
            "rope_local_base_freq": None,
            "rope_parameters": {
                "full_attention": {"rope_type": "default", "rope_theta": 20000.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
            },
            "rope_theta": None,
            "sliding_window_pattern": None,
        },
        "shards": 2,
        "dtype": "bfloat16",
    },
}
"""Arguments for ``make_tiny_model`` by the name of the golden."""


def make_variant(name: str, folder: Path, *, layers: int | None = None) -> Path:
    """Write the tiny model called ``name`` into ``folder`` and return it; with its own number of layers, or
    with ``layers``, for tests that are not about them."""
    changed = VARIANTS[name]
    if layers is not None:
        changed = changed | {"config": changed.get("config", {}) | {"num_hidden_layers": layers}}
    return make_tiny_model(folder, seed=7, scale=0.2, **changed)


def main(target: Path) -> None:
    """Write the golden of every variant into ``target``."""
    for name in VARIANTS:
        with tempfile.TemporaryDirectory() as temporary:
            golden = make_golden(make_variant(name, Path(temporary)), prompts=PROMPTS)
        (target / f"{name}.json").write_text(golden.model_dump_json() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

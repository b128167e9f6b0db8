"""Tunix's Llama as it comes, for the benchmarks that it is a peer in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from tunix.models.llama3 import model as llama3
from tunix.models.llama3 import params as llama3_params


@contextmanager
def mesh_of_one() -> Iterator[jax.sharding.Mesh]:
    """The mesh of one device that Tunix's sharding rules expect, in force."""
    mesh = jax.make_mesh((1, 1), ("fsdp", "tp"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    with mesh:
        yield mesh


def config_of(base_model: str) -> Any:
    """Tunix's configuration of a Hugging Face folder."""
    config = json.loads((Path(base_model) / "config.json").read_text(encoding="utf-8"))
    return llama3.ModelConfig(
        num_layers=config["num_hidden_layers"],
        vocab_size=config["vocab_size"],
        embed_dim=config["hidden_size"],
        hidden_dim=config["intermediate_size"],
        num_heads=config["num_attention_heads"],
        head_dim=config["head_dim"],
        num_kv_heads=config["num_key_value_heads"],
        rope_theta=config["rope_theta"],
        norm_eps=config["rms_norm_eps"],
        weight_tying=config["tie_word_embeddings"],
    )


def load(base_model: str, config: Any, mesh: jax.sharding.Mesh, dtype: str) -> Any:
    """The model, its weights in ``dtype``."""
    return llama3_params.create_model_from_safe_tensors(base_model, config, mesh, dtype=jnp.dtype(dtype))

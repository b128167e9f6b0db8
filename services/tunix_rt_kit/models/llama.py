"""Loads a Hugging Face Llama folder as a Tunix model, and runs it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors import safe_open
from tunix.models.llama3 import model as llama3
from tunix.models.llama3 import params as llama3_params
from tunix.sft import utils as sft_utils
from tunix.utils import torch_utils

from tunix_rt_kit.models.hf_folder import LlamaConfig, check_weights, read_config, weight_files
from tunix_rt_kit.models.rope import bind_rope_theta


def make_mesh() -> jax.sharding.Mesh:
    """The mesh of one device that Tunix's sharding rules expect; use it as ``with make_mesh():``."""
    axis_types = (jax.sharding.AxisType.Auto,) * 2
    return jax.make_mesh((1, 1), ("fsdp", "tp"), axis_types=axis_types, devices=jax.devices()[:1])


def tunix_config(config: LlamaConfig) -> llama3.ModelConfig:
    """Tunix's configuration of a model whose ``config.json`` was read."""
    return llama3.ModelConfig(
        num_layers=config.num_layers,
        vocab_size=config.vocab_size,
        embed_dim=config.hidden_size,
        hidden_dim=config.intermediate_size,
        num_heads=config.num_heads,
        head_dim=config.head_dim,
        num_kv_heads=config.num_kv_heads,
        rope_theta=config.rope_theta,
        norm_eps=config.rms_norm_eps,
        weight_tying=config.tied,
    )


def load_model(path: Path | str, *, dtype: str, mesh: jax.sharding.Mesh) -> llama3.Llama3:
    """Load the weights of a Hugging Face folder.

    Only the files that belong to the model are read, in any mix of types and any number of shards.

    Args:
        path: the folder.
        dtype: ``bfloat16`` or ``float32``; the weights are cast to it.
        mesh: see ``make_mesh``.

    Raises:
        FailedPrecondition: BASE_MODEL_UNSUPPORTED, naming the field of the folder that is wrong.
    """
    bind_rope_theta()
    folder = Path(path)
    config = read_config(folder)
    check_weights(folder, config)
    with mesh:
        abstract = nnx.eval_shape(lambda: llama3.Llama3(tunix_config(config), rngs=nnx.Rngs(params=0)))
    graph, state = nnx.split(abstract)
    shardings = _by_path(nnx.get_named_sharding(state, mesh))
    weights = {
        key: jax.device_put(value.astype(jnp.dtype(dtype)), shardings[key])
        for key, value in _tunix_tensors(folder, config)
    }
    filled = jax.tree_util.tree_map_with_path(lambda path, _: weights[_key(path)], state.to_pure_dict())
    return nnx.merge(graph, filled)


@nnx.jit
def logits(model: llama3.Llama3, tokens: jax.Array, mask: jax.Array) -> jax.Array:
    """Next-token logits of right-padded sequences.

    Args:
        model: a Llama, with or without LoRA.
        tokens: [batch, length] int32.
        mask: [batch, length] bool, true where there is a token and false at padding.

    Returns:
        [batch, length, vocabulary], in the model's type; undefined at padding.
    """
    positions = sft_utils.build_positions_from_mask(mask)
    attention_mask = sft_utils.make_causal_attn_mask(mask)
    output: jax.Array = model(tokens, positions, None, attention_mask)[0]
    return output


def _tunix_tensors(folder: Path, config: LlamaConfig) -> Any:
    mapping = llama3_params._get_key_and_transform_mapping(tunix_config(config))
    wanted = config.tensor_shapes()
    for file in weight_files(folder):
        with safe_open(file, framework="numpy") as tensors:  # type: ignore[no-untyped-call]
            for name in tensors.keys():  # noqa: SIM118
                if name not in wanted:
                    continue
                key, transform = torch_utils.torch_key_to_jax_key(mapping, name)
                value: np.ndarray[Any, Any] = tensors.get_tensor(name)
                if transform is not None:
                    permutation, shape = transform
                    value = value.transpose(permutation)
                    value = value if shape is None else value.reshape(shape)
                yield key, value


def _by_path(state: Any) -> dict[str, jax.sharding.NamedSharding]:
    leaves = jax.tree_util.tree_leaves_with_path(state.to_pure_dict())
    return {_key(path): sharding for path, sharding in leaves}


def _key(path: tuple[Any, ...]) -> str:
    return ".".join(str(entry.key) for entry in path)

"""Loads a Hugging Face folder as a Tunix model of its family, runs it, and saves it again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from flax import nnx
from safetensors import safe_open
from tunix.sft import utils as sft_utils

from tunix_rt_kit.errors import InvalidArgument
from tunix_rt_kit.models import tensor_files
from tunix_rt_kit.models.config import ModelConfig
from tunix_rt_kit.models.decoder import Decoder, is_transposed
from tunix_rt_kit.models.export import Conversation, new_folder, write_companions
from tunix_rt_kit.models.hf_folder import INDEX_FILE, check_weights, read_config, weight_files
from tunix_rt_kit.models.networks import NETWORKS
from tunix_rt_kit.models.tensor_files import TensorSpec, require_finite


def make_mesh() -> jax.sharding.Mesh:
    """A mesh of one device, as Tunix's sharding rules expect it; use it as ``with make_mesh():``."""
    axis_types = (jax.sharding.AxisType.Auto,) * 2
    return jax.make_mesh((1, 1), ("fsdp", "tp"), axis_types=axis_types, devices=jax.devices()[:1])


def load_model(path: Path | str, *, dtype: str, mesh: jax.sharding.Mesh) -> Decoder:
    """Load a model from a Hugging Face folder, of any number of shards and any mix of types.

    Args:
        path: the folder.
        dtype: ``bfloat16`` or ``float32``; the weights are cast to it.
        mesh: with the axes ``fsdp`` and ``tp``, see ``make_mesh``.

    Raises:
        FailedPrecondition: BASE_MODEL_UNSUPPORTED, naming the field or the tensor that is wrong.
    """
    folder = Path(path)
    config = read_config(folder)
    check_weights(folder, config)
    wanted = jnp.dtype(dtype)
    network = NETWORKS[config.family]
    with mesh:
        graph, state = nnx.split(_empty(config, dtype))
    empty, shardings = _by_path(state), _by_path(nnx.get_named_sharding(state, mesh))
    weights = {}
    for name, value in _tensors(folder, config):
        key = network.path_of(name)
        laid_out = (value.T if is_transposed(name) else value).reshape(empty[key].shape)
        weights[key] = jax.device_put(laid_out.astype(wanted), shardings[key])
    filled = jax.tree_util.tree_map_with_path(lambda at, _: weights[_key(at)], state.to_pure_dict())
    model: Decoder = nnx.merge(graph, filled)
    return model


def rebuilt(model: Decoder, weights: Any, *, dtype: str) -> Decoder:
    """The model that ``load_model`` would make with other weights, in another type.

    Modules of some families compute in the type that they were made for, whatever the type of their weights.

    Args:
        model: without LoRA; it stays as it is.
        weights: nested as in ``nnx.state(model).to_pure_dict()``; arrays of type ``dtype`` are shared.
        dtype: see ``load_model``.
    """
    wanted = jnp.dtype(dtype)
    cast = jax.tree.map(lambda value: value.astype(wanted), weights)
    made: Decoder = nnx.merge(nnx.graphdef(_empty(model.description, dtype)), cast)
    return made


@nnx.jit
def logits(model: Decoder, tokens: jax.Array, mask: jax.Array) -> jax.Array:
    """Next-token logits of right-padded sequences.

    Args:
        model: a model of any family, with or without LoRA.
        tokens: [batch, length] int32.
        mask: [batch, length] bool, true where there is a token and false at padding.

    Returns:
        [batch, length, vocabulary] in float32; undefined at padding.
    """
    positions = sft_utils.build_positions_from_mask(mask)
    attention_mask = sft_utils.make_causal_attn_mask(mask)
    output: jax.Array = model(tokens, positions, None, attention_mask)[0]
    return output


def _empty(config: ModelConfig, dtype: str) -> Decoder:
    network, wanted = NETWORKS[config.family], jnp.dtype(dtype)
    empty: Decoder = nnx.eval_shape(lambda: network(config, dtype=wanted, rngs=nnx.Rngs(params=0)))
    return empty


def _tensors(folder: Path, config: ModelConfig) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    wanted = config.tensor_shapes()
    for file in weight_files(folder):
        with safe_open(file, framework="numpy") as tensors:  # type: ignore[no-untyped-call]
            for name in tensors.keys():  # noqa: SIM118
                if name in wanted:
                    value: npt.NDArray[Any] = tensors.get_tensor(name)
                    require_finite(folder, name, value)
                    yield name, value


def _by_path(state: Any) -> dict[str, Any]:
    return {_key(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(state.to_pure_dict())}


def _key(path: tuple[Any, ...]) -> str:
    return ".".join(str(entry.key) for entry in path)


def save_model(model: Decoder, out: Path, *, base: Path, conversation: Conversation | None = None) -> None:
    """Write ``model`` to the new folder ``out``; the same weights make the same bytes.

    Every tensor has the file and the type that it has in ``base``, so that ``config.json`` stays true.
    ``out`` appears whole or not at all.

    Args:
        model: loaded from ``base``, without LoRA.
        out: must not exist.
        base: the folder that the model was loaded from.
        conversation: see ``export.write_companions``.

    Raises:
        InvalidArgument: EXPORT_INVALID, the model has an adapter.
        AlreadyExists: EXPORT_EXISTS.
        ResourceExhausted: STORAGE_FULL, and the other errors of a file system, naming ``out``.
    """
    if nnx.state(model, nnx.LoRAParam):
        raise InvalidArgument(
            "the model has LoRA weights: save the adapter, and merge it into the base",
            reason="EXPORT_INVALID",
        )
    shapes = model.description.tensor_shapes()
    parameters = dict(nnx.to_flat_state(nnx.state(model, nnx.Param)))

    def tensor(name: str) -> npt.NDArray[Any]:
        path = tuple(int(part) if part.isdigit() else part for part in model.path_of(name).split("."))
        value: npt.NDArray[Any] = np.asarray(parameters[path][...])
        return value.reshape(shapes[name][::-1]).T if is_transposed(name) else value.reshape(shapes[name])

    with new_folder(out) as folder:
        weight_map: dict[str, str] = {}
        size = 0
        for file in weight_files(base):
            kept = {
                name: TensorSpec(spec.dtype, shapes[name])
                for name, spec in tensor_files.read_specs(file).items()
                if name in shapes and name not in weight_map
            }
            tensor_files.write(folder / file.name, kept, tensor)
            weight_map |= dict.fromkeys(kept, file.name)
            size += sum(spec.size_bytes for spec in kept.values())
        if (base / INDEX_FILE).is_file():
            index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(weight_map.items()))}
            (folder / INDEX_FILE).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
        write_companions(base, folder, conversation)

"""LoRA on a Tunix model of any family: applied by qwix, saved and loaded in the format of ``peft``."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import qwix
from flax import nnx

from tunix_rt_kit.errors import InvalidArgument
from tunix_rt_kit.models.config import ModelConfig
from tunix_rt_kit.models.decoder import Decoder
from tunix_rt_kit.models.export import TARGET_MODULES, read_adapter, write_adapter
from tunix_rt_kit.models.pretrained import rebuilt

Quantization = Literal["nf4"]

_MOST_OF_A_TILE: Final = 64


def apply_lora(
    model: Decoder,
    *,
    rank: int,
    alpha: float,
    target_modules: Sequence[str] = TARGET_MODULES,
    seed: int,
    quantization: Quantization | None = None,
    tile_size: int | None = None,
) -> Decoder:
    """A copy of ``model`` with fresh LoRA weights (A random, B zero, so that it computes the same).

    Args:
        model: a model without LoRA; its weights are shared, not copied.
        rank: inner width of each pair, at least 1.
        alpha: the pair's product is scaled by ``alpha / rank``.
        target_modules: the projections that get a pair, of ``TARGET_MODULES``.
        seed: seed of A.
        quantization: ``nf4`` keeps the weights of those projections as quantiles of a normal distribution, in
            4 bits (QLoRA, https://arxiv.org/abs/2305.14314), a byte each on a CPU; None keeps them as they
            are.
        tile_size: how many inputs share a scale. It must divide ``hidden_size``, ``intermediate_size`` and
            ``head_dim``; None is the greatest power of two that does, at most 64.

    Raises:
        InvalidArgument: LORA_INVALID, naming the argument that is wrong.
    """
    _check(rank, alpha, target_modules)
    quantized: dict[str, Any] = {}
    if quantization is not None:
        quantized = {"weight_qtype": quantization, "tile_size": _tile(model.description, tile_size)}
    modules = f".*/({'|'.join(target_modules)})"
    provider = qwix.LoraProvider(module_path=modules, rank=rank, alpha=alpha, **quantized)
    # qwix runs the model once to find the weights.
    inputs = model.get_model_input()
    adapted: Decoder = qwix.apply_lora_to_model(model, provider, rngs=nnx.Rngs(params=seed), **inputs)
    return adapted


def save_adapter(model: Decoder, folder: Path, *, alpha: float, base_model: str) -> None:
    """Write the LoRA weights of a model that ``apply_lora`` returned; arguments as of ``write_adapter``.

    The bits of the weights are kept, and the same weights make the same bytes.
    """
    pairs, rank = {}, 0
    for module, a, b in _pairs(model):
        rank = a.shape[-1]
        pairs[module] = np.asarray(a[...]).reshape(-1, rank).T, np.asarray(b[...]).reshape(rank, -1).T
    if not pairs:
        raise InvalidArgument("the model has no LoRA weights to save", reason="LORA_INVALID")
    write_adapter(folder, pairs, rank=rank, alpha=alpha, base_model=base_model)


def load_adapter(model: Decoder, folder: Path, *, quantization: Quantization | None = None) -> Decoder:
    """A copy of ``model`` with the LoRA weights that ``save_adapter`` (or ``peft``) wrote to ``folder``.

    Args:
        model: the base model, without LoRA; the adapter's weights are cast to its type.
        folder: of the adapter.
        quantization: of the base model's weights, see ``apply_lora``.

    Raises:
        DataLoss: ADAPTER_INVALID, a file is missing or cannot be read.
        InvalidArgument: ADAPTER_MISMATCH, the adapter is not for this model, naming the tensor or setting.
    """
    adapter = read_adapter(folder)
    rank, targets = adapter.rank, adapter.target_modules
    adapted = apply_lora(
        model, rank=rank, alpha=adapter.alpha, target_modules=targets, seed=0, quantization=quantization
    )
    for module, a, b in _pairs(adapted):
        tensors = adapter.take(module, a.size // rank, b.size // rank)
        for parameter, tensor in zip((a, b), tensors, strict=True):
            parameter[...] = _placed(tensor, parameter)
    adapter.require_all_taken()
    return adapted


def merge_lora(model: Decoder, folder: Path, *, dtype: str) -> Decoder:
    """``model`` with an adapter merged into its weights, which become ``dtype``; it has no LoRA then.

    The sums are accumulated in float32 and rounded once. Weights that stay as they are may be shared.
    Arguments and errors are as of ``load_adapter``.
    """
    adapter, wanted = read_adapter(folder), jnp.dtype(dtype)
    shapes = model.description.tensor_shapes()
    weights = nnx.state(model).to_pure_dict()
    for index, layer in weights["layers"].items():
        for name in adapter.target_modules:
            hf_parent, parent, attribute = _home(name)
            module = f"model.layers.{index}.{hf_parent}.{name}"
            outputs, inputs = shapes[f"{module}.weight"]
            a, b = (jnp.asarray(value, jnp.float32) for value in adapter.take(module, inputs, outputs))
            projection = layer[parent][name]
            weight = projection[attribute]
            # A GPU would round the factors to 10 bits otherwise.
            product = jnp.matmul(a.T, b.T, precision="highest").reshape(weight.shape)
            scaled = product * (adapter.alpha / adapter.rank)
            projection[attribute] = (weight.astype(jnp.float32) + scaled).astype(wanted)
    adapter.require_all_taken()
    return rebuilt(model, weights, dtype=dtype)


def _pairs(model: Decoder) -> Iterator[tuple[str, nnx.LoRAParam[jax.Array], nnx.LoRAParam[jax.Array]]]:
    """Each module that has a pair, by Hugging Face's name, and the pair as Tunix keeps it."""
    for index, layer in enumerate(model.layers):
        for name in TARGET_MODULES:
            hf_parent, parent, weight = _home(name)
            projection = getattr(getattr(layer, parent), name)
            a = getattr(projection, f"{weight}_lora_a", None)
            if a is not None:
                b = getattr(projection, f"{weight}_lora_b")
                yield f"model.layers.{index}.{hf_parent}.{name}", a, b


def _home(name: str) -> tuple[str, str, str]:
    """The parent of a projection, in Hugging Face and in Tunix, and its weight's name in Tunix."""
    return ("self_attn", "attn", "w") if name in TARGET_MODULES[:4] else ("mlp", "mlp", "kernel")


def _placed(tensor: npt.NDArray[Any], parameter: nnx.LoRAParam[jax.Array]) -> jax.Array:
    value = np.ascontiguousarray(tensor.T).reshape(parameter.shape).astype(parameter.dtype)
    placed: jax.Array = jax.device_put(value, parameter[...].sharding)
    return placed


def _tile(config: ModelConfig, wanted: int | None) -> int:
    inputs = {
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "head_dim": config.head_dim,
    }
    common = math.gcd(*inputs.values())
    if wanted is None:
        # The greatest power of two that divides them.
        wanted = min(common & -common, _MOST_OF_A_TILE)
    for name, size in inputs.items():
        if wanted < 1 or size % wanted:
            problem = f"tile_size is {wanted}; it must divide {name} ({size})"
            raise InvalidArgument(problem, reason="LORA_INVALID", metadata={"field": "tile_size"})
    return wanted


def _check(rank: int, alpha: float, target_modules: Sequence[str]) -> None:
    unknown = [name for name in target_modules if name not in TARGET_MODULES]
    problem = None
    if rank < 1:
        problem = f"rank is {rank}; it must be at least 1"
    elif not alpha > 0:
        problem = f"alpha is {alpha}; it must be positive"
    elif unknown or not target_modules:
        problem = (
            f"target_modules is {list(target_modules)}; it must name some of {', '.join(TARGET_MODULES)}"
        )
    if problem:
        raise InvalidArgument(problem, reason="LORA_INVALID", metadata={"field": problem.split(" ", 1)[0]})

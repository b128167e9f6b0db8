"""LoRA on a Tunix model: application through qwix, and adapters in PEFT's format."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import qwix
from flax import nnx
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from tunix_rt_kit.errors import DataLoss, InvalidArgument
from tunix_rt_kit.models.networks import Decoder

WEIGHTS_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"

# Where each projection hangs: Hugging Face's name -> (module in Hugging Face and Tunix, the Tunix weight).
_PARENTS = {
    "q_proj": ("self_attn", "attn", "w"),
    "k_proj": ("self_attn", "attn", "w"),
    "v_proj": ("self_attn", "attn", "w"),
    "o_proj": ("self_attn", "attn", "w"),
    "gate_proj": ("mlp", "mlp", "kernel"),
    "up_proj": ("mlp", "mlp", "kernel"),
    "down_proj": ("mlp", "mlp", "kernel"),
}
TARGET_MODULES = tuple(_PARENTS)
"""Every linear projection of a layer, of any family, by its Hugging Face name."""

_PREFIX = "base_model.model.model.layers"


def apply_lora(
    model: Decoder,
    *,
    rank: int,
    alpha: float,
    target_modules: Sequence[str] = TARGET_MODULES,
    seed: int,
) -> Decoder:
    """A copy of ``model`` with fresh LoRA weights (A random, B zero, so that it computes the same).

    Args:
        model: a model without LoRA; its weights are shared, not copied.
        rank: inner width of each pair, at least 1.
        alpha: the pair's product is scaled by ``alpha / rank``.
        target_modules: the projections that get a pair, of ``TARGET_MODULES``.
        seed: seed of A.

    Raises:
        InvalidArgument: LORA_INVALID, naming the argument that is wrong.
    """
    _check(rank, alpha, target_modules)
    provider = qwix.LoraProvider(module_path=f".*/({'|'.join(target_modules)})", rank=rank, alpha=alpha)
    # qwix runs the model once to find the weights.
    inputs = model.get_model_input()
    adapted: Decoder = qwix.apply_lora_to_model(model, provider, rngs=nnx.Rngs(params=seed), **inputs)
    return adapted


def save_adapter(model: Decoder, folder: Path, *, alpha: float, base_model: str) -> None:
    """Write the LoRA weights of ``model`` as ``peft`` names them, with ``adapter_config.json``.

    The bits of the weights are kept, and the same weights make the same bytes.

    Args:
        model: a model that ``apply_lora`` returned.
        folder: created if absent.
        alpha: the alpha it was made with.
        base_model: what the adapter is for, as ``base_model_name_or_path``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, np.ndarray[Any, Any]] = {}
    targets, rank = set(), 0
    for module, a, b in _pairs(model):
        rank = a.shape[-1]
        targets.add(module.rsplit(".", 1)[-1])
        tensors[f"{module}.lora_A.weight"] = np.ascontiguousarray(np.asarray(a[...]).reshape(-1, rank).T)
        tensors[f"{module}.lora_B.weight"] = np.ascontiguousarray(np.asarray(b[...]).reshape(rank, -1).T)
    if not tensors:
        raise InvalidArgument("the model has no LoRA weights to save", reason="LORA_INVALID")
    save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    config = {
        "base_model_name_or_path": base_model,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": rank,
        "target_modules": [name for name in TARGET_MODULES if name in targets],
        "task_type": "CAUSAL_LM",
        "use_dora": False,
        "use_rslora": False,
    }
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def load_adapter(model: Decoder, folder: Path) -> Decoder:
    """A copy of ``model`` with the LoRA weights that ``save_adapter`` (or ``peft``) wrote.

    Args:
        model: the base model, without LoRA; the adapter's weights are cast to its type.
        folder: with ``adapter_model.safetensors`` and ``adapter_config.json``.

    Raises:
        DataLoss: ADAPTER_INVALID, a file is missing or cannot be read.
        InvalidArgument: ADAPTER_MISMATCH, the adapter is not for this model, naming the tensor or setting.
    """
    config, tensors = _read_adapter(folder)
    adapted = apply_lora(
        model, rank=config["r"], alpha=config["lora_alpha"], target_modules=config["target_modules"], seed=0
    )
    expected = set()
    for module, a, b in _pairs(adapted):
        for name, parameter in ((f"{module}.lora_A.weight", a), (f"{module}.lora_B.weight", b)):
            expected.add(name)
            parameter[...] = _fitted(tensors.get(name), parameter, name, config["r"])
    if extra := sorted(set(tensors) - expected):
        raise _mismatch(f"tensor {extra[0]!r} has no place in the model", extra[0])
    return adapted


def _pairs(model: Decoder) -> Iterator[tuple[str, nnx.LoRAParam[jax.Array], nnx.LoRAParam[jax.Array]]]:
    for index, layer in enumerate(model.layers):
        for name, (hf_parent, parent, weight) in _PARENTS.items():
            projection = getattr(getattr(layer, parent), name)
            a = getattr(projection, f"{weight}_lora_a", None)
            if a is not None:
                b = getattr(projection, f"{weight}_lora_b")
                yield f"{_PREFIX}.{index}.{hf_parent}.{name}", a, b


def _fitted(
    tensor: np.ndarray[Any, Any] | None, parameter: nnx.LoRAParam[jax.Array], name: str, rank: int
) -> jax.Array:
    if tensor is None:
        raise _mismatch(f"tensor {name!r} is missing", name)
    wanted = (rank, parameter.size // rank)
    wanted = wanted if ".lora_A." in name else wanted[::-1]
    if tensor.shape != wanted:
        raise _mismatch(f"tensor {name!r} has shape {list(tensor.shape)}, not {list(wanted)}", name)
    value = np.ascontiguousarray(tensor.T).reshape(parameter.shape).astype(parameter.dtype)
    placed: jax.Array = jax.device_put(value, parameter[...].sharding)
    return placed


def _read_adapter(folder: Path) -> tuple[Mapping[str, Any], Mapping[str, np.ndarray[Any, Any]]]:
    try:
        config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        tensors = load_file(folder / WEIGHTS_FILE)
    except (OSError, ValueError, SafetensorError) as error:
        raise DataLoss(
            f"adapter in {folder} cannot be read: {error}",
            reason="ADAPTER_INVALID",
            metadata={"path": str(folder)},
        ) from error
    wanted = {"peft_type": "LORA", "bias": "none", "use_rslora": False, "use_dora": False}
    for field, value in wanted.items():
        if config.get(field, value) != value:
            raise _mismatch(f"{field} is {config[field]!r}; only {value!r} is supported", field)
    if isinstance(config.get("target_modules"), str):
        raise _mismatch("target_modules is a pattern; it must be a list of names", "target_modules")
    return config, tensors


def _mismatch(message: str, field: str) -> InvalidArgument:
    return InvalidArgument(
        f"adapter does not fit: {message}", reason="ADAPTER_MISMATCH", metadata={"field": field}
    )


def _check(rank: int, alpha: float, target_modules: Sequence[str]) -> None:
    unknown = [name for name in target_modules if name not in _PARENTS]
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

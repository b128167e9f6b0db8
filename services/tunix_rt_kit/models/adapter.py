"""LoRA adapters as files, in the format of ``peft``; needs numpy alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from tunix_rt_kit.errors import DataLoss, InvalidArgument
from tunix_rt_kit.models.tensor_header import read_header
from tunix_rt_kit.regular_files import UnfitFile, read_json

WEIGHTS_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"
TARGET_MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""Every linear projection of a layer, of any family, by its Hugging Face name."""

PREFIX = "base_model.model."
"""Put by ``peft`` in front of the base model's names."""

_A, _B = ".lora_A.weight", ".lora_B.weight"
_MAX_RANK = 1 << 16
_MAX_ALPHA = 1e9
_PARTIAL = ("rank_pattern", "alpha_pattern", "layers_to_transform", "layer_replication", "target_parameters")


class Adapter:
    """An adapter from files: ``rank``, ``alpha``, ``target_modules``, and tensors to take by module."""

    def __init__(self, config: Mapping[str, Any], tensors: Mapping[str, npt.NDArray[Any]]) -> None:
        self.rank: int = config["r"]
        self.alpha = float(config["lora_alpha"])
        self.target_modules: Sequence[str] = config["target_modules"]
        self._tensors = dict(tensors)

    def take(self, module: str, inputs: int, outputs: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Remove and return A [rank, inputs] and B [outputs, rank] of the base model's ``module``.

        Raises:
            InvalidArgument: ADAPTER_MISMATCH, naming the tensor that is missing or has another shape.
            DataLoss: ADAPTER_INVALID, naming the tensor that holds a number that is not finite.
        """
        shapes = {_A: (self.rank, inputs), _B: (outputs, self.rank)}
        pair = []
        for suffix, shape in shapes.items():
            name = f"{PREFIX}{module}{suffix}"
            tensor = self._tensors.pop(name, None)
            if tensor is None:
                raise mismatch(f"tensor {name!r} is missing", name)
            if tensor.shape != shape:
                raise mismatch(f"tensor {name!r} has shape {list(tensor.shape)}, not {list(shape)}", name)
            if not np.isfinite(tensor.astype(np.float32)).all():
                raise DataLoss(
                    f"adapter tensor {name!r} holds values that are no finite numbers",
                    reason="ADAPTER_INVALID",
                    metadata={"field": name},
                )
            pair.append(tensor)
        return pair[0], pair[1]

    def targets(self, module: str) -> bool:
        """Whether the configuration says that ``module`` has a pair."""
        return module.rsplit(".", 1)[-1] in self.target_modules

    def require_all_taken(self) -> None:
        """Raises InvalidArgument (ADAPTER_MISMATCH) if a tensor is left that no module took."""
        if self._tensors:
            extra = min(self._tensors)
            raise mismatch(f"tensor {extra!r} has no place in the model", extra)


def write_adapter(
    folder: Path,
    pairs: Mapping[str, tuple[npt.NDArray[Any], npt.NDArray[Any]]],
    *,
    rank: int,
    alpha: float,
    base_model: str,
) -> None:
    """Write ``adapter_model.safetensors`` and ``adapter_config.json``; the same pairs make the same bytes.

    Args:
        folder: created if absent.
        pairs: A [rank, inputs] and B [outputs, rank] by the base model's module.
        rank: inner width of every pair.
        alpha: B A is scaled by ``alpha / rank``.
        base_model: the model that the adapter is for, as ``base_model_name_or_path``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, npt.NDArray[Any]] = {}
    for module, (a, b) in pairs.items():
        tensors[f"{PREFIX}{module}{_A}"] = np.ascontiguousarray(a)
        tensors[f"{PREFIX}{module}{_B}"] = np.ascontiguousarray(b)
    save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    targets = {module.rsplit(".", 1)[-1] for module in pairs}
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


def read_adapter(folder: Path) -> Adapter:
    """Read what ``write_adapter`` (or ``peft``) wrote.

    Raises:
        DataLoss: ADAPTER_INVALID, a file is missing or cannot be read.
        InvalidArgument: ADAPTER_MISMATCH, it is an adapter of a kind that is not supported.
    """
    try:
        config = read_json(folder / CONFIG_FILE)
        if not isinstance(config, dict):
            raise UnfitFile("is no JSON object", folder / CONFIG_FILE)
        read_header(folder / WEIGHTS_FILE)
        tensors = load_file(folder / WEIGHTS_FILE)
    except (OSError, ValueError, SafetensorError) as error:
        raise DataLoss(
            f"adapter in {folder} cannot be read: {error}",
            reason="ADAPTER_INVALID",
            metadata={"path": str(folder)},
        ) from error
    wanted = {
        "peft_type": "LORA",
        "bias": "none",
        "fan_in_fan_out": False,
        "use_rslora": False,
        "use_dora": False,
        "modules_to_save": None,
    }
    for field, value in wanted.items():
        if config.get(field, value) != value:
            raise mismatch(f"{field} is {config[field]!r}; only {value!r} is supported", field)
    for field in _PARTIAL:
        if config.get(field):
            raise mismatch(f"{field} is {config[field]!r}; it must be absent", field)
    for field in ("r", "lora_alpha", "target_modules"):
        if config.get(field) is None:
            raise mismatch(f"{CONFIG_FILE} has no {field}", field)
    _check_values(config)
    return Adapter(config, tensors)


def _check_values(config: Mapping[str, Any]) -> None:
    rank, alpha, targets = config["r"], config["lora_alpha"], config["target_modules"]
    if type(rank) is not int or not 1 <= rank <= _MAX_RANK:
        raise mismatch(f"r is {rank!r:.80}; it must be an integer from 1 to {_MAX_RANK}", "r")
    if type(alpha) not in (int, float) or not 0 < alpha < _MAX_ALPHA:
        raise mismatch(f"lora_alpha is {alpha!r:.80}; it must be a positive number", "lora_alpha")
    if isinstance(targets, str):
        raise mismatch("target_modules is a pattern; it must be a list of names", "target_modules")
    if not isinstance(targets, list) or not all(name in TARGET_MODULES for name in targets):
        known = ", ".join(TARGET_MODULES)
        raise mismatch(f"target_modules is {targets!r:.80}; it must name some of {known}", "target_modules")


def mismatch(message: str, field: str) -> InvalidArgument:
    """The error for an adapter that does not fit a model, to raise."""
    return InvalidArgument(
        f"adapter does not fit: {message}", reason="ADAPTER_MISMATCH", metadata={"field": field}
    )

"""Merges an adapter in PEFT's layout into the weights of a Hugging Face folder, without a model library.

``python -m tunix_rt_kit.models.merge BASE ADAPTER OUT`` does it in a process of its own.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from tunix_rt_kit.errors import DomainError, InvalidArgument
from tunix_rt_kit.models.hf_folder import INDEX_FILE, weight_files

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."


def merge_adapter(base: Path, adapter: Path, out: Path) -> list[str]:
    """Write the weight files of ``base`` to ``out``, with ``alpha / rank * B A`` added to what is adapted.

    Sums are made in float32 and rounded once to the type that the base weight has. One shard is in memory at
    a time. The same inputs make the same bytes.

    Args:
        base: a Hugging Face folder.
        adapter: a folder with ``adapter_config.json`` and ``adapter_model.safetensors``.
        out: an existing folder.

    Returns:
        The names of the files that were written, the index of the shards among them.

    Raises:
        InvalidArgument: ADAPTER_MISMATCH, naming a tensor of the adapter that the base has no weight for.
    """
    config = json.loads((adapter / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    scale = float(config["lora_alpha"]) / int(config["r"])
    left = load_file(adapter / ADAPTER_WEIGHTS)
    names = []
    for file in weight_files(base):
        tensors: dict[str, np.ndarray[Any, Any]] = {}
        with safe_open(file, framework="numpy") as source:  # type: ignore[no-untyped-call]
            for name in source.keys():  # noqa: SIM118
                tensors[name] = _merged(name, source.get_tensor(name), left, scale)
        save_file(tensors, out / file.name, metadata={"format": "pt"})
        names.append(file.name)
    if left:
        name = min(left)
        raise InvalidArgument(
            f"adapter does not fit: tensor {name!r} has no weight in {base}",
            reason="ADAPTER_MISMATCH",
            metadata={"field": name},
        )
    if (base / INDEX_FILE).is_file():
        shutil.copyfile(base / INDEX_FILE, out / INDEX_FILE)
        names.append(INDEX_FILE)
    return names


def _merged(
    name: str, weight: np.ndarray[Any, Any], adapter: dict[str, np.ndarray[Any, Any]], scale: float
) -> np.ndarray[Any, Any]:
    module = _PREFIX + name.removesuffix(".weight")
    a, b = (adapter.pop(f"{module}.lora_{part}.weight", None) for part in "AB")
    if a is None or b is None:
        return weight
    product = b.astype(np.float32) @ a.astype(np.float32)
    summed: np.ndarray[Any, Any] = (weight.astype(np.float32) + np.float32(scale) * product).astype(
        weight.dtype
    )
    return summed


def main(folders: list[str]) -> int:
    """Merge; an error is one line on stderr."""
    base, adapter, out = map(Path, folders)
    try:
        merge_adapter(base, adapter, out)
    except (DomainError, OSError, ValueError, KeyError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

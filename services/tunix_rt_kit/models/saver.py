"""Writes a Tunix model as a Hugging Face folder, after its whole weights were trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from flax import nnx

from tunix_rt_kit.errors import InvalidArgument
from tunix_rt_kit.models import tensor_files
from tunix_rt_kit.models.export import Conversation, new_folder, write_companions
from tunix_rt_kit.models.hf_folder import INDEX_FILE, weight_files
from tunix_rt_kit.models.networks import Decoder, is_transposed
from tunix_rt_kit.models.tensor_files import TensorSpec


def save_model(model: Decoder, out: Path, *, base: Path, conversation: Conversation | None = None) -> None:
    """Write ``model`` to the new folder ``out``; the same weights make the same bytes.

    Every tensor goes into a file of the same name and has the same type as in ``base``, so that
    ``config.json`` stays true. ``out`` appears whole or not at all.

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

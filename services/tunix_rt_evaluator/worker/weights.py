"""The weights that are evaluated: a base model's, or those of a checkpoint."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
from flax import nnx

from tunix_rt_kit.models.hf_folder import stored_dtype
from tunix_rt_kit.models.loader import load_model
from tunix_rt_kit.models.lora import CONFIG_FILE, merge_lora
from tunix_rt_kit.models.networks import Decoder


class BaseWeights:
    """A base model that stays loaded, as exactly as it is stored, while adapters come and go.

    An adapter is merged: a tuned model then runs by the same programs and as fast as its base.

    Raises what ``load_model`` raises.
    """

    def __init__(self, folder: Path, mesh: jax.sharding.Mesh) -> None:
        self._mesh = mesh
        self._model = load_model(folder, dtype=stored_dtype(folder), mesh=mesh)

    def model(self, checkpoint: Path | None, dtype: str) -> Decoder:
        """The base model, or one that was trained from it, with weights of ``dtype``.

        ``checkpoint`` is a folder with a whole model in Hugging Face's layout, or with an adapter in PEFT's.

        Raises what ``load_model`` and ``merge_lora`` raise.
        """
        model = self._trained(checkpoint, dtype) if checkpoint else self._cast(dtype)
        model.sum_in_float32()
        return model

    def _trained(self, checkpoint: Path, dtype: str) -> Decoder:
        if not is_adapter(checkpoint):
            return load_model(checkpoint, dtype=dtype, mesh=self._mesh)
        with self._mesh:
            return merge_lora(self._model, checkpoint, dtype=dtype)

    def _cast(self, dtype: str) -> Decoder:
        wanted = jnp.dtype(dtype)
        with self._mesh:
            graph, state = nnx.split(self._model)
            model: Decoder = nnx.merge(graph, jax.tree.map(lambda value: value.astype(wanted), state))
            return model


def is_adapter(checkpoint: Path) -> bool:
    """Whether the folder of a checkpoint has an adapter in it, and no whole model."""
    return (checkpoint / CONFIG_FILE).is_file()

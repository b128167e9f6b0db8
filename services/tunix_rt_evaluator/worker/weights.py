"""The weights that are evaluated: a base model's, or those of a checkpoint."""

from __future__ import annotations

from pathlib import Path

import jax
from flax import nnx

from tunix_rt_kit.models.decoder import Decoder
from tunix_rt_kit.models.hf_folder import stored_dtype
from tunix_rt_kit.models.lora import CONFIG_FILE, merge_lora
from tunix_rt_kit.models.pretrained import load_model, rebuilt


class BaseWeights:
    """A base model that stays loaded, as exactly as it is stored, while adapters come and go.

    An adapter is merged: a tuned model then runs by the same programs and as fast as its base. A checkpoint
    that is a whole model needs no base, and has none loaded.
    """

    def __init__(self, folder: Path, mesh: jax.sharding.Mesh) -> None:
        self._folder = folder
        self._mesh = mesh
        self._loaded: Decoder | None = None

    def model(self, checkpoint: Path | None, dtype: str) -> Decoder:
        """The base model, or one that was trained from it, with weights of ``dtype``.

        ``checkpoint`` is a folder with a whole model in Hugging Face's layout, or with an adapter in PEFT's.

        Raises what ``load_model`` and ``merge_lora`` raise.
        """
        model = self._made(checkpoint, dtype)
        model.only_run()
        return model

    def _made(self, checkpoint: Path | None, dtype: str) -> Decoder:
        if checkpoint is not None and not is_adapter(checkpoint):
            return load_model(checkpoint, dtype=dtype, mesh=self._mesh)
        base = self._base()
        with self._mesh:
            if checkpoint is not None:
                return merge_lora(base, checkpoint, dtype=dtype)
            return rebuilt(base, nnx.state(base).to_pure_dict(), dtype=dtype)

    def _base(self) -> Decoder:
        if self._loaded is None:
            dtype = stored_dtype(self._folder)
            self._loaded = load_model(self._folder, dtype=dtype, mesh=self._mesh)
        return self._loaded


def is_adapter(checkpoint: Path) -> bool:
    """Whether the folder of a checkpoint has an adapter in it, and no whole model."""
    return (checkpoint / CONFIG_FILE).is_file()

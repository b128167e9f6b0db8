"""The weights that are evaluated: a base model's, or those of a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from tunix_rt_kit.models.loader import load_model
from tunix_rt_kit.models.lora import CONFIG_FILE, load_adapter
from tunix_rt_kit.models.networks import Decoder

_A, _B = "_lora_a", "_lora_b"


def load_weights(folder: Path, checkpoint: Path | None, *, dtype: str, mesh: jax.sharding.Mesh) -> Decoder:
    """The base model in ``folder``, or a model that was trained from it.

    ``checkpoint`` is a folder with a whole model in Hugging Face's layout, or with an adapter in PEFT's,
    which is merged into the base model's weights: a tuned model then runs by the same programs and as fast as
    its base. The products are added in float32 and rounded to ``dtype`` once.

    Raises what ``load_model`` and ``load_adapter`` raise.
    """
    if checkpoint is None or not is_adapter(checkpoint):
        return load_model(checkpoint or folder, dtype=dtype, mesh=mesh)
    base = load_model(folder, dtype="float32", mesh=mesh)
    config = json.loads((checkpoint / CONFIG_FILE).read_text(encoding="utf-8"))
    with mesh:
        adapted = load_adapter(base, checkpoint)
        _merge(base, adapted, float(config["lora_alpha"]) / int(config["r"]))
        graph, state = nnx.split(base)
        return nnx.merge(graph, jax.tree.map(lambda value: value.astype(jnp.dtype(dtype)), state))


def is_adapter(checkpoint: Path) -> bool:
    """Whether the folder of a checkpoint has an adapter in it, and no whole model."""
    return (checkpoint / CONFIG_FILE).is_file()


def _merge(base: Decoder, adapted: Decoder, scale: float) -> None:
    """Add ``scale * A B`` to each weight of ``base`` that has a pair in ``adapted``."""
    plain: dict[Any, Any] = dict(nnx.iter_modules(base))
    for path, module in nnx.iter_modules(adapted):
        for attribute in [name for name in vars(module) if name.endswith(_A)]:
            name = attribute.removesuffix(_A)
            a, b = getattr(module, attribute)[...], getattr(module, name + _B)[...]
            weight = getattr(plain[path], name)
            # A is [inputs..., rank] and B [rank, outputs...]; Tunix keeps weights as [inputs..., outputs...].
            weight[...] = weight[...] + scale * jnp.tensordot(a, b, axes=1)

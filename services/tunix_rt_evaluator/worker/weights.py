"""The weights that are evaluated: a base model, or a base model with an adapter merged into it."""

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


def load_weights(folder: Path, adapter: Path | None, *, dtype: str, mesh: jax.sharding.Mesh) -> Decoder:
    """The model in ``folder``, with ``adapter`` (PEFT's layout) merged into its weights.

    Merged, a tuned model runs by the same programs and as fast as its base. The products are added in
    float32 and rounded to ``dtype`` once.

    Raises what ``load_model`` and ``load_adapter`` raise.
    """
    if adapter is None:
        return load_model(folder, dtype=dtype, mesh=mesh)
    base = load_model(folder, dtype="float32", mesh=mesh)
    config = json.loads((adapter / CONFIG_FILE).read_text(encoding="utf-8"))
    with mesh:
        adapted = load_adapter(base, adapter)
        _merge(base, adapted, float(config["lora_alpha"]) / int(config["r"]))
        graph, state = nnx.split(base)
        return nnx.merge(graph, jax.tree.map(lambda value: value.astype(jnp.dtype(dtype)), state))


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

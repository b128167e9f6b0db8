"""LoRA weights that are no longer fresh."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from tunix_rt_kit.models.decoder import Decoder
from tunix_rt_kit.models.lora import apply_lora


def lora_parameters(model: Decoder) -> list[tuple[str, Any]]:
    """Every LoRA weight with its path joined by dots, in the order of the paths."""
    found = [(path, value) for path, value in nnx.iter_graph(model) if isinstance(value, nnx.LoRAParam)]
    return sorted((".".join(map(str, path)), value) for path, value in found)


def with_random_lora(model: Decoder, **settings: Any) -> Decoder:
    """The model with LoRA (arguments as for ``apply_lora``), of which neither A nor B is zero."""
    adapted = apply_lora(model, **({"rank": 4, "alpha": 8.0, "seed": 0} | settings))
    random = np.random.default_rng(0)
    for _, parameter in lora_parameters(adapted):
        noise = random.standard_normal(parameter.shape, np.float32) * 0.1
        parameter[...] = jnp.asarray(noise, parameter.dtype)
    return adapted

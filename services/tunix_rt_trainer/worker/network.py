"""The network that is trained, a Tunix model with LoRA, and its loss."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from tunix.sft.utils import is_lora_enabled

from tunix_rt_kit.models.loader import load_model
from tunix_rt_kit.models.lora import apply_lora
from tunix_rt_kit.models.networks import Decoder
from tunix_rt_trainer.model import Dtype, LoraConfig

Loss = tuple[jax.Array, dict[str, jax.Array]]


def build_network(
    folder: Path, *, dtype: Dtype, lora: LoraConfig | None, seed: int, mesh: jax.sharding.Mesh
) -> Decoder:
    """Load a base model and give it a fresh adapter, or, without ``lora``, have all its weights trained.

    What is trained is kept in float32 whatever ``dtype`` it computes in: Adam's steps are smaller than half a
    bfloat16 unit of the weights that they change.

    Raises:
        FailedPrecondition: BASE_MODEL_UNSUPPORTED.
    """
    with mesh:
        model = load_model(folder, dtype="float32" if lora is None else dtype, mesh=mesh)
        model.computing_dtype = dtype
        if lora is None:
            return model
        network = apply_lora(
            model,
            rank=lora.rank,
            alpha=lora.alpha,
            target_modules=lora.target_modules,
            seed=_seed_of(seed, "adapter"),
        )
        adapter = nnx.state(network, nnx.LoRAParam)
        nnx.update(network, jax.tree.map(lambda weight: weight.astype(jnp.float32), adapter))
    return network


def trained_type(model: nnx.Module) -> type[nnx.Variable[Any]]:
    """The kind of variables that are trained: the adapter's if the model has one, else all parameters."""
    return nnx.LoRAParam if is_lora_enabled(model) else nnx.Param


def loss(
    model: Decoder,
    tokens: jax.Array,
    positions: jax.Array,
    segments: jax.Array,
    supervised: jax.Array,
    labels: jax.Array,
    weights: jax.Array,
) -> Loss:
    """Mean cross-entropy in nats over the supervised tokens, in float32 from integer labels.

    The arguments are the arrays of ``batches.Batch``. A token attends to those of its own segment that are
    not after it. The weights that are trained are cast to the model's computing type before use.

    Returns:
        The mean, and ``nll_sum`` and ``weight_sum``, whose ratio it is.
    """
    graph, *states = nnx.split(model, trained_type(model), ...)
    trained, frozen = states
    cast = jax.tree.map(lambda weight: weight.astype(model.computing_dtype), trained)
    computing = nnx.merge(graph, cast, frozen)
    length = tokens.shape[1]
    same_segment = segments[:, :, None] == segments[:, None, :]
    mask = same_segment & jnp.tril(jnp.ones((length, length), jnp.bool_))
    logits, _ = computing(tokens, positions, None, mask, supervised)
    nll = optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), labels)
    nll_sum: jax.Array = (nll * weights).sum()
    weight_sum = weights.sum()
    return nll_sum / jnp.maximum(weight_sum, 1.0), {"nll_sum": nll_sum, "weight_sum": weight_sum}


def _seed_of(seed: int, purpose: str) -> int:
    """A seed of 31 bits, which is what JAX takes on every platform, that depends on all 64 of ``seed``."""
    return int.from_bytes(hashlib.sha256(f"{purpose} {seed}".encode()).digest()[:4], "big") >> 1

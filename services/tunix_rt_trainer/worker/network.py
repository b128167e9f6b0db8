"""The network that is trained, a Tunix model with or without LoRA on a mesh of devices, and its loss."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from tunix.sft.utils import is_lora_enabled

from tunix_rt_kit.errors import FailedPrecondition
from tunix_rt_kit.models.decoder import Decoder
from tunix_rt_kit.models.lora import apply_lora
from tunix_rt_kit.models.networks import Llama
from tunix_rt_kit.models.pretrained import load_model
from tunix_rt_kit.models.runtime import Dtype, chosen_dtype
from tunix_rt_trainer.jobs.model import MeshShape, Method, Remat, TrainingSpec
from tunix_rt_trainer.worker import forward
from tunix_rt_trainer.worker.forward import StackedLlama
from tunix_rt_trainer.worker.kernels import cross_entropy, dense, frozen_head_nll, saves_arithmetic


def make_mesh(shape: MeshShape) -> jax.sharding.Mesh:
    """The first ``fsdp * tp`` devices as a mesh with these two axes; use it as ``with make_mesh(shape):``.

    Raises:
        FailedPrecondition: MESH_INVALID, there are not that many.
    """
    devices, wanted = jax.devices(), shape.fsdp * shape.tp
    if wanted > len(devices):
        raise FailedPrecondition(
            f"spec.mesh: fsdp {shape.fsdp} x tp {shape.tp} takes {wanted} devices; this host has "
            f"{len(devices)} ({devices[0].platform})",
            reason="MESH_INVALID",
            metadata={"wanted": str(wanted), "devices": str(len(devices))},
        )
    axis_types = (jax.sharding.AxisType.Auto,) * 2
    return jax.make_mesh(
        (shape.fsdp, shape.tp), ("fsdp", "tp"), axis_types=axis_types, devices=devices[:wanted]
    )


@contextmanager
def dividing(shape: MeshShape) -> Iterator[None]:
    """Around what lays arrays out on the devices.

    Raises:
        FailedPrecondition: MESH_INVALID, a size of the model is no multiple of the devices that share it.
    """
    try:
        yield
    except ValueError as error:
        # JAX keeps the class to itself.
        if type(error).__name__ != "IndivisibleError":
            raise
        raise FailedPrecondition(
            f"spec.mesh: fsdp {shape.fsdp} x tp {shape.tp} does not divide the model: {error}",
            reason="MESH_INVALID",
            metadata={"fsdp": str(shape.fsdp), "tp": str(shape.tp)},
        ) from error


Loss = tuple[jax.Array, dict[str, jax.Array]]


@dataclass(frozen=True, slots=True)
class Computation:
    """How the loss of a network is computed: in which type, with which LoRA scale (alpha over rank; 1 without
    LoRA), and what layers recompute."""

    dtype: Dtype
    lora_scale: float
    remat: Remat


def build_network(folder: Path, spec: TrainingSpec, mesh: jax.sharding.Mesh) -> Decoder:
    """Load a base model and give it a fresh adapter, or, for the method "full", have all its weights trained.

    What is trained is kept in float32 whatever type it computes in: Adam's steps are smaller than half a
    bfloat16 unit of the weights that they change.

    Raises:
        FailedPrecondition: BASE_MODEL_UNSUPPORTED.
        InvalidArgument: LORA_INVALID, naming what does not fit the model.
    """
    lora, dtype = spec.lora, chosen_dtype(spec.dtype)
    with mesh:
        network = load_model(folder, dtype="float32" if lora is None else dtype, mesh=mesh)
        if lora is not None:
            network = apply_lora(
                network,
                rank=lora.rank,
                alpha=lora.alpha,
                target_modules=lora.target_modules,
                seed=_seed_of(spec.seed, "adapter"),
                quantization=_QUANTIZATION[spec.method],
            )
            adapter = nnx.state(network, nnx.LoRAParam)
            nnx.update(network, jax.tree.map(lambda weight: weight.astype(jnp.float32), adapter))
    scale = 1.0 if lora is None else lora.alpha / lora.rank
    set_computation(network, Computation(dtype, scale, spec.remat))
    return network


_QUANTIZATION: dict[Method, Any] = {"lora": None, "qlora": "nf4"}


def set_computation(network: Any, computation: Computation) -> None:
    """Tell ``loss`` how to compute that of a network; it has to be told once."""
    network.computation = computation


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
    not after it.

    Returns:
        The mean, and ``nll_sum`` and ``weight_sum``, whose ratio it is.
    """
    length = tokens.shape[1]
    same_segment = segments[:, :, None] == segments[:, None, :]
    mask = same_segment & jnp.tril(jnp.ones((length, length), jnp.bool_))
    given = tokens, positions, mask, supervised
    nll_sum = _nll_sum(model, given, labels, weights)
    weight_sum = weights.sum()
    return nll_sum / jnp.maximum(weight_sum, 1.0), {"nll_sum": nll_sum, "weight_sum": weight_sum}


def _nll_sum(model: Any, given: tuple[jax.Array, ...], labels: jax.Array, weights: jax.Array) -> jax.Array:
    if isinstance(model, Llama | StackedLlama) and is_lora_enabled(model):
        states, head, axis = _states_and_head(model, *given)
        if saves_arithmetic(states):
            return frozen_head_nll(states, head, labels, weights, axis)
        logits = dense(states, head, axis)
    else:
        logits = supervised_logits(model, *given)
    return (cross_entropy(logits, labels) * weights).sum()


def supervised_logits(
    model: Any, tokens: jax.Array, positions: jax.Array, mask: jax.Array, supervised: jax.Array
) -> jax.Array:
    """[K, vocabulary] logits in float32 after the tokens that ``supervised`` [K] names of the B * L.

    Over a big vocabulary the head costs as much as several layers, and most positions of a row (prompts,
    padding) are not learned. Llama has a forward computation of our own; other families run Tunix's layers.
    Weights that are trained are cast to the computing type before use.
    """
    if not isinstance(model, Llama | StackedLlama):
        model = _computing(model)
        return forward.supervised_logits(
            model, tokens, positions, mask, supervised, remat=model.computation.remat
        )
    return dense(*_states_and_head(model, tokens, positions, mask, supervised))


def _states_and_head(
    model: Any, tokens: jax.Array, positions: jax.Array, mask: jax.Array, supervised: jax.Array
) -> tuple[jax.Array, jax.Array, int]:
    """Of a Llama what its head is given, the head's weights, and their axis for ``dense``."""
    computation: Computation = model.computation
    model = _computing(model)
    stacked = model if isinstance(model, StackedLlama) else StackedLlama(model)
    states = forward.supervised_states(
        stacked,
        tokens,
        positions,
        mask,
        supervised,
        lora_scale=computation.lora_scale,
        remat=computation.remat,
    )
    return states, *forward.head(stacked)


def _computing(model: Any) -> Any:
    """The model with weights that are trained in the type that it computes in; an adapter is cast later."""
    if is_lora_enabled(model):
        return model
    graph, state = nnx.split(model)
    return nnx.merge(graph, jax.tree.map(lambda weight: weight.astype(model.computation.dtype), state))


def _seed_of(seed: int, purpose: str) -> int:
    """A seed of 31 bits, which is what JAX takes on every platform, that depends on all 64 of ``seed``."""
    return int.from_bytes(hashlib.sha256(f"{purpose} {seed}".encode()).digest()[:4], "big") >> 1

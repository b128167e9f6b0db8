"""The network that is trained, a Tunix model with or without LoRA on a mesh of devices, and its loss.

Llama's forward computation is one scan over its stacked layers: Tunix's modules unrolled take three to five
times as long to compile, and qwix's interception leaves the order and the type of each product to XLA. Other
models run by their own layers. What is computed is the same; tests hold the two against each other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import jax
import jax.numpy as jnp
import qwix
from flax import nnx
from tunix.models.llama3 import model as llama3
from tunix.sft.utils import is_lora_enabled

from tunix_rt_kit.errors import FailedPrecondition
from tunix_rt_kit.models.config import ModelConfig
from tunix_rt_kit.models.decoder import Decoder
from tunix_rt_kit.models.lora import apply_lora
from tunix_rt_kit.models.networks import Llama
from tunix_rt_kit.models.pretrained import load_model
from tunix_rt_kit.models.runtime import Dtype, chosen_dtype
from tunix_rt_trainer.jobs.model import MeshShape, Method, Remat, TrainingSpec
from tunix_rt_trainer.worker.kernels import (
    KEPT,
    adapted,
    as_bits,
    attention,
    cross_entropy,
    dense,
    from_bits,
    frozen_head_nll,
    kept,
    saves_arithmetic,
)


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
        states, vocabulary, axis = _states_and_head(model, *given)
        if saves_arithmetic(states):
            return frozen_head_nll(states, vocabulary, labels, weights, axis)
        logits = dense(states, vocabulary, axis)
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
        return _logits_by_layers(model, tokens, positions, mask, supervised, remat=model.computation.remat)
    return dense(*_states_and_head(model, tokens, positions, mask, supervised))


def _states_and_head(
    model: Any, tokens: jax.Array, positions: jax.Array, mask: jax.Array, supervised: jax.Array
) -> tuple[jax.Array, jax.Array, int]:
    """Of a Llama what its head is given, the head's weights, and their axis for ``dense``."""
    computation: Computation = model.computation
    model = _computing(model)
    stacked = model if isinstance(model, StackedLlama) else StackedLlama(model)
    states = supervised_states(
        stacked,
        tokens,
        positions,
        mask,
        supervised,
        lora_scale=computation.lora_scale,
        remat=computation.remat,
    )
    return states, *head(stacked)


def _computing(model: Any) -> Any:
    """The model with weights that are trained in the type that it computes in; an adapter is cast later."""
    if is_lora_enabled(model):
        return model
    graph, state = nnx.split(model)
    return nnx.merge(graph, jax.tree.map(lambda weight: weight.astype(model.computation.dtype), state))


def _seed_of(seed: int, purpose: str) -> int:
    """A seed of 31 bits, which is what JAX takes on every platform, that depends on all 64 of ``seed``."""
    return int.from_bytes(hashlib.sha256(f"{purpose} {seed}".encode()).digest()[:4], "big") >> 1


class StackedLlama(nnx.Module):
    """A Llama whose ``layers`` is a single one that holds the weights of all, each behind an axis of layers.

    A step so has nothing to stack, and the optimizer a few arrays to update instead of a few of each layer.
    """

    def __init__(self, model: Llama) -> None:
        self.description = model.description
        self.computation = model.computation
        self.embedder = model.embedder
        self.final_norm = model.final_norm
        if not model.description.tied:
            self.lm_head = model.lm_head
        states = [nnx.state(layer) for layer in model.layers]
        stacked = jax.tree.map(lambda *each: jnp.stack(each), *states)
        for _, variable in nnx.to_flat_state(stacked):
            _lay_out(variable)
        self.layers = nnx.merge(nnx.graphdef(model.layers[0]), stacked)


def unstacked(model: StackedLlama, graph: nnx.GraphDef[Llama], kind: type[nnx.Variable[Any]]) -> Llama:
    """The Llama that ``model`` was made of, with the weights of today.

    Args:
        model: the stacked one.
        graph: of the Llama that it was made of.
        kind: of the variables that are wanted; of others the Llama has shapes alone.
    """
    flat: dict[tuple[Any, ...], nnx.Variable[Any]] = {}
    for path, variable in nnx.to_flat_state(nnx.state(model)):
        if path[0] != "layers":
            flat[path] = variable
            continue
        of_layer = _slice if isinstance(variable, kind) else _shape
        for index in range(model.description.num_layers):
            value = jax.tree.map(partial(of_layer, index), variable.get_value())
            flat["layers", index, *path[1:]] = _of_one_layer(variable.replace(value))
    return nnx.merge(graph, nnx.from_flat_state(flat))


def _lay_out(variable: nnx.Variable[Any]) -> None:
    """Have a stacked variable laid out on the devices as each of its layers was."""
    names = variable.get_metadata().get("out_sharding")
    if names is not None:
        variable.set_metadata("out_sharding", (None, *names))


def _of_one_layer(variable: nnx.Variable[Any]) -> nnx.Variable[Any]:
    """Undo ``_lay_out``."""
    names = variable.get_metadata().get("out_sharding")
    if names is not None:
        variable.set_metadata("out_sharding", tuple(names[1:]))
    return variable


def _slice(index: int, stacked: jax.Array) -> jax.Array:
    return stacked[index]


def _shape(index: int, stacked: jax.Array) -> jax.ShapeDtypeStruct:
    del index
    return jax.ShapeDtypeStruct(stacked.shape[1:], stacked.dtype)  # type: ignore[no-untyped-call]


_PROJECTIONS: Final = {
    "q_proj": ("attn", "w"),
    "k_proj": ("attn", "w"),
    "v_proj": ("attn", "w"),
    "o_proj": ("attn", "w"),
    "gate_proj": ("mlp", "kernel"),
    "up_proj": ("mlp", "kernel"),
    "down_proj": ("mlp", "kernel"),
}

_ACTIVATIONS: Final = llama3.ShardingConfig.get_default_sharding().act_btd

Weights = Mapping[str, Any]


def supervised_states(
    model: StackedLlama,
    tokens: jax.Array,
    positions: jax.Array,
    mask: jax.Array,
    supervised: jax.Array,
    *,
    lora_scale: float,
    remat: Remat,
) -> jax.Array:
    """What the head makes next-token logits of, at some of the tokens.

    Args:
        model: with or without LoRA, its projections quantised by qwix or not.
        tokens: [B, L].
        positions: [B, L], for the rotary embedding.
        mask: [B, L, L], true where a token (second axis) attends to another.
        supervised: [K], indices into the B * L tokens.
        lora_scale: alpha over rank.
        remat: what to recompute.

    Returns:
        [K, D] in the type of the model.
    """
    config = model.description
    rotation = _rotation(positions, config)
    layer = partial(_layer, config=config, lora_scale=lora_scale, rotation=rotation, mask=mask)
    # What has an adapter is frozen; bits have no gradients.
    packed = as_bits if nnx.state(model, nnx.LoRAParam) else _as_it_is
    weights = _weights(model.layers, packed)
    hidden, _ = jax.lax.scan(_remat(layer, remat), model.embedder.encode(tokens), weights)
    chosen = hidden.reshape(-1, config.hidden_size)[supervised]
    return _normed(chosen, model.final_norm.w[...], config.rms_norm_eps)


def head(model: StackedLlama) -> tuple[jax.Array, int]:
    """The weights that make logits, and which of their axes is that of the states."""
    if model.description.tied:
        return model.embedder.input_embedding[...], 1
    return model.lm_head.w[...], 0


def _as_it_is(weight: jax.Array) -> jax.Array:
    return weight


def _remat(layer: Any, remat: Remat) -> Any:
    if remat == "none":
        return layer
    policy = jax.checkpoint_policies.save_only_these_names(KEPT) if remat == "dots" else None
    return jax.checkpoint(layer, policy=policy)


def _weights(layer: llama3.DecoderLayer, packed: Callable[[jax.Array], jax.Array]) -> Weights:
    """The weights of all layers, those of the base model as ``packed`` gives them."""
    weights: dict[str, Any] = {
        "input_norm": packed(layer.input_layernorm.w[...]),
        "mlp_norm": packed(layer.post_attention_layernorm.w[...]),
    }
    for name, (parent, weight) in _PROJECTIONS.items():
        projection = getattr(getattr(layer, parent), name)
        w = getattr(projection, weight)[...]
        # qwix wraps the array of a weight that it quantised.
        weights[name] = {"w": jax.tree.map(packed, getattr(w, "array", w))}
        if hasattr(projection, f"{weight}_lora_a"):
            weights[name]["a"] = getattr(projection, f"{weight}_lora_a")[...]
            weights[name]["b"] = getattr(projection, f"{weight}_lora_b")[...]
    return weights


def _layer(
    hidden: jax.Array,
    weights: Weights,
    *,
    config: ModelConfig,
    lora_scale: float,
    rotation: tuple[jax.Array, jax.Array],
    mask: jax.Array,
) -> tuple[jax.Array, None]:
    weights = jax.tree.map(from_bits, weights)
    rows, length, width = hidden.shape
    dtype = hidden.dtype
    project = partial(_project, weights, lora_scale)

    def heads(x: jax.Array) -> jax.Array:
        """[B * L, H * G * D] -> [B, H, L, G, D], for each key-value head the G heads that share it."""
        return x.reshape(rows, length, config.num_kv_heads, -1, config.head_dim).swapaxes(1, 2)

    x = hidden.reshape(-1, width)
    normed = _normed(x, weights["input_norm"], config.rms_norm_eps)
    q, k = (_rotated(heads(project(name, normed)), rotation) for name in ("q_proj", "k_proj"))
    q, k, v = (kept(each.astype(dtype)) for each in (q, k, heads(project("v_proj", normed))))
    q_rows, k_rows, v_rows = (each.reshape(*each.shape[:2], -1, config.head_dim) for each in (q, k, v))
    mixed = attention(q_rows, k_rows, v_rows, mask)
    mixed = mixed.reshape(q.shape).swapaxes(1, 2).reshape(rows * length, -1)
    x = kept((x + project("o_proj", mixed)).astype(dtype))
    normed = _normed(x, weights["mlp_norm"], config.rms_norm_eps)
    gate, up = (kept(project(name, normed).astype(dtype)) for name in ("gate_proj", "up_proj"))
    active = (nnx.silu(gate.astype(jnp.float32)) * up).astype(dtype)
    x = (x + project("down_proj", active)).astype(dtype)
    return llama3.shard(x.reshape(hidden.shape), _ACTIVATIONS), None


def _project(weights: Weights, lora_scale: float, name: str, x: jax.Array) -> jax.Array:
    """[T, K] -> [T, N] in float32, whatever axes Tunix and qwix split K and N into."""
    projection = weights[name]
    w = projection["w"]
    if isinstance(w, qwix.QArray):
        w = qwix.dequantize(w).astype(x.dtype)
    w = w.reshape(x.shape[1], -1)
    if "a" not in projection:
        return dense(x, w)
    a, b = projection["a"], projection["b"]
    return adapted(x, w, a.reshape(x.shape[1], -1), b.reshape(b.shape[0], -1), lora_scale)


def _normed(x: jax.Array, weight: jax.Array, epsilon: float) -> jax.Array:
    exact = x.astype(jnp.float32)
    scale = jax.lax.rsqrt((exact * exact).mean(-1, keepdims=True) + epsilon)
    return (exact * scale * weight.astype(jnp.float32)).astype(x.dtype)


def _rotation(positions: jax.Array, config: ModelConfig) -> tuple[jax.Array, jax.Array]:
    """Sine and cosine, [B, 1, L, 1, D / 2]."""
    frequencies = jnp.asarray(config.rope.inverse_frequencies(config.head_dim), jnp.float32)
    angles = positions[:, None, :, None, None] * frequencies
    return jnp.sin(angles), jnp.cos(angles)


def _rotated(x: jax.Array, rotation: tuple[jax.Array, jax.Array]) -> jax.Array:
    sin, cos = rotation
    first, second = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def _logits_by_layers(
    model: Decoder,
    tokens: jax.Array,
    positions: jax.Array,
    mask: jax.Array,
    supervised: jax.Array,
    *,
    remat: Remat,
) -> jax.Array:
    """Next-token logits at some of the tokens.

    Args:
        model: of any family. Its adapter is cast to the type of its embedding before use.
        tokens: [B, L].
        positions: [B, L].
        mask: [B, L, L], true where a token (second axis) attends to another.
        supervised: [K], indices into the B * L tokens.
        remat: what a layer keeps for the backward pass, see the contract.

    Returns:
        [K, vocabulary] in float32.
    """
    dtype = model.embedder.input_embedding.dtype
    graph, *states = nnx.split(model, nnx.LoRAParam, ...)
    adapter, rest = states
    computing = nnx.merge(graph, jax.tree.map(lambda weight: weight.astype(dtype), adapter), rest)
    if remat != "none":
        for index, layer in enumerate(computing.layers):
            computing.layers[index] = _Recomputed(layer, remat)
    logits: jax.Array = computing(tokens, positions, None, mask, supervised)[0]
    return logits


class _Recomputed(nnx.Module):
    """A layer that recomputes in the backward pass.

    Tunix's own setting fails once qwix wrote into the layer, as its arrays then are of two trace levels.
    """

    def __init__(self, layer: nnx.Module, remat: Remat) -> None:
        self.layer = layer
        self.remat = remat

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        graph, state = nnx.split(self.layer)
        policies = jax.checkpoint_policies
        policy = policies.dots_with_no_batch_dims_saveable if self.remat == "dots" else None

        def computed(state: Any, *args: Any, **kwargs: Any) -> Any:
            return nnx.merge(graph, state)(*args, **kwargs)

        return jax.checkpoint(computed, policy=policy)(state, *args, **kwargs)

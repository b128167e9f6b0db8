"""Tunix's Llama as a scan over its layers takes it, and back."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from tunix_rt_kit.models.networks.llama import Llama


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

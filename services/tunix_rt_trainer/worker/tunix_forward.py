"""The forward computation of any Tunix model by its own layers, with a head at chosen tokens alone."""

from __future__ import annotations

from typing import Any

import jax
from flax import nnx

from tunix_rt_kit.models.networks import Decoder
from tunix_rt_trainer.jobs.model import Remat


def supervised_logits(
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

"""Chooses the next token of each row: the most probable one, or one that is drawn."""

from __future__ import annotations

import jax
import jax.numpy as jnp

_BLOCK = 128
_ONE_AND_MORE = 0x3F800001
"""Bits of the float32 after 1: above every probability."""


def most_probable(logits: jax.Array) -> jax.Array:
    """[R] int32, of logits [R, V]. Ties go to the lowest id: argmax returns the first maximum."""
    return jnp.argmax(logits, axis=-1).astype(jnp.int32)


def drawn(
    logits: jax.Array, keys: jax.Array, counts: jax.Array, temperature: jax.Array, top_p: jax.Array
) -> jax.Array:
    """[R] int32, drawn from logits [R, V] by the inverse of their distribution.

    Args:
        logits: in float32.
        keys: [R, 2] uint32, the key of each row's answer.
        counts: [R], how many tokens of its answer a row has; with the key, all that chance depends on.
        temperature: above 0, what logits are divided by.
        top_p: above 0 and up to 1. Drawn is from the fewest of the most probable tokens whose probabilities
            sum to at least this (Holtzman et al., 2020, arXiv:1904.09751), and from those as probable as the
            last of them.
    """
    probabilities = jax.nn.softmax(logits / temperature, axis=-1)
    least = jax.lax.cond(
        top_p < 1, _least_probability, lambda p, _: jnp.zeros((p.shape[0], 1)), probabilities, top_p
    )
    kept = jnp.where(probabilities >= least, probabilities, 0)
    wrapped = jax.random.wrap_key_data(keys, impl="threefry2x32")
    uniform = jax.vmap(lambda key, count: jax.random.uniform(jax.random.fold_in(key, count)))(wrapped, counts)
    return _inverse(kept, uniform)


def log_probability(logits: jax.Array, chosen: jax.Array) -> jax.Array:
    """[R], the natural logarithm of the probability of ``chosen`` [R] by logits [R, V]."""
    own = jnp.take_along_axis(logits, chosen[:, None], axis=-1)[:, 0]
    return own - jax.nn.logsumexp(logits, axis=-1)


def _least_probability(probabilities: jax.Array, top_p: jax.Array) -> jax.Array:
    """[R, 1]: the greatest probability such that those from it on sum to ``top_p``.

    Sorting a vocabulary costs as much as several layers of a small model. Floats that are not negative are
    ordered as their bits are, so 31 halvings find the very number.
    """

    def halve(_: int, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = bounds
        middle = low + (high - low) // 2
        least = jax.lax.bitcast_convert_type(middle, jnp.float32)[:, None]
        enough = jnp.where(probabilities >= least, probabilities, 0).sum(axis=-1) >= top_p
        return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

    rows = probabilities.shape[0]
    bounds = jnp.zeros(rows, jnp.int32), jnp.full(rows, _ONE_AND_MORE, jnp.int32)
    low, _ = jax.lax.fori_loop(0, 31, halve, bounds)
    return jax.lax.bitcast_convert_type(low, jnp.float32)[:, None]


def _inverse(weights: jax.Array, uniform: jax.Array) -> jax.Array:
    """[R]: the first place at which the sum of ``weights`` [R, V] up to it exceeds that share of their total
    which ``uniform`` [R] in [0, 1) says. Summed in blocks, as a scan over a vocabulary is slow."""
    rows, size = weights.shape
    blocks = jnp.pad(weights, ((0, 0), (0, -size % _BLOCK))).reshape(rows, -1, _BLOCK)
    ends = jnp.cumsum(blocks.sum(axis=-1), axis=-1)
    wanted = (uniform * ends[:, -1])[:, None]
    block = _first_above(ends, wanted)
    before = jnp.where(block > 0, jnp.take_along_axis(ends, jnp.maximum(block - 1, 0), axis=1), 0)
    inner = jnp.take_along_axis(blocks, block[:, :, None], axis=1)[:, 0]
    within = _first_above(before + jnp.cumsum(inner, axis=-1), wanted)
    return (block * _BLOCK + within)[:, 0].astype(jnp.int32)


def _first_above(sums: jax.Array, wanted: jax.Array) -> jax.Array:
    """[R, 1]: the first of ascending ``sums`` [R, N] above ``wanted`` [R, 1]; where rounding leaves none, the
    first of the greatest."""
    above = jnp.where(sums[:, -1:] > wanted, sums > wanted, sums >= sums[:, -1:])
    return jnp.argmax(above, axis=-1, keepdims=True)

"""Matrix products and attention with gradients of their own, as a training step on bfloat16 wants them.

XLA's automatic gradients of a bfloat16 product are bfloat16 products again, which a CPU computes at half the
speed of those that accumulate into float32, and less exactly. Attention keeps one number a query for its
backward pass (its log-normaliser, as in arXiv:2205.14135) instead of the matrix of probabilities.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, Final

import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name

KEPT: Final = "kept"
"""Name, for checkpoint policies, of what ``kept`` and ``attention`` keep for the backward pass."""

_MASKED: Final = -1e30
_BLOCK: Final = 64
_MOST_BLOCKS: Final = 4
_HEAD_TOKENS: Final = 256


def as_bits(x: jax.Array) -> jax.Array:
    """A bfloat16 array as 16-bit integers; others as they are.

    XLA takes slices of bfloat16 as slices of float32 on a CPU, and converts a stack of layers as a whole
    before a loop over them: two more copies, each of twice the size. No gradient passes through bits.
    """
    return lax.bitcast_convert_type(x, jnp.uint16) if x.dtype == jnp.bfloat16 else x


def from_bits(x: jax.Array) -> jax.Array:
    """What ``as_bits`` was given."""
    return lax.bitcast_convert_type(x, jnp.bfloat16) if x.dtype == jnp.uint16 else x


@jax.custom_vjp
def kept(x: jax.Array) -> jax.Array:
    """``x``, kept for the backward pass by a checkpoint policy that saves the name ``KEPT``."""
    return x


def _named(x: jax.Array) -> jax.Array:
    return from_bits(checkpoint_name(as_bits(x), KEPT))  # type: ignore[no-untyped-call]


kept.defvjp(lambda x: (_named(x), None), lambda _, g: (g,))


def dot(x: jax.Array, y: jax.Array, x_axis: int, y_axis: int) -> jax.Array:
    """The product of two matrices over one axis of each, in float32."""
    return lax.dot_general(x, y, (((x_axis,), (y_axis,)), ((), ())), preferred_element_type=jnp.float32)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def dense(x: jax.Array, w: jax.Array, w_axis: int = 0) -> jax.Array:
    """``x`` [T, K] times ``w``, whose ``w_axis`` is K: [T, N] in float32."""
    return dot(x, w, 1, w_axis)


def _dense_forward(x: jax.Array, w: jax.Array, w_axis: int) -> tuple[jax.Array, Any]:
    return dot(x, w, 1, w_axis), (x, w)


def _dense_backward(w_axis: int, saved: Any, g: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, w = saved
    g = g.astype(x.dtype)
    dw = _weight_gradient(x, g) if w_axis == 0 else _weight_gradient(g, x)
    return dot(g, w, 1, 1 - w_axis).astype(x.dtype), dw.astype(w.dtype)


dense.defvjp(_dense_forward, _dense_backward)


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def adapted(x: jax.Array, w: jax.Array, a: jax.Array, b: jax.Array, scale: float) -> jax.Array:
    """``x w + scale x a b`` for ``x`` [T, K], ``w`` [K, N], ``a`` [K, R], ``b`` [R, N]: [T, N] in float32.

    ``a`` and ``b`` may be of a finer type than ``x``: they are cast to its type, and their gradients are not.
    """
    return _adapted_forward(x, w, a, b, scale)[0]


def _adapted_forward(
    x: jax.Array, w: jax.Array, a: jax.Array, b: jax.Array, scale: float
) -> tuple[jax.Array, Any]:
    if saves_arithmetic(x):
        return dot(x, _merged(w, a, b, scale), 1, 0), (x, w, a, b, None)
    inner = (dot(x, a.astype(x.dtype), 1, 0) * scale).astype(x.dtype)
    return dot(x, w, 1, 0) + dot(inner, b.astype(x.dtype), 1, 0), (x, w, a, b, inner)


def _merged(w: jax.Array, a: jax.Array, b: jax.Array, scale: float) -> jax.Array:
    return w + dot(a, b, 1, 0) * scale


def _adapted_backward(scale: float, saved: Any, g: jax.Array) -> tuple[jax.Array, ...]:
    x, w, a, b, inner = saved
    g = g.astype(x.dtype)
    to_inner = (dot(g, b.astype(x.dtype), 1, 1) * scale).astype(x.dtype)
    if inner is None:
        inner = dot(x, a, 1, 0) * scale
        dx = dot(g, _merged(w, a, b, scale), 1, 1)
    else:
        dx = dot(g, w, 1, 1) + dot(to_inner, a.astype(x.dtype), 1, 1)
    da, db = _weight_gradient(x, to_inner), dot(inner, g, 0, 0)
    return dx.astype(x.dtype), _weight_gradient(x, g).astype(w.dtype), da.astype(a.dtype), db.astype(b.dtype)


adapted.defvjp(_adapted_forward, _adapted_backward)


def attention(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array) -> jax.Array:
    """Causal softmax attention of G query heads to each of H key-value heads.

    Args:
        q: [B, H, L * G, D], the queries of a group of heads for a token one after the other.
        k: [B, H, L, D].
        v: [B, H, L, D].
        mask: [B, L, L] bool, true where the query (second axis) attends to the key; each to one at least, and
            to none after it.

    Returns:
        [B, H, L * G, D], in the type of ``v``.
    """
    return _attention(q, k, v, jnp.repeat(mask, q.shape[2] // k.shape[2], 1)[:, None])


@jax.custom_vjp
def _attention(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array) -> jax.Array:
    return _attention_forward(q, k, v, mask)[0]


def _scores(q: jax.Array, k: jax.Array, mask: jax.Array) -> jax.Array:
    return jnp.where(mask, _batched("bhid,bhjd->bhij", q, k) * q.shape[-1] ** -0.5, _MASKED)


def _attention_forward(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array) -> tuple[jax.Array, Any]:
    outs, normalisers = [], []
    for queries, keys in _blocks(q, k):
        scores = _scores(q[:, :, queries], k[:, :, keys], mask[:, :, queries, keys])
        peak = scores.max(-1, keepdims=True)
        powers = jnp.exp(scores - peak)
        total = powers.sum(-1, keepdims=True)
        out = _batched("bhij,bhjd->bhid", powers.astype(v.dtype), v[:, :, keys]) / total
        outs.append(out.astype(v.dtype))
        normalisers.append(peak + jnp.log(total))
    out, normaliser = _named(jnp.concatenate(outs, 2)), _named(jnp.concatenate(normalisers, 2))
    return out, (q, k, v, mask, out, normaliser)


def _attention_backward(saved: Any, g: jax.Array) -> tuple[jax.Array | None, ...]:
    q, k, v, mask, out, normaliser = saved
    correction = (g.astype(jnp.float32) * out.astype(jnp.float32)).sum(-1, keepdims=True)
    dqs, dk, dv = [], jnp.zeros(k.shape, jnp.float32), jnp.zeros(v.shape, jnp.float32)
    for queries, keys in _blocks(q, k):
        q_, g_, k_, v_ = q[:, :, queries], g[:, :, queries], k[:, :, keys], v[:, :, keys]
        scores = _scores(q_, k_, mask[:, :, queries, keys])
        probabilities = jnp.exp(scores - normaliser[:, :, queries])
        ds = probabilities * (_batched("bhid,bhjd->bhij", g_, v_) - correction[:, :, queries])
        ds = (ds * q.shape[-1] ** -0.5).astype(q.dtype)
        dv = dv.at[:, :, keys].add(
            _batched("bhji,bhid->bhjd", _transposed(probabilities.astype(v.dtype)), g_)
        )
        dqs.append(_batched("bhij,bhjd->bhid", ds, k_).astype(q.dtype))
        dk = dk.at[:, :, keys].add(_batched("bhji,bhid->bhjd", _transposed(ds), q_))
    return jnp.concatenate(dqs, 2), dk.astype(k.dtype), dv.astype(v.dtype), None


def _blocks(q: jax.Array, k: jax.Array) -> Iterator[tuple[slice, slice]]:
    """Queries that are computed at a time, and the keys that are not after them all."""
    length, group = k.shape[2], q.shape[2] // k.shape[2]
    count = max(1, min(_MOST_BLOCKS, length // _BLOCK)) if saves_arithmetic(q) else 1
    size = -(-length // count)
    for start in range(0, length, size):
        stop = min(start + size, length)
        yield slice(start * group, stop * group), slice(stop)


def saves_arithmetic(x: jax.Array) -> bool:
    """Whether fewer operations on smaller arrays are faster than more on larger ones: where operations are
    slow, as in float32 on a CPU."""
    return x.dtype == jnp.float32 and jax.default_backend() == "cpu"


_attention.defvjp(_attention_forward, _attention_backward)


def _batched(spec: str, x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.einsum(spec, x, y, preferred_element_type=jnp.float32)


@jax.custom_vjp
def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """In nats, of ``logits`` [K, V] in float32 and ``labels`` [K]: [K]."""
    return _cross_entropy_forward(logits, labels)[0]


def _cross_entropy_forward(logits: jax.Array, labels: jax.Array) -> tuple[jax.Array, Any]:
    normaliser = jax.nn.logsumexp(logits, axis=-1)
    chosen = jnp.take_along_axis(logits, labels[:, None], axis=-1)[:, 0]
    return normaliser - chosen, (logits, labels, normaliser)


def _cross_entropy_backward(saved: Any, g: jax.Array) -> tuple[jax.Array, None]:
    logits, labels, normaliser = saved
    # A comparison is part of the loop over the logits; the gradient of an index would be a scatter.
    hit = jnp.arange(logits.shape[-1]) == labels[:, None]
    return (jnp.exp(logits - normaliser[:, None]) - hit) * g[:, None], None


cross_entropy.defvjp(_cross_entropy_forward, _cross_entropy_backward)


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def frozen_head_nll(
    x: jax.Array, w: jax.Array, labels: jax.Array, weights: jax.Array, w_axis: int
) -> jax.Array:
    """``cross_entropy(dense(x, w, w_axis), labels)`` times ``weights``, summed; ``w`` has no gradient.

    It is worked out for some tokens at a time, and their share of the gradient with it, so that logits are
    never kept; and for no more tokens than the last one whose weight is not 0.
    """
    return _head_pass(x, w, labels, weights, w_axis, with_gradient=False)[0]


def _head_pass(
    x: jax.Array, w: jax.Array, labels: jax.Array, weights: jax.Array, w_axis: int, *, with_gradient: bool
) -> tuple[jax.Array, jax.Array]:
    """The sum, and its gradient by ``x``."""
    count = x.shape[0]
    size = min(_HEAD_TOKENS, count)
    x, labels, weights = (
        jnp.pad(each, [(0, -count % size)] + [(0, 0)] * (each.ndim - 1)) for each in (x, labels, weights)
    )
    used = jnp.max(jnp.where(weights != 0, jnp.arange(1, len(weights) + 1), 0))

    def add(index: jax.Array, so_far: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        total, dx = so_far
        x_, labels_, weights_ = (
            lax.dynamic_slice_in_dim(each, index * size, size) for each in (x, labels, weights)
        )
        logits = dot(x_, w, 1, w_axis)
        losses, saved = _cross_entropy_forward(logits, labels_)
        if with_gradient:
            g = _cross_entropy_backward(saved, weights_)[0]
            dx = lax.dynamic_update_slice_in_dim(dx, dot(g, w, 1, 1 - w_axis), index * size, 0)
        return total + (losses * weights_).sum(), dx

    start = jnp.zeros((), jnp.float32), jnp.zeros(x.shape if with_gradient else (), x.dtype)
    total, dx = lax.fori_loop(0, -(-used // size), add, start)
    return total, dx[:count] if with_gradient else dx


def _head_forward(
    x: jax.Array, w: jax.Array, labels: jax.Array, weights: jax.Array, w_axis: int
) -> tuple[jax.Array, jax.Array]:
    return _head_pass(x, w, labels, weights, w_axis, with_gradient=True)


def _head_backward(w_axis: int, dx: jax.Array, g: jax.Array) -> tuple[jax.Array | None, ...]:
    del w_axis
    return dx * g, None, None, None


frozen_head_nll.defvjp(_head_forward, _head_backward)


def _weight_gradient(x: jax.Array, g: jax.Array) -> jax.Array:
    return dot(_transposed(x), g, 1, 0)


def _transposed(x: jax.Array) -> jax.Array:
    """The last two axes swapped, in memory too on a CPU, whose product over a first axis is 3 to 5 times
    slower than one over a last axis."""
    swapped = x.swapaxes(-1, -2)
    if jax.default_backend() == "cpu":
        swapped = lax.optimization_barrier(swapped)  # type: ignore[no-untyped-call]
    return swapped

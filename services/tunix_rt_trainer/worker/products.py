"""Matrix products and attention with gradients of their own, as a training step on bfloat16 wants them.

XLA's automatic gradients of a bfloat16 product are bfloat16 products again, which a CPU computes at half the
speed of those that accumulate into float32, and less exactly. Attention keeps one number a query for its
backward pass (its log-normaliser, as in arXiv:2205.14135) instead of the matrix of probabilities.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final

import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name

KEPT: Final = "kept"
"""Name, for checkpoint policies, of what ``kept`` and ``attention`` keep for the backward pass."""

_MASKED: Final = -1e30


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
    inner = (dot(x, a.astype(x.dtype), 1, 0) * scale).astype(x.dtype)
    return dot(x, w, 1, 0) + dot(inner, b.astype(x.dtype), 1, 0), (x, w, a, b, inner)


def _adapted_backward(scale: float, saved: Any, g: jax.Array) -> tuple[jax.Array, ...]:
    x, w, a, b, inner = saved
    g = g.astype(x.dtype)
    to_inner = (dot(g, b.astype(x.dtype), 1, 1) * scale).astype(x.dtype)
    dx = dot(g, w, 1, 1) + dot(to_inner, a.astype(x.dtype), 1, 1)
    da, db = _weight_gradient(x, to_inner), dot(inner, g, 0, 0)
    return dx.astype(x.dtype), _weight_gradient(x, g).astype(w.dtype), da.astype(a.dtype), db.astype(b.dtype)


adapted.defvjp(_adapted_forward, _adapted_backward)


def attention(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array) -> jax.Array:
    """Softmax attention of G query heads to each of H key-value heads.

    Args:
        q: [B, H, G * L, D], the queries of a group of heads one head after the other.
        k: [B, H, L, D].
        v: [B, H, L, D].
        mask: [B, L, L] bool, true where the query (second axis) attends to the key; each to one at least.

    Returns:
        [B, H, G * L, D], in the type of ``v``.
    """
    return _attention(q, k, v, jnp.tile(mask, (1, q.shape[2] // k.shape[2], 1))[:, None])


@jax.custom_vjp
def _attention(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array) -> jax.Array:
    return _attention_forward(q, k, v, mask)[0]


def _scores(q: jax.Array, k: jax.Array, mask: jax.Array) -> jax.Array:
    return jnp.where(mask, _batched("bhid,bhjd->bhij", q, k) * q.shape[-1] ** -0.5, _MASKED)


def _attention_forward(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array) -> tuple[jax.Array, Any]:
    scores = _scores(q, k, mask)
    peak = scores.max(-1, keepdims=True)
    powers = jnp.exp(scores - peak)
    total = powers.sum(-1, keepdims=True)
    out = (_batched("bhij,bhjd->bhid", powers.astype(v.dtype), v) / total).astype(v.dtype)
    out, normaliser = _named(out), _named(peak + jnp.log(total))
    return out, (q, k, v, mask, out, normaliser)


def _attention_backward(saved: Any, g: jax.Array) -> tuple[jax.Array | None, ...]:
    q, k, v, mask, out, normaliser = saved
    probabilities = jnp.exp(_scores(q, k, mask) - normaliser)
    correction = (g.astype(jnp.float32) * out.astype(jnp.float32)).sum(-1, keepdims=True)
    ds = probabilities * (_batched("bhid,bhjd->bhij", g, v) - correction) * q.shape[-1] ** -0.5
    ds = ds.astype(q.dtype)
    dv = _batched("bhji,bhid->bhjd", _transposed(probabilities.astype(v.dtype)), g)
    dq = _batched("bhij,bhjd->bhid", ds, k)
    dk = _batched("bhji,bhid->bhjd", _transposed(ds), q)
    return dq.astype(q.dtype), dk.astype(k.dtype), dv.astype(v.dtype), None


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


def _weight_gradient(x: jax.Array, g: jax.Array) -> jax.Array:
    return dot(_transposed(x), g, 1, 0)


def _transposed(x: jax.Array) -> jax.Array:
    """The last two axes swapped, in memory too on a CPU, whose product over a first axis is 3 to 5 times
    slower than one over a last axis."""
    swapped = x.swapaxes(-1, -2)
    if jax.default_backend() == "cpu":
        swapped = lax.optimization_barrier(swapped)  # type: ignore[no-untyped-call]
    return swapped

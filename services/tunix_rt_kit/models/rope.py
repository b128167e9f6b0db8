"""Makes Tunix's Llama rotate by the model's own RoPE base.

``tunix.models.llama3.model.Attention.block`` calls the module's ``apply_rope`` without a base, so that every
model is rotated by that function's default of 1e6 and ``ModelConfig.rope_theta`` has no effect
(google-tunix 0.1.7).
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

import jax
from tunix.models.llama3 import model as llama3

_theta: ContextVar[float] = ContextVar("rope_theta")
_tunix_apply_rope = llama3.apply_rope
_tunix_block = llama3.Attention.block


def bind_rope_theta() -> None:
    """Bind ``apply_rope``, for every Llama of this process, to the base in the model's own configuration.

    Models with different bases may live side by side and be traced in different threads. A second call
    changes nothing.
    """
    llama3.apply_rope = _apply_rope
    llama3.Attention.block = _block


def unbind_rope_theta() -> None:
    """Restore what Tunix does by itself, to measure the difference."""
    llama3.apply_rope = _tunix_apply_rope
    llama3.Attention.block = _tunix_block


def _apply_rope(inputs: jax.Array, positions: jax.Array, head_dim: int) -> jax.Array:
    rotated: jax.Array = _tunix_apply_rope(inputs, positions, head_dim, rope_theta=_theta.get())
    return rotated


def _block(self: llama3.Attention, *args: Any, **kwargs: Any) -> Any:
    token = _theta.set(float(self.config.rope_theta))
    try:
        return _tunix_block(self, *args, **kwargs)
    finally:
        _theta.reset(token)

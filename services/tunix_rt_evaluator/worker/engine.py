"""Greedy generation with a Tunix model: one compiled prefill and one compiled decode loop for each batch
shape.

Tunix's own Sampler is not used: it computes logits at every position of the prompt, rounds them to the
model's type, and cannot be stopped inside a batch. The layers and their key/value cache are Tunix's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from typing import Any, Final, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from flax import nnx

from tunix_rt_evaluator.worker.batches import CHUNK, Batch, Shape
from tunix_rt_kit.models.networks import Caches, Decoder

ENGINE_REVISION: Final = 2
"""Raised whenever this module could write other tokens than before."""

_STEPS_BETWEEN_CHECKS: Final = 16
_STOP_SLOTS: Final = 4


def engine_name() -> str:
    """The engine and its version, such as ``tunix/0.1.7-greedy.1``."""
    return f"tunix/{metadata.version('google-tunix')}-greedy.{ENGINE_REVISION}"


class Cursor(NamedTuple):
    """Where a batch of B rows stands, with P prompt columns and N new tokens at most.

    ``step`` [] counts the columns of ``tokens`` [B, N] that are filled; ``counts`` [B] how many of them are
    the row's own; ``done`` [B] says that a row has stopped; ``cache`` has P + N columns.
    """

    step: jax.Array
    tokens: jax.Array
    counts: jax.Array
    done: jax.Array
    cache: Caches


class Rows(NamedTuple):
    """What stays the same while a batch runs: ``lengths`` [B] of the prompts, ``limits`` [B] of new tokens,
    and the token ids that ``stops`` [4] a row (-1 in unused slots). All int32."""

    lengths: jax.Array
    limits: jax.Array
    stops: jax.Array


@dataclass(frozen=True, slots=True)
class Output:
    """New tokens of one prompt, the one that stopped it included."""

    ids: tuple[int, ...]
    stopped: bool


class Engine:
    """Runs batches on one model.

    Args:
        model: without LoRA, on ``mesh``.
        mesh: see ``tunix_rt_kit.models.loader.make_mesh``.
        stop_ids: at most 4 tokens, each of which ends a row.
        pad_id: fills prompts; nothing attends to it.
        context_length: most tokens of a row, prompt included.
    """

    def __init__(
        self,
        model: Decoder,
        mesh: jax.sharding.Mesh,
        *,
        stop_ids: Sequence[int],
        pad_id: int,
        context_length: int,
    ) -> None:
        self._graph, self._state = nnx.split(model)
        self._mesh = mesh
        self._stops = np.full(_STOP_SLOTS, -1, np.int32)
        self._stops[: len(stop_ids)] = stop_ids
        self._pad_id = pad_id
        self._context_length = context_length
        self._programs: dict[Shape, tuple[Any, Any]] = {}

    def compile(self, shape: Shape) -> float:
        """Compile the programs for a shape unless they are; returns the seconds that it took."""
        started = time.perf_counter()
        if shape not in self._programs:
            ints = partial(jax.ShapeDtypeStruct, dtype=jnp.int32)
            tokens = ints((shape.rows, shape.prompt_length))
            rows = jax.eval_shape(lambda: self._rows(np.ones(shape.rows), np.ones(shape.rows)))
            prefill = partial(_prefill, self._graph, shape)
            decode = partial(_decode, self._graph, shape)
            with self._mesh:
                cursor = jax.eval_shape(prefill, self._state, tokens, rows, ints(()))
                self._programs[shape] = (
                    jax.jit(prefill).lower(self._state, tokens, rows, ints(())).compile(),
                    jax.jit(decode, donate_argnums=1).lower(self._state, cursor, rows, ints(())).compile(),
                )
        return time.perf_counter() - started

    def run(self, batch: Batch, check: Callable[[], None]) -> list[Output]:
        """Generate for every prompt of a batch until all have stopped.

        Args:
            batch: of a shape that was compiled.
            check: called every few steps; what it raises ends the run.
        """
        prefill, decode = self._programs[batch.shape]
        tokens, rows = self._arrays(batch)
        longest = max(len(prompt.ids) for prompt in batch.prompts)
        first = (batch.shape.prompt_length - longest) // CHUNK * CHUNK
        cursor: Cursor = prefill(self._state, tokens, rows, np.int32(first))
        step = 1
        while step < batch.shape.max_new_tokens and not bool(cursor.done.all()):
            check()
            step = min(step + _STEPS_BETWEEN_CHECKS, batch.shape.max_new_tokens)
            cursor = decode(self._state, cursor, rows, np.int32(step))
        new, counts = np.asarray(cursor.tokens), np.asarray(cursor.counts)
        return [self._output(new[row, : counts[row]]) for row in range(len(batch.prompts))]

    def _arrays(self, batch: Batch) -> tuple[npt.NDArray[np.int32], Rows]:
        shape = batch.shape
        tokens = np.full((shape.rows, shape.prompt_length), self._pad_id, np.int32)
        # A row without a prompt is a row of one token that stops at once.
        lengths, limits = np.ones(shape.rows, np.int32), np.ones(shape.rows, np.int32)
        for row, prompt in enumerate(batch.prompts):
            length = len(prompt.ids)
            tokens[row, shape.prompt_length - length :] = prompt.ids
            lengths[row] = length
            limits[row] = min(shape.max_new_tokens, self._context_length - length)
        return tokens, self._rows(lengths, limits)

    def _rows(self, lengths: npt.ArrayLike, limits: npt.ArrayLike) -> Rows:
        return Rows(*(jnp.asarray(value, jnp.int32) for value in (lengths, limits, self._stops)))

    def _output(self, ids: npt.NDArray[np.int32]) -> Output:
        return Output(tuple(int(token) for token in ids), bool(np.isin(ids[-1], self._stops)))


def _prefill(graph: Any, shape: Shape, state: Any, tokens: jax.Array, rows: Rows, first: jax.Array) -> Cursor:
    """Read the left-padded prompts [B, P] from column ``first`` on and choose the first new token of each
    row."""
    model = nnx.merge(graph, state)
    start = shape.prompt_length - rows.lengths

    def read(carry: tuple[jax.Array, jax.Array, Any]) -> tuple[jax.Array, jax.Array, Any]:
        column, _, cache = carry
        columns = column + jnp.arange(CHUNK)
        part = jax.lax.dynamic_slice_in_dim(tokens, column, CHUNK, axis=1)
        positions = jnp.maximum(columns[None, :] - start[:, None], 0)
        hidden, cache = model.hidden_states(part, positions, cache, _mask(shape, start, columns))
        return column + CHUNK, hidden[:, -1], cache

    dtype = model.embedder.input_embedding.dtype
    hidden = jnp.zeros((shape.rows, model.description.hidden_size), dtype)
    cache = model.init_cache(shape.rows, shape.prompt_length + shape.max_new_tokens, dtype)
    for layer in cache.values():
        layer["end_index"] = jnp.full(shape.rows, first, jnp.int32)
    # Columns that are padding in every row are not read, so a prompt costs what it is long.
    _, hidden, cache = jax.lax.while_loop(
        lambda carry: carry[0] < shape.prompt_length, read, (first, hidden, cache)
    )
    cursor = Cursor(
        step=jnp.int32(0),
        tokens=jnp.zeros((shape.rows, shape.max_new_tokens), jnp.int32),
        counts=jnp.zeros(shape.rows, jnp.int32),
        done=jnp.zeros(shape.rows, bool),
        cache=cache,
    )
    return _appended(cursor, model.head(hidden), cache, rows)


def _decode(graph: Any, shape: Shape, state: Any, cursor: Cursor, rows: Rows, until: jax.Array) -> Cursor:
    """Go on until ``until`` columns are filled or every row has stopped."""
    model = nnx.merge(graph, state)
    start = shape.prompt_length - rows.lengths

    def step(cursor: Cursor) -> Cursor:
        last = cursor.tokens[:, cursor.step - 1]
        column = shape.prompt_length + cursor.step - 1
        positions = (rows.lengths + cursor.step - 1)[:, None]
        mask = _mask(shape, start, column[None])
        hidden, cache = model.hidden_states(last[:, None], positions, cursor.cache, mask)
        return _appended(cursor, model.head(hidden[:, -1]), cache, rows)

    def more(cursor: Cursor) -> jax.Array:
        return (cursor.step < until) & ~jnp.all(cursor.done)

    result: Cursor = jax.lax.while_loop(more, step, cursor)
    return result


def _appended(cursor: Cursor, logits: jax.Array, cache: Any, rows: Rows) -> Cursor:
    # Ties go to the lowest id: argmax returns the first maximum.
    chosen = jnp.argmax(logits, axis=-1).astype(jnp.int32)
    counts = cursor.counts + ~cursor.done
    stopped = jnp.isin(chosen, rows.stops) | (counts >= rows.limits)
    return Cursor(
        step=cursor.step + 1,
        tokens=cursor.tokens.at[:, cursor.step].set(chosen),
        counts=counts,
        done=cursor.done | stopped,
        cache=cache,
    )


def _mask(shape: Shape, start: jax.Array, columns: jax.Array) -> jax.Array:
    """[B, T, P + N]: from each of the T ``columns``, what is not after it and not padding before ``start``
    [B]."""
    keys = jnp.arange(shape.prompt_length + shape.max_new_tokens)
    return (keys[None, None, :] <= columns[None, :, None]) & (keys[None, None, :] >= start[:, None, None])

"""The compiled functions of generation: rows are given a prompt, and all rows go on by some tokens.

Column ``c`` of a row's key/value cache holds position ``c`` of its sequence, whatever other rows hold, so
that a row computes the same wherever and beside whomever it stands.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from flax import nnx

from tunix_rt_evaluator.evaluations.model import Decoding
from tunix_rt_evaluator.worker.engine import Request
from tunix_rt_kit.canonical import canonical_json
from tunix_rt_kit.models.decoder import Caches, Decoder
from tunix_rt_kit.models.hf_folder import MOST_STOPS

_STOPS: Final = MOST_STOPS + 2
_BLOCK = 128
_ONE_AND_MORE = 0x3F800001
"""Bits of the float32 after 1: above every probability."""


def most_probable(logits: jax.Array) -> jax.Array:
    """[R] int32, of logits [R, V]. Ties go to the lowest id: argmax returns the first maximum."""
    return jnp.argmax(logits, axis=-1).astype(jnp.int32)


def sampled(
    logits: jax.Array, keys: jax.Array, counts: jax.Array, temperature: jax.Array, top_p: jax.Array
) -> jax.Array:
    """[R] int32, sampled from logits [R, V] by the inverse of their distribution.

    Args:
        logits: in float32.
        keys: [R, 2] uint32, the key of each row's answer.
        counts: [R], how many tokens of its answer a row has; with the key, all that chance depends on.
        temperature: above 0, what logits are divided by.
        top_p: above 0 and up to 1. Sampled is from the fewest of the most probable tokens whose probabilities
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


@dataclass(frozen=True, slots=True)
class Shape:
    """What functions are compiled for.

    Args:
        rows: answers that are under way together.
        admitted: rows that are given a prompt at once, at most ``rows``.
        chunk: tokens of a prompt that are read at a time.
        prompt_length: tokens of a padded prompt, a multiple of ``chunk``.
        max_new_tokens: most tokens of an answer.
        columns: of the cache.
        sampling: whether tokens are sampled, or the most probable ones taken.
        log_probabilities: whether those of tokens are kept.
    """

    rows: int
    admitted: int
    chunk: int
    prompt_length: int
    max_new_tokens: int
    columns: int
    sampling: bool
    log_probabilities: bool


class Settings(NamedTuple):
    """What may change without compiling again: the tokens that ``stops`` [10] an answer (-1 in unused slots),
    ``temperature`` [] and ``top_p`` []."""

    stops: jax.Array
    temperature: jax.Array
    top_p: jax.Array


class Rows(NamedTuple):
    """R rows, each somewhere in an answer of its own, or idle.

    ``last`` [R] is the newest token of each, which is not in the cache yet; ``filled`` [R] how many columns
    of the cache are, and so its position. ``tokens`` [R, N] are the answer's so far, ``counts`` [R] how many
    they are and ``limits`` [R] how many they may become; ``logs`` [R, N or 0] are their log-probabilities.
    ``keys`` [R, 2] see ``sampled``. ``done`` [R] says that the answer is whole, or the row idle.
    """

    last: jax.Array
    filled: jax.Array
    tokens: jax.Array
    counts: jax.Array
    limits: jax.Array
    logs: jax.Array
    keys: jax.Array
    done: jax.Array
    cache: Caches


class Admission(NamedTuple):
    """Prompts for A rows: ``tokens`` [A, P] padded on the right, ``lengths`` [A], ``limits`` [A], ``keys``
    [A, 2] as of ``Rows``, and which of the ``rows`` [A] take them; one that is out of range takes none."""

    tokens: jax.Array
    lengths: jax.Array
    limits: jax.Array
    keys: jax.Array
    rows: jax.Array


def idle(model: Decoder, shape: Shape) -> Rows:
    """Rows that are all idle."""
    rows, new = shape.rows, shape.max_new_tokens
    return Rows(
        last=jnp.zeros(rows, jnp.int32),
        filled=jnp.zeros(rows, jnp.int32),
        tokens=jnp.zeros((rows, new), jnp.int32),
        counts=jnp.zeros(rows, jnp.int32),
        limits=jnp.zeros(rows, jnp.int32),
        logs=jnp.zeros((rows, new if shape.log_probabilities else 0), jnp.float32),
        keys=jnp.zeros((rows, 2), jnp.uint32),
        done=jnp.ones(rows, bool),
        cache=model.init_cache(rows, shape.columns, _cache_dtype(model)),
    )


def admit(model: Decoder, shape: Shape, settings: Settings, rows: Rows, admission: Admission) -> Rows:
    """Read prompts into rows and choose the first token of each."""
    hidden, cache = _read(model, shape, admission)
    at = admission.rows
    zeros = jnp.zeros_like(at)
    rows = rows._replace(
        filled=rows.filled.at[at].set(admission.lengths, mode="drop"),
        counts=rows.counts.at[at].set(zeros, mode="drop"),
        limits=rows.limits.at[at].set(admission.limits, mode="drop"),
        keys=rows.keys.at[at].set(admission.keys, mode="drop"),
        cache=jax.tree.map(partial(_put, at), rows.cache, cache),
    )
    fresh = _Chosen(*(value[at] for value in (rows.keys, rows.counts, rows.limits)))
    token, log, done = _choose(model.head(hidden), shape, settings, fresh)
    return rows._replace(
        last=rows.last.at[at].set(token, mode="drop"),
        tokens=rows.tokens.at[at, zeros].set(token, mode="drop"),
        logs=rows.logs.at[at, zeros].set(log, mode="drop") if shape.log_probabilities else rows.logs,
        counts=rows.counts.at[at].set(1, mode="drop"),
        done=rows.done.at[at].set(done, mode="drop"),
    )


def go_on(
    model: Decoder, shape: Shape, settings: Settings, rows: Rows, steps: jax.Array, enough: jax.Array
) -> Rows:
    """Add a token to every row that is not done, at most ``steps`` times, until ``enough`` rows are done."""

    def step(carry: tuple[jax.Array, Rows]) -> tuple[jax.Array, Rows]:
        number, rows = carry
        columns = jnp.arange(shape.columns)
        mask = columns[None, None] <= rows.filled[:, None, None]
        cache = _at(rows.cache, rows.filled)
        hidden, filled = model.hidden_states(rows.last[:, None], rows.filled[:, None], cache, mask)
        token, log, done = _choose(
            model.head(hidden[:, 0]), shape, settings, _Chosen(rows.keys, rows.counts, rows.limits)
        )
        going = ~rows.done
        # A row that is done writes behind its answer, where nobody looks.
        at = jnp.where(going, rows.counts, shape.max_new_tokens)
        every = jnp.arange(shape.rows)
        rows = Rows(
            last=jnp.where(going, token, rows.last),
            filled=rows.filled + going,
            tokens=rows.tokens.at[every, at].set(token, mode="drop"),
            logs=rows.logs.at[every, at].set(log, mode="drop") if shape.log_probabilities else rows.logs,
            counts=rows.counts + going,
            limits=rows.limits,
            keys=rows.keys,
            done=rows.done | done,
            cache=filled or {},
        )
        return number + 1, rows

    def more(carry: tuple[jax.Array, Rows]) -> jax.Array:
        return (carry[0] < steps) & (carry[1].done.sum() < enough)

    result: Rows = jax.lax.while_loop(more, step, (jnp.int32(0), rows))[1]
    return result


class _Chosen(NamedTuple):
    """Of each row that a token is chosen for: see ``Rows``."""

    keys: jax.Array
    counts: jax.Array
    limits: jax.Array


def _read(model: Decoder, shape: Shape, admission: Admission) -> tuple[jax.Array, Caches]:
    """Hidden states [A, D] of the last token of each prompt, and a cache of A rows and P columns."""
    admitted, chunk, last = shape.admitted, shape.chunk, admission.lengths - 1
    keys = jnp.arange(shape.prompt_length)

    def read(carry: tuple[jax.Array, jax.Array, Any]) -> tuple[jax.Array, jax.Array, Any]:
        first, hidden, cache = carry
        columns = first + jnp.arange(chunk)
        part = jax.lax.dynamic_slice_in_dim(admission.tokens, first, chunk, axis=1)
        mask = jnp.broadcast_to(keys[None] <= columns[:, None], (admitted, chunk, shape.prompt_length))
        positions = jnp.broadcast_to(columns, (admitted, chunk))
        found, cache = model.hidden_states(part, positions, cache, mask)
        within = jnp.clip(last - first, 0, chunk - 1)
        mine = jnp.take_along_axis(found, within[:, None, None], axis=1)[:, 0]
        hidden = jnp.where((last // chunk == first // chunk)[:, None], mine, hidden)
        return first + chunk, hidden, cache

    hidden = jnp.zeros((admitted, model.description.hidden_size), _dtype(model))
    cache = model.init_cache(admitted, shape.prompt_length, _cache_dtype(model))
    # No chunk is read that is padding in every row, so a prompt costs what it is long.
    _, hidden, cache = jax.lax.while_loop(
        lambda carry: carry[0] < admission.lengths.max(), read, (jnp.int32(0), hidden, cache)
    )
    return hidden, cache


def _put(rows: jax.Array, all_: jax.Array, new: jax.Array) -> jax.Array:
    """An array of ``all_`` rows with those of ``new``, which may be smaller, at the start of ``rows``."""
    return all_.at[(rows, *(slice(size) for size in new.shape[1:]))].set(new, mode="drop")


def _choose(
    logits: jax.Array, shape: Shape, settings: Settings, rows: _Chosen
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The next token of each row, its log-probability, and whether the answer is whole with it."""
    if shape.sampling:
        token = sampled(logits, rows.keys, rows.counts, settings.temperature, settings.top_p)
    else:
        token = most_probable(logits)
    log = log_probability(logits, token) if shape.log_probabilities else jnp.zeros(token.shape)
    done = jnp.isin(token, settings.stops) | (rows.counts + 1 >= rows.limits)
    return token, log, done


def _at(cache: Caches, filled: jax.Array) -> Caches:
    return {name: layer | {"end_index": filled} for name, layer in cache.items()}


def _dtype(model: Decoder) -> Any:
    return model.embedder.input_embedding.dtype


def _cache_dtype(model: Decoder) -> Any:
    """XLA converts all of a bfloat16 cache to float32 and back, on a CPU, to write one column of it."""
    return jnp.float32 if jax.default_backend() == "cpu" else _dtype(model)


@dataclass(slots=True)
class CompiledFunctions:
    """Compiled functions by the shape that they are for, kept while models change: weights are arguments.

    Args:
        graph: the structure that the models share.
        dtype: the type of their weights.
        mesh: see ``tunix_rt_kit.models.pretrained.make_mesh``.
    """

    graph: Any
    dtype: str
    mesh: jax.sharding.Mesh
    _made: dict[Shape, tuple[Any, Any, Any]] = field(default_factory=dict)

    def get(self, shape: Shape, state: Any) -> tuple[Any, Any, Any]:
        """The functions ``idle()``, ``admit(state, settings, rows, admission)`` and ``go_on(state, settings,
        rows, steps, enough)``, compiled if they are not yet."""
        if shape not in self._made:
            self._made[shape] = self._compiled(shape, state)
        return self._made[shape]

    def _compiled(self, shape: Shape, state: Any) -> tuple[Any, Any, Any]:
        with self.mesh:
            empty = jax.jit(partial(self._call, idle, shape)).lower(state).compile()
            rows = jax.eval_shape(partial(self._call, idle, shape), state)
            settings = jax.eval_shape(lambda: settings_of((), Decoding()))
            admission = jax.eval_shape(lambda: admission_of([], shape, 0, [], [], 1))
            number = jax.eval_shape(lambda: jnp.int32(0))
            read = jax.jit(partial(self._call, admit, shape), donate_argnums=2)
            run = jax.jit(partial(self._call, go_on, shape), donate_argnums=2)
            return (
                empty,
                read.lower(state, settings, rows, admission).compile(),
                run.lower(state, settings, rows, number, number).compile(),
            )

    def _call(self, function: Callable[..., Any], shape: Shape, state: Any, *arguments: Any) -> Any:
        return function(nnx.merge(self.graph, state), shape, *arguments)


def settings_of(stop_ids: Sequence[int], decoding: Decoding) -> Settings:
    """The settings of a decoding, whose answers end with one of ``stop_ids``."""
    stops = np.full(_STOPS, -1, np.int32)
    stops[: len(stop_ids)] = stop_ids
    return Settings(jnp.asarray(stops), jnp.float32(decoding.temperature or 1.0), jnp.float32(decoding.top_p))


def admission_of(
    requests: Sequence[Request],
    shape: Shape,
    pad_id: int,
    rows: Sequence[int],
    limits: Sequence[int],
    seed: int,
) -> Admission:
    """Prompts of requests, for ``rows``; unused places hold one of a token, for a row that there is not."""
    size = shape.admitted
    tokens = np.full((size, shape.prompt_length), pad_id, np.int32)
    lengths, most = np.ones(size, np.int32), np.ones(size, np.int32)
    keys, places = np.zeros((size, 2), np.uint32), np.full(size, shape.rows, np.int32)
    for at, request in enumerate(requests):
        ids = request.prompt.ids
        tokens[at, : len(ids)] = ids
        lengths[at], most[at], places[at] = len(ids), limits[at], rows[at]
        keys[at] = _key(seed, request)
    return Admission(*(jnp.asarray(value) for value in (tokens, lengths, most, keys, places)))


def _key(seed: int, request: Request) -> npt.NDArray[np.uint32]:
    """The key of an answer: of the seed, the prompt's tokens and the sample's number, and nothing else."""
    named = canonical_json({"seed": seed, "prompt": request.prompt.digest, "sample": request.sample})
    return np.frombuffer(hashlib.sha256(named).digest()[:8], ">u4").astype(np.uint32)

"""Generation in slots: whichever row has ended its answer is given the next prompt.

Tunix's own Sampler is not used: it computes logits at every position of the prompt, rounds them to the
model's type, cannot be stopped inside a batch, and lets every row wait for the longest answer. The layers are
Tunix's.
"""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from flax import nnx

from tunix_rt_evaluator.evaluations.model import Decoding
from tunix_rt_evaluator.worker.compiled import Admission, Rows, Settings, Shape, admit, go_on, idle
from tunix_rt_evaluator.worker.engine import Request
from tunix_rt_kit.artifacts import canonical_json
from tunix_rt_kit.models.hf_folder import MOST_STOPS

REVISION: Final = 5
"""Raised whenever other tokens could be written than before."""

_STEPS_BETWEEN_CHECKS: Final = 16
_STOPS: Final = MOST_STOPS + 2
_ADMITTED_SHARE: Final = 8
_SHORTEST: Final = 32
# With fewer rows XLA sums in another order on a CPU, and one rounded bit makes another answer.
_FEWEST_ROWS_ON_CPU: Final = 16
# Two chunks of 48 are 96 rows. A CPU computes a fifth more of them a second than of 64, as many as of 128.
_CHUNK_IN_FLOAT32_ON_CPU: Final = 48
_CHUNKS: Final = (64, 48, 32)
# Two prompts fill a CPU's products as well as more do, and more would wait for each other.
_ADMITTED_ON_CPU: Final = 2


@dataclass(frozen=True, slots=True)
class Output:
    """New tokens of one answer, the one that stopped it included, and their log-probabilities if they were
    asked for; ``seconds`` is the share that the answer had of the time of all rows."""

    request: Request
    ids: tuple[int, ...]
    log_probabilities: tuple[float, ...]
    stopped: bool
    seconds: float


@dataclass(slots=True)
class _Place:
    """A request that a row works at."""

    request: Request
    seconds: float = 0.0


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
            settings = jax.eval_shape(lambda: _settings((), Decoding()))
            admission = jax.eval_shape(lambda: _admission([], shape, 0, [], [], 1))
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


class Generator:
    """Completes requests with one model.

    Args:
        state: the model's weights, without LoRA.
        compiled: of its structure.
        decoding: how.
        stop_ids: at most 10 tokens, each of which ends an answer.
        pad_id: fills prompts; nothing attends to it.
        context_length: most tokens of a sequence, prompt included.
        longest: tokens of the longest prompt.
    """

    def __init__(
        self,
        state: Any,
        compiled: CompiledFunctions,
        decoding: Decoding,
        *,
        stop_ids: Sequence[int],
        pad_id: int,
        context_length: int,
        longest: int,
    ) -> None:
        self._state = state
        self._decoding = decoding
        self._stops = tuple(stop_ids)
        self._pad_id = pad_id
        self._context_length = context_length
        self._settings = _settings(stop_ids, decoding)
        rows, admitted = _sizes(decoding.batch_size)
        chunk = _chunk(compiled.dtype, longest)
        prompt_length = -(-bucket(longest) // chunk) * chunk
        self._shape = Shape(
            rows=rows,
            admitted=admitted,
            chunk=chunk,
            prompt_length=prompt_length,
            max_new_tokens=min(decoding.max_new_tokens, context_length),
            columns=max(prompt_length, min(bucket(longest) + decoding.max_new_tokens, context_length)),
            sampling=decoding.temperature > 0,
            log_probabilities=decoding.log_probabilities,
        )
        self._idle, self._admit, self._go_on = compiled.get(self._shape, state)

    def run(self, requests: Sequence[Request], check: Callable[[], None]) -> Iterator[Output]:
        """Complete the requests, each as soon as it is done.

        Args:
            requests: with prompts of at most ``longest`` tokens.
            check: called every few steps; what it raises ends the run.
        """
        # Long prompts first: what is admitted together is of like length, and the last to end are short.
        queue = deque(sorted(requests, key=lambda request: -len(request.prompt.ids)))
        places: dict[int, _Place] = {}
        rows: Rows = self._idle(self._state)
        while queue or places:
            check()
            started = time.perf_counter()
            rows = self._fill(rows, queue, places)
            # Reading prompts one by one costs more than a few idle rows do.
            enough = min(self._shape.admitted, len(queue)) or self._shape.rows
            rows = self._go_on(
                self._state, self._settings, rows, np.int32(_STEPS_BETWEEN_CHECKS), np.int32(enough)
            )
            done = np.asarray(rows.done)
            share = (time.perf_counter() - started) / len(places)
            for place in places.values():
                place.seconds += share
            ended = [row for row in places if done[row]]
            if ended:
                yield from self._outputs(rows, {row: places.pop(row) for row in ended})

    def _fill(self, rows: Rows, queue: deque[Request], places: dict[int, _Place]) -> Rows:
        free = [row for row in range(self._shape.rows) if row not in places]
        while queue and len(free) >= min(self._shape.admitted, len(queue)):
            taken = [queue.popleft() for _ in range(min(self._shape.admitted, len(queue)))]
            given, free = free[: len(taken)], free[len(taken) :]
            places.update(zip(given, map(_Place, taken), strict=True))
            limits = [self._limit(request) for request in taken]
            admission = _admission(taken, self._shape, self._pad_id, given, limits, self._decoding.seed)
            rows = self._admit(self._state, self._settings, rows, admission)
        return rows

    def _limit(self, request: Request) -> int:
        return min(self._shape.max_new_tokens, self._context_length - len(request.prompt.ids))

    def _outputs(self, rows: Rows, places: Mapping[int, _Place]) -> Iterator[Output]:
        tokens, counts, logs = (np.asarray(value) for value in (rows.tokens, rows.counts, rows.logs))
        for row, place in places.items():
            count = int(counts[row])
            ids = tuple(int(token) for token in tokens[row, :count])
            kept = tuple(float(log) for log in logs[row, :count])
            yield Output(place.request, ids, kept, ids[-1] in self._stops, place.seconds)


def bucket(length: int) -> int:
    """The least of 32, 64, 96, 128, 192, 256, 384, ... that is not below ``length``.

    Few shapes mean few compilations, and steps of at most a half mean that little of the cache is padding.
    """
    found = _SHORTEST
    while found < length:
        grown = found * 3 // 2 if found & (found - 1) == 0 else found * 4 // 3
        found = -(-grown // _SHORTEST) * _SHORTEST
    return found


def _sizes(batch_size: int) -> tuple[int, int]:
    """How many rows there are, and how many of them are given a prompt at once."""
    if jax.default_backend() == "cpu":
        return max(batch_size, _FEWEST_ROWS_ON_CPU), _ADMITTED_ON_CPU
    return batch_size, max(1, batch_size // _ADMITTED_SHARE)


def _chunk(dtype: str, longest: int) -> int:
    """How many tokens of a prompt are read at a time: padding is read as well, up to the next chunk."""
    if jax.default_backend() == "cpu" and dtype == "float32":
        return _CHUNK_IN_FLOAT32_ON_CPU
    return next(chunk for chunk in _CHUNKS if bucket(longest) % chunk == 0)


def _settings(stop_ids: Sequence[int], decoding: Decoding) -> Settings:
    stops = np.full(_STOPS, -1, np.int32)
    stops[: len(stop_ids)] = stop_ids
    return Settings(jnp.asarray(stops), jnp.float32(decoding.temperature or 1.0), jnp.float32(decoding.top_p))


def _admission(
    requests: Sequence[Request],
    shape: Shape,
    pad_id: int,
    rows: Sequence[int],
    limits: Sequence[int],
    seed: int,
) -> Admission:
    """Unused places hold a prompt of one token, for a row that there is not."""
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

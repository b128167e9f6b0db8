"""The engine that runs a model in this process: generation in slots over Tunix's layers.

Whichever row has ended its answer is given the next prompt. Tunix's own Sampler is not used: it computes
logits at every position of the prompt, rounds them to the model's type, cannot be stopped inside a batch, and
lets every row wait for the longest answer.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import jax
import numpy as np
from flax import nnx

from tunix_rt_evaluator.evaluations.job_folders import WorkerItem, WorkerSpec
from tunix_rt_evaluator.evaluations.model import Decoding, Generation, ModelFacts
from tunix_rt_evaluator.grading.model import Answer
from tunix_rt_evaluator.grading.reading.calls import call_form, call_probe, unreadable
from tunix_rt_evaluator.worker.compiled import CompiledFunctions, Rows, Shape, admission_of, settings_of
from tunix_rt_evaluator.worker.engine import Completion, Prompt, Report, Request, read_prompts
from tunix_rt_kit.chat import ChatTemplate
from tunix_rt_kit.errors import FailedPrecondition
from tunix_rt_kit.models.decoder import Decoder
from tunix_rt_kit.models.hf_folder import ADAPTER_CONFIG_FILE, read_stop_ids, stored_dtype
from tunix_rt_kit.models.lora import merge_lora
from tunix_rt_kit.models.pretrained import load_model, make_mesh, rebuilt
from tunix_rt_kit.models.runtime import (
    advising,
    chosen_dtype,
    device,
    package_versions,
    processor,
    runtime_settings,
)
from tunix_rt_kit.models.store import BaseModelInfo, ModelStore
from tunix_rt_kit.models.tokenizer import load_tokenizer, stop_ids

REVISION: Final = 5
"""Raised whenever other tokens could be written than before."""

_STEPS_BETWEEN_CHECKS: Final = 16
_ADMITTED_SHARE: Final = 8
_SHORTEST: Final = 32
# With fewer rows XLA sums in another order on a CPU, and one rounded bit makes another answer.
_FEWEST_ROWS_ON_CPU: Final = 16
# Two chunks of 48 are 96 rows. A CPU computes a fifth more of them a second than of 64, as many as of 128.
_CHUNK_IN_FLOAT32_ON_CPU: Final = 48
_CHUNKS: Final = (64, 48, 32)
# Two prompts keep a CPU's kernels as busy as more do, and more would wait for each other.
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
        self._settings = settings_of(stop_ids, decoding)
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

    def speed(
        self, requests: Sequence[Request], seconds: float, check: Callable[[], None]
    ) -> tuple[float, float, int]:
        """Seconds of reading the prompts of all rows, seconds of writing behind them, and tokens written.

        Nothing stops an answer but its limit, or that all took ``seconds``.
        """
        endless = settings_of((), self._decoding)
        rows: Rows = self._idle(self._state)
        began = time.perf_counter()
        rows = self._fill(rows, deque(requests), {})
        before, written = int(np.asarray(rows.counts).sum()), 0
        read = time.perf_counter()
        while time.perf_counter() - read < seconds and not np.asarray(rows.done)[: len(requests)].all():
            check()
            steps, all_rows = np.int32(_STEPS_BETWEEN_CHECKS), np.int32(self._shape.rows)
            rows = self._go_on(self._state, endless, rows, steps, all_rows)
            written = int(np.asarray(rows.counts).sum()) - before
        return read - began, time.perf_counter() - read, written

    def _fill(self, rows: Rows, queue: deque[Request], places: dict[int, _Place]) -> Rows:
        free = [row for row in range(self._shape.rows) if row not in places]
        while queue and len(free) >= min(self._shape.admitted, len(queue)):
            taken = [queue.popleft() for _ in range(min(self._shape.admitted, len(queue)))]
            given, free = free[: len(taken)], free[len(taken) :]
            places.update(zip(given, map(_Place, taken), strict=True))
            limits = [self._limit(request) for request in taken]
            admission = admission_of(taken, self._shape, self._pad_id, given, limits, self._decoding.seed)
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


def engine_name() -> str:
    """The engine and its version, such as ``tunix/0.1.7-slots.3``."""
    return f"tunix/{metadata.version('google-tunix')}-slots.{REVISION}"


class Loaded:
    """The base model that this process holds between evaluations, and what was compiled for it."""

    def __init__(self) -> None:
        self._mesh = make_mesh()
        self._key: tuple[Path, str | None, str | None] | None = None
        self._base: BaseWeights | None = None
        self._compiled: list[CompiledFunctions] = []

    def state(
        self, info: BaseModelInfo, checkpoint: Path | None, dtype: str
    ) -> tuple[Any, CompiledFunctions]:
        """The weights to evaluate, and the compiled functions of their structure.

        Raises what ``BaseWeights`` raises.
        """
        key = info.path, info.weights_digest, info.config_digest
        if self._base is None or self._key != key:
            self._base, self._compiled = None, []
            self._base, self._key = BaseWeights(info.path, self._mesh), key
        graph, state = nnx.split(self._base.model(checkpoint, dtype))
        for compiled in self._compiled:
            if compiled.graph == graph and compiled.dtype == dtype:
                return state, compiled
        self._compiled.append(CompiledFunctions(graph, dtype, self._mesh))
        return state, self._compiled[-1]


class LocalEngine:
    """Tunix's model of a base model or a checkpoint; see ``tunix_rt_evaluator.worker.engine.Engine``.

    Args:
        spec: what is evaluated.
        checkpoint: the folder of its checkpoint.
        loaded: what this process holds.
        report: told of a pull.

    Raises:
        FailedPrecondition: BASE_MODEL_MISMATCH, CHAT_TEMPLATE_MISSING, CHAT_TEMPLATE_MISMATCH.
        DomainError: the base model cannot be had, see ``ModelStore``.
    """

    keeps = True

    def __init__(self, spec: WorkerSpec, checkpoint: Path | None, loaded: Loaded, report: Report) -> None:
        self._spec = spec
        self._checkpoint = checkpoint
        self._loaded = loaded
        self._dtype = chosen_dtype(spec.dtype or "auto")
        self._info = _pulled(spec, report)
        self._template = _template(spec, self._info)
        self._tokenizer = load_tokenizer(self._info.path)
        self._stops = stop_ids(
            self._template, self._tokenizer, read_stop_ids(self._info.path, self._info.vocab_size)
        )
        self._longest = 1
        self._generator: Generator | None = None

    @property
    def facts(self) -> ModelFacts:
        """See ``Engine``."""
        merged = self._checkpoint is not None and is_adapter(self._checkpoint)
        return ModelFacts(
            base_weights_digest=self._info.weights_digest or "",
            base_config_digest=self._info.config_digest or "",
            tokenizer_digest=self._info.tokenizer_digest or "",
            chat_template=self._template.fields,
            chat_template_digest=self._template.digest,
            dtype=self._dtype,
            engine=engine_name(),
            package_versions=package_versions(),
            runtime_settings=runtime_settings() | ({"adapter": "merged in float32"} if merged else {}),
            device=device(),
            code_revision=self._spec.code_revision,
        )

    @property
    def identity(self) -> Mapping[str, Any]:
        """See ``Engine``; settled once the prompts were read, as the sizes of arrays hang on the longest."""
        facts, decoding = self.facts, self._spec.decoding
        return {
            "engine": facts.engine,
            "packages": dict(facts.package_versions),
            "settings": dict(facts.runtime_settings),
            "device": facts.device,
            "processor": processor(),
            "code_revision": facts.code_revision,
            "base_weights": facts.base_weights_digest,
            "base_config": facts.base_config_digest,
            "checkpoint": self._spec.checkpoint_digest,
            "dtype": self._dtype,
            "tokenizer": facts.tokenizer_digest,
            "chat_template": facts.chat_template_digest,
            "stops": list(self._stops),
            "decoding": decoding.model_dump(mode="json", exclude={"samples"}),
            "prompt_length": bucket(self._longest),
        }

    def read(self, items: Sequence[WorkerItem]) -> tuple[list[Prompt], list[Generation]]:
        """See ``Engine``; raises as ``read_prompts``, and FailedPrecondition(TOOL_CALLS_UNREADABLE)."""
        if self._spec.reads_calls:
            self._check_calls()
        prompts, failed = read_prompts(
            items,
            self._template,
            self._tokenizer,
            context_length=self._info.context_length,
            vocab_size=self._info.vocab_size,
        )
        self._longest = max((len(prompt.ids) for prompt in prompts), default=1)
        return prompts, failed

    def _check_calls(self) -> None:
        probe = call_probe(self._template.fields)
        if probe is None:
            call_form(self._template.fields)
        elif not probe.is_read_from(self._tokenizer.decode(self._tokenizer.encode(probe.turn))):
            # Such as marks that are special tokens, which stand in no output.
            raise unreadable("writes calls of tools in texts that the tokenizer does not give back")

    def prepare(self, report: Report) -> None:
        """See ``Engine``; raises what ``BaseWeights.model`` raises, and ResourceExhausted(OUT_OF_MEMORY)."""
        report("loading the model", 0, 0, "")
        with advising(self._too_much):
            state, compiled = self._loaded.state(self._info, self._checkpoint, self._dtype)
            report("compiling", 0, 0, "")
            self._generator = Generator(
                state,
                compiled,
                self._spec.decoding,
                stop_ids=self._stops,
                pad_id=self._tokenizer.pad_id(),
                context_length=self._info.context_length,
                longest=self._longest,
            )

    def complete(self, requests: Sequence[Request], check: Callable[[], None]) -> Iterator[Completion]:
        """See ``Engine``; raises ResourceExhausted(OUT_OF_MEMORY)."""
        if self._generator is None:
            raise RuntimeError("prepare comes before complete")
        with advising(self._too_much):
            for output in self._generator.run(requests, check):
                yield self._completion(output)

    def speed(
        self, requests: Sequence[Request], seconds: float, check: Callable[[], None]
    ) -> tuple[float, float, int]:
        """As ``Generator.speed``; raises ResourceExhausted(OUT_OF_MEMORY)."""
        if self._generator is None:
            raise RuntimeError("prepare comes before speed")
        with advising(self._too_much):
            return self._generator.speed(requests, seconds, check)

    @property
    def _too_much(self) -> str:
        decoding = self._spec.decoding
        return (
            f"{self._dtype} weights and {decoding.batch_size} answers of up to "
            f"{decoding.max_new_tokens} tokens do not fit into the device's memory; a smaller "
            "decoding.batch_size or decoding.max_new_tokens takes less"
        )

    def _completion(self, output: Output) -> Completion:
        if all(map(math.isfinite, output.log_probabilities)):
            return Completion(output.request, self._answer(output), output.seconds)
        error = "the model's log-probabilities are no finite numbers: its weights overflow in this type"
        return Completion(output.request, None, output.seconds, error)

    def _answer(self, output: Output) -> Answer:
        return Answer(
            output=self._tokenizer.decode(output.ids[:-1] if output.stopped else output.ids),
            output_tokens=len(output.ids),
            finish_reason="stop" if output.stopped else "length",
            log_probabilities=output.log_probabilities,
        )


def _pulled(spec: WorkerSpec, report: Report) -> BaseModelInfo:
    store = ModelStore(spec.models_dir)
    info = store.resolve(spec.base_model)
    if not info.pulled:
        info = store.ensure(
            spec.base_model,
            lambda _, completed, total: report("pulling the model", completed, total, "bytes"),
        )
    expected = spec.base_weights_digest
    if expected is not None and info.weights_digest != expected:
        raise FailedPrecondition(
            f"base model {spec.base_model!r} is here with weights {info.weights_digest}; the checkpoint "
            f"was trained on {expected}",
            reason="BASE_MODEL_MISMATCH",
            metadata={"base_model": spec.base_model},
        )
    return info


def _template(spec: WorkerSpec, info: BaseModelInfo) -> ChatTemplate:
    if spec.chat_template is not None:
        return ChatTemplate.of(spec.chat_template)
    if info.chat_template is None or info.eos_token is None:
        raise FailedPrecondition(
            f"base model {info.id!r} has no chat template of its own; name one, such as the built-in chatml",
            reason="CHAT_TEMPLATE_MISSING",
            metadata={"base_model": info.id},
        )
    return ChatTemplate.from_jinja(
        info.chat_template, eos_token=info.eos_token, bos_token=info.bos_token or ""
    )


class BaseWeights:
    """A base model that stays loaded, as exactly as it is stored, while adapters come and go.

    An adapter is merged: a tuned model then runs by the same functions and as fast as its base. A checkpoint
    that is a whole model needs no base, and has none loaded.
    """

    def __init__(self, folder: Path, mesh: jax.sharding.Mesh) -> None:
        self._folder = folder
        self._mesh = mesh
        self._loaded: Decoder | None = None

    def model(self, checkpoint: Path | None, dtype: str) -> Decoder:
        """The base model, or one that was trained from it, with weights of ``dtype``.

        ``checkpoint`` is a folder with a whole model in Hugging Face's layout, or with an adapter in PEFT's.

        Raises what ``load_model`` and ``merge_lora`` raise.
        """
        if checkpoint is not None and not is_adapter(checkpoint):
            model = load_model(checkpoint, dtype=dtype, mesh=self._mesh)
        else:
            base = self._base()
            with self._mesh:
                if checkpoint is not None:
                    model = merge_lora(base, checkpoint, dtype=dtype)
                else:
                    model = rebuilt(base, nnx.state(base).to_pure_dict(), dtype=dtype)
        model.only_run()
        return model

    def _base(self) -> Decoder:
        if self._loaded is None:
            dtype = stored_dtype(self._folder)
            self._loaded = load_model(self._folder, dtype=dtype, mesh=self._mesh)
        return self._loaded


def is_adapter(checkpoint: Path) -> bool:
    """Whether the folder of a checkpoint has an adapter in it, and no whole model."""
    return (checkpoint / ADAPTER_CONFIG_FILE).is_file()

"""How long an optimizer step takes on this host: real steps on made-up rows, for some seconds."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Final

import jax
import numpy as np
from tunix.sft.hooks import DataHooks

from tunix_rt_kit.jobs.child import JobDir
from tunix_rt_kit.models import runtime
from tunix_rt_kit.models.store import ModelStore
from tunix_rt_trainer.jobs.admission import advice, rows_at_a_time
from tunix_rt_trainer.jobs.model import TrainingSpec, TrainingSpeed
from tunix_rt_trainer.worker.batches import Batch
from tunix_rt_trainer.worker.network import build_network, dividing, make_mesh
from tunix_rt_trainer.worker.step import StepResult, StepTrainer, make_optimizer

_SECONDS: Final = 5.0
_LEAST_STEPS: Final = 2
# A CPU takes about as long for each row however many there are; a whole batch of them may take a minute.
_ROWS_ON_CPU: Final = 2
# What share of the tokens of a row is learned.
_LEARNED: Final = 0.5


def measure(job: JobDir) -> None:
    """Measure what the job's spec asks for, and tell it as the event ``speed``. Raises DomainError."""
    began = time.monotonic()
    asked = job.spec
    spec = TrainingSpec.model_validate(asked["spec"])
    spec = spec.model_copy(update={"dtype": runtime.chosen_dtype(spec.dtype)})
    model = ModelStore(Path(asked["models_dir"])).ensure(spec.base_model, lambda *_: None)
    mesh = make_mesh(spec.mesh)
    problem = f"{rows_at_a_time(spec)} do not fit into the device's memory; {advice(spec)}"
    with runtime.advising(problem), dividing(spec.mesh):
        network = build_network(model.path, spec, mesh)
        loaded = time.monotonic()
        rows = _rows(spec)
        steps = _Steps(_made_up(rows, spec.max_length, model.vocab_size), job)
        trainer = StepTrainer(
            network,
            make_optimizer(spec.optimizer, 1 << 20),
            microbatches=1,
            hooks=steps,
            dispatched=steps.took,
        )
        del network
        with mesh:
            trainer.prepare(mesh, None)
            trainer.train()
    seconds = sum(steps.durations)
    speed = TrainingSpeed(
        step_duration_s=seconds / len(steps.durations) * spec.rows_per_batch / rows,
        load_duration_s=loaded - began,
        compile_duration_s=steps.compiled - loaded,
        rows=rows,
        steps=len(steps.durations),
        measured_duration_s=seconds,
        dtype=spec.dtype,
        device=runtime.device(),
    )
    job.emit("speed", **speed.model_dump(mode="json"))


def _rows(spec: TrainingSpec) -> int:
    at_a_time = spec.rows_per_batch // spec.gradient_accumulation_steps
    if jax.default_backend() != "cpu":
        return at_a_time
    # Devices share the rows.
    return min(at_a_time, max(_ROWS_ON_CPU, spec.mesh.fsdp))


def _made_up(rows: int, length: int, vocab_size: int) -> Batch:
    """A batch of whole rows of tokens by chance."""
    dice = np.random.default_rng(0)
    tokens = dice.integers(0, vocab_size, (rows, length), np.int32)
    learned = max(1, int(rows * length * _LEARNED))
    places = np.arange(learned, dtype=np.int32) * 2 % (rows * length)
    arrays = {
        "tokens": tokens,
        "positions": np.tile(np.arange(length, dtype=np.int32), (rows, 1)),
        "segments": np.ones((rows, length), np.int32),
        "supervised": places,
        "labels": dice.integers(0, vocab_size, learned, np.int32),
        "weights": np.ones(learned, np.float32),
    }
    return Batch(arrays=arrays, example_ids=(), tokens=rows * length, supervised_tokens=learned)


class _Steps(DataHooks):  # type: ignore[misc]
    """Gives the same batch until enough steps were measured; the first one, with its compiling, is none."""

    def __init__(self, batch: Batch, job: JobDir) -> None:
        self._batch = batch
        self._job = job
        self._result: StepResult | None = None
        self._started = 0.0
        self._first = True
        self.compiled = 0.0
        self.durations: list[float] = []

    def took(self, result: StepResult) -> None:
        """A step was dispatched, the first one after it was compiled."""
        self._result = result
        if not self.compiled:
            self.compiled = time.monotonic()

    def load_next_train_batch(self, train_ctx: Any) -> Any:
        """The batch, or None when enough was measured."""
        del train_ctx
        if self._result is not None:
            float(self._result["loss"])
            if not self._first:
                self.durations.append(time.monotonic() - self._started)
            self._first = False
        self._job.check_cancelled()
        if len(self.durations) >= _LEAST_STEPS and sum(self.durations) >= _SECONDS:
            return None
        self._started = time.monotonic()
        return self._batch.arrays

    def load_next_eval_batch(self, train_ctx: Any) -> None:
        """Nothing: nothing is validated."""
        del train_ctx

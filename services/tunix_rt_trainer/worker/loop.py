"""The training loop: Tunix's PeftTrainer, fed and watched step by step."""

from __future__ import annotations

import hashlib
import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx
from tunix.sft import sharding_utils
from tunix.sft.hooks import DataHooks
from tunix.sft.peft_trainer import PeftTrainer, TrainingConfig

from tunix_rt_kit.artifacts import canonical_json
from tunix_rt_kit.errors import FailedPrecondition
from tunix_rt_trainer.model import StepMetrics
from tunix_rt_trainer.worker.batches import Batch, BatchSource
from tunix_rt_trainer.worker.network import SupervisedLlama, loss
from tunix_rt_trainer.worker.reporter import Reporter

_DATA_AXES = ("fsdp",)
_ETA_STEPS = 10
_NEVER = 1 << 62


@dataclass(frozen=True, slots=True)
class LoopPlan:
    """What to feed, and when to measure the validation loss: at interval 0 only after the last step."""

    train: BatchSource
    validation: BatchSource | None
    validation_batches: int
    validation_interval_steps: int
    max_steps: int
    learning_rate: optax.Schedule


class _Trainer(PeftTrainer):  # type: ignore[misc]
    """PeftTrainer whose step gives loss and gradient norm to its maker as soon as it was dispatched."""

    dispatched: Callable[[dict[str, jax.Array]], None]

    def create_train_step_fn(self) -> Callable[..., tuple[Any, Any, Any]]:
        def step(model: nnx.Module, optimizer: nnx.Optimizer[Any], inputs: Any) -> tuple[Any, Any, Any]:
            value, _, grad_norm = self._train_step(model, optimizer, inputs)
            return value, {"loss": value, "grad_norm": grad_norm}, grad_norm

        return step

    def _post_process_train_step(self, aux: dict[str, jax.Array]) -> None:
        self.dispatched(aux)


@dataclass
class TrainingLoop(DataHooks):  # type: ignore[misc]
    """Runs ``plan`` on ``network``; ``history`` holds the metrics of the steps that were taken.

    PeftTrainer asks for the next batch when a step was dispatched. That is the one moment at which the step
    can be waited for, measured and told of without the lag of PeftTrainer's own hooks.
    """

    network: SupervisedLlama
    optimizer: optax.GradientTransformation
    plan: LoopPlan
    reporter: Reporter
    history: list[StepMetrics] = field(default_factory=list)

    def __post_init__(self) -> None:
        # Steps end when there is no next batch; Tunix's own limit would bring its progress bar with it.
        self._trainer = _Trainer(
            self.network, self.optimizer, TrainingConfig(eval_every_n_steps=_NEVER, max_steps=None)
        )
        self._trainer.dispatched = self._dispatched
        self._trainer.with_loss_fn(loss, has_aux=True)
        self._trainer.with_data_hooks(self)
        self._fed: Batch | None = None
        self._result: dict[str, jax.Array] = {}
        self._started = 0.0
        self._durations: deque[float] = deque(maxlen=_ETA_STEPS)
        self._order = hashlib.sha256()

    @property
    def data_order_digest(self) -> str:
        """Digest of the ids of the examples that were fed: for each batch a line with its rows of ids."""
        return f"sha256:{self._order.hexdigest()}"

    def run(self, mesh: jax.sharding.Mesh) -> None:
        """Train to the last step.

        Raises:
            FailedPrecondition: LOSS_NOT_FINITE, naming the step and the examples of its batch.
            JobCancelled: between two steps.
        """
        self.reporter.stage("compiling")
        with mesh:
            self._trainer.train(())

    def load_next_train_batch(self, train_ctx: Any) -> dict[str, Any] | None:
        """Finish the step that was dispatched last, if any, and give the arrays of the next batch."""
        step: int = train_ctx.iter_steps
        if self._fed is not None:
            self._finish(step, self._fed)
        if step == self.plan.max_steps:
            return None
        self.reporter.check_cancelled()
        self._fed = self.plan.train.batch(step)
        self._order.update(canonical_json(self._fed.example_ids) + b"\n")
        self._started = time.monotonic()
        return self._fed.arrays

    def load_next_eval_batch(self, train_ctx: Any) -> None:
        """Nothing: validation is run by ``validate``, which weighs batches by their tokens."""
        del train_ctx

    def validate(self) -> float:
        """Mean cross-entropy in nats over all supervised tokens of the validation split."""
        _, evaluate = self._trainer.jit_train_and_eval_step(cache_nnx_graph=True)
        nll, weight = 0.0, 0.0
        for batch in self._validation_batches():
            _, sums = evaluate(sharding_utils.shard_input(batch.arrays, _DATA_AXES))
            nll += float(sums["nll_sum"])
            weight += float(sums["weight_sum"])
        return nll / weight

    def _dispatched(self, result: dict[str, jax.Array]) -> None:
        self._result = result
        if not self.history:
            # Dispatch of the first step returns when it is compiled, and the computation goes on.
            self._started = time.monotonic()
            self.reporter.stage("training", self.plan.max_steps, "steps")

    def _finish(self, step: int, batch: Batch) -> None:
        mean, grad_norm = float(self._result["loss"]), float(self._result["grad_norm"])
        duration = time.monotonic() - self._started
        self._require_finite(step, mean, grad_norm, batch)
        if step == 2:
            # The first step touches fresh memory and is no measure of those to come.
            self._durations.clear()
        self._durations.append(duration)
        eta = (self.plan.max_steps - step) * sum(self._durations) / len(self._durations)
        metrics = StepMetrics(
            step=step,
            loss=mean,
            learning_rate=float(np.asarray(self.plan.learning_rate(step - 1))),
            grad_norm=grad_norm,
            supervised_tokens=batch.supervised_tokens,
            tokens=batch.tokens,
            tokens_per_second=batch.tokens / duration,
            step_duration_s=duration,
            eta_s=eta,
            validation_loss=self._validation_loss(step),
        )
        self.history.append(metrics)
        self.reporter.metrics(metrics)
        self.reporter.progress(step, self.plan.max_steps, eta)

    def _require_finite(self, step: int, mean: float, grad_norm: float, batch: Batch) -> None:
        if math.isfinite(mean) and math.isfinite(grad_norm):
            return
        ids = [name for row in batch.example_ids for name in row]
        raise FailedPrecondition(
            f"step {step}: loss is {mean} and gradient norm {grad_norm}; lower the learning rate, or look at "
            f"the {len(ids)} examples of its batch, the first of which is {ids[0]}",
            reason="LOSS_NOT_FINITE",
            metadata={"step": str(step), "first_example_id": ids[0]},
        )

    def _validation_loss(self, step: int) -> float | None:
        last, interval = step == self.plan.max_steps, self.plan.validation_interval_steps
        if self.plan.validation is None or not (last or (interval and step % interval == 0)):
            return None
        value = self.validate()
        self.reporter.stage("training", self.plan.max_steps, "steps")
        return value

    def _validation_batches(self) -> Iterator[Batch]:
        if self.plan.validation is None:
            return
        total = self.plan.validation_batches
        self.reporter.stage("validating", total, "batches")
        for index in range(total):
            yield self.plan.validation.batch(index)
            self.reporter.progress(index + 1, total)

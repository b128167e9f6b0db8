"""The training process: from a spec, or from the state that another attempt saved, to the checkpoint.

It reads top to bottom: the job, its loop, and what its validation losses decide.
"""

from __future__ import annotations

import gc
import math
import time
from collections import deque
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
import optax
from tunix.sft.hooks import DataHooks

from tunix_rt_kit.errors import FailedPrecondition
from tunix_rt_kit.jobs.child import JobCancelled, JobDir
from tunix_rt_kit.models import runtime
from tunix_rt_kit.models.decoder import Decoder
from tunix_rt_kit.models.runtime import give_back_memory
from tunix_rt_kit.models.store import BaseModelInfo, ModelStore
from tunix_rt_trainer.checkpoints.model import LEDGER_FILE, TrainingManifest
from tunix_rt_trainer.jobs.admission import advice, rows_at_a_time
from tunix_rt_trainer.jobs.model import EarlyStopping, StepMetrics, WorkerSpec
from tunix_rt_trainer.worker.batches import Batch, BatchSource
from tunix_rt_trainer.worker.data import DataPreparation, LoopPlan
from tunix_rt_trainer.worker.network import build_network, dividing, make_mesh
from tunix_rt_trainer.worker.reporter import Ledger, MetricsSinks, Reporter
from tunix_rt_trainer.worker.states import FOLDER, JobKeeper, SavedState, StateStore, identity
from tunix_rt_trainer.worker.step import StepResult, StepTrainer, make_optimizer


def run(job: JobDir) -> None:
    """Do the job of a folder; checkpoints are left under ``checkpoints/`` and told of by events.

    It resumes from the latest whole state that an earlier attempt left in the folder and ends in the same
    bytes as if there had been one attempt. A cancelled job leaves the checkpoint of its last step too.

    Raises:
        DomainError: what is wrong with model, data or settings.
        JobCancelled: the job was cancelled.
    """
    worker, reporter = _with_dtype(WorkerSpec.model_validate(job.spec)), Reporter(job)
    spec = worker.spec
    mesh = make_mesh(spec.mesh)
    model = _ensure_model(worker, reporter)
    plan = DataPreparation(worker, model, job.path, reporter).plan()
    manifest = _manifest(worker, model, plan, mesh)
    states = StateStore(job.path / FOLDER, identity(manifest, worker), reporter.log)
    state = states.latest()
    _tell_where_it_begins(worker, state, reporter)
    step = 0 if state is None else state.step
    ledger = Ledger(job.path / LEDGER_FILE, plan.train, step)
    reporter.stage("loading the model")
    problem = f"{rows_at_a_time(spec)} do not fit into the device's memory; {advice(spec)}"
    with runtime.advising(problem), dividing(spec.mesh), _sinks(worker, job, step, reporter):
        network = build_network(model.path, spec, mesh)
        keeper = JobKeeper(worker, manifest, ledger, states, model.path, job.path, reporter)
        optimizer = make_optimizer(spec.optimizer, plan.max_steps)
        loop = TrainingLoop(network, optimizer, plan, reporter, keeper, ledger, state)
        # They hold as much as weights and optimizer take.
        del network, state
        # Modules refer to each other in circles.
        gc.collect()
        loop.run(mesh)


def _with_dtype(worker: WorkerSpec) -> WorkerSpec:
    dtype = runtime.chosen_dtype(worker.spec.dtype)
    return worker.model_copy(update={"spec": worker.spec.model_copy(update={"dtype": dtype})})


def _sinks(worker: WorkerSpec, job: JobDir, resumed: int, reporter: Reporter) -> MetricsSinks:
    sinks = MetricsSinks(
        worker.metrics_to,
        job.path,
        worker.job_name,
        worker.spec,
        tell=reporter.log,
        resumed=resumed,
    )
    reporter.listen(sinks.write)
    return sinks


def _tell_where_it_begins(worker: WorkerSpec, state: SavedState | None, reporter: Reporter) -> None:
    if state is not None:
        reporter.resumed(state.step)
        reporter.log(f"attempt {worker.attempt} goes on after step {state.step}")
    elif worker.attempt > 1:
        reporter.log(f"attempt {worker.attempt} starts from the beginning")


def _ensure_model(worker: WorkerSpec, reporter: Reporter) -> BaseModelInfo:
    current = ""

    def pulled(stage: str, done: int, total: int) -> None:
        nonlocal current
        if stage != current:
            current = stage
            unit = "tensors" if stage == "convert" else "bytes"
            reporter.stage(f"pulling the base model: {stage}", total, unit)
        reporter.progress(done, total)

    reporter.stage("checking the base model")
    return ModelStore(worker.models_dir).ensure(worker.spec.base_model, pulled)


def _manifest(
    worker: WorkerSpec, model: BaseModelInfo, plan: LoopPlan, mesh: jax.sharding.Mesh
) -> TrainingManifest:
    return TrainingManifest(
        training_job=worker.job_name,
        spec=worker.spec.model_copy(update={"max_steps": plan.max_steps}),
        dataset_digest=worker.inputs.dataset_digest,
        train_file_digest=worker.inputs.train.digest,
        base_weights_digest=model.weights_digest or "",
        tokenizer_digest=model.tokenizer_digest or "",
        base_config_digest=model.config_digest or "",
        chat_template_digest=worker.inputs.chat_template_digest,
        data_order_digest="",
        package_versions=runtime.package_versions(),
        runtime_settings=runtime.runtime_settings(),
        device=runtime.device(),
        mesh=dict(mesh.shape),
        code_revision=worker.code_revision,
    )


_LEFT_STEPS = 10
_LEFT_LEAST = 3
_LEFT_SPREAD = 2.0
# A validation goes forward alone, which takes about a third of a step.
_FORWARD = 1 / 3


class StepsLeft:
    """How long the steps that are left take, with the validations and the saving between them.

    The first step touches fresh memory, and is no measure of those to come. The others do like work, so three
    of them are enough, unless the longest of the last ten took more than twice as long as the shortest.

    Args:
        plan: how many steps there are, and after which of them is validated and saved.
    """

    def __init__(self, plan: LoopPlan) -> None:
        self._plan = plan
        self._first = True
        self._steps: deque[float] = deque(maxlen=_LEFT_STEPS)
        self._validation: float | None = None
        self._saving = 0.0

    def took(self, seconds: float) -> None:
        """A step took so long."""
        if not self._first:
            self._steps.append(seconds)
        self._first = False

    def validation_took(self, seconds: float) -> None:
        """A pass over the validation split took so long."""
        self._validation = seconds

    def saving_took(self, seconds: float) -> None:
        """Checkpoint and state took so long."""
        self._saving = seconds

    def after(self, step: int, *, paused: bool) -> float | None:
        """Seconds left after ``step``, None while nobody can tell; ``paused``: it is validated and saved."""
        plan, times = self._plan, self._steps
        if step >= plan.max_steps and paused:
            return 0.0
        if len(times) < _LEFT_LEAST or max(times) > _LEFT_SPREAD * min(times):
            return None
        each = sum(times) / len(times)
        done = step if paused else step - 1
        seconds = (plan.max_steps - step) * each
        seconds += _between(done, plan.max_steps, plan.checkpoint_interval_steps) * self._saving
        if plan.validation is not None:
            unmeasured = plan.validation.batches_per_epoch * each * _FORWARD
            once = unmeasured if self._validation is None else self._validation
            seconds += _between(done, plan.max_steps, plan.validation_interval_steps) * once
        return seconds


def _between(done: int, last: int, interval: int) -> int:
    """How often something is due after the steps behind ``done`` up to ``last``, at which it always is."""
    if done >= last:
        return 0
    return last // interval - done // interval + bool(last % interval) if interval else 1


class TrainingLoop(DataHooks):  # type: ignore[misc]
    """Runs ``plan`` on ``network``; ``history`` holds the metrics of the steps that were taken.

    PeftTrainer asks for the next batch when a step was dispatched. That is the one moment at which the step
    can be waited for, measured and told of without the lag of PeftTrainer's own hooks.

    Args:
        network: what is trained.
        optimizer: how.
        plan: on what.
        reporter: is told of each step.
        keeper: of checkpoints and states.
        ledger: of the steps that were taken; holds those up to ``state``.
        state: what to resume from; None for the beginning.
    """

    def __init__(
        self,
        network: Decoder,
        optimizer: optax.GradientTransformation,
        plan: LoopPlan,
        reporter: Reporter,
        keeper: JobKeeper,
        ledger: Ledger,
        state: SavedState | None = None,
    ) -> None:
        self.plan = plan
        self.history: list[StepMetrics] = [] if state is None else list(state.history)
        self._reporter = reporter
        self._keeper = keeper
        self._ledger = ledger
        self._trainer = StepTrainer(
            network, optimizer, microbatches=plan.microbatches, hooks=self, dispatched=self._on_dispatched
        )
        self._state = state
        losses = (entry.validation_loss for entry in self.history)
        self._validations = Validations(plan.early_stopping, (loss for loss in losses if loss is not None))
        self._saved = self._stated = 0 if state is None else state.step
        self._compiled = False
        self._fed: Batch | None = None
        self._result: StepResult = {}
        self._started = 0.0
        self._left = StepsLeft(plan)

    def run(self, mesh: jax.sharding.Mesh) -> None:
        """Train to the last step, or on to it. A cancelled job leaves checkpoint and state of its last step.

        Raises:
            FailedPrecondition: LOSS_NOT_FINITE, naming the step and the examples of its batch.
            ResourceExhausted: STORAGE_FULL, naming the file.
            JobCancelled: between two steps.
        """
        with mesh:
            try:
                self._trainer.prepare(mesh, self._state)
                if self._state is not None:
                    self._state = None
                    self._take_up()
                self._reporter.stage("compiling")
                self._trainer.train()
            except JobCancelled:
                self._save_where_it_stands()
                raise

    def load_next_train_batch(self, train_ctx: Any) -> Any:
        """Finish the step that was dispatched last, if any, and give the arrays of the next batch."""
        step: int = train_ctx.iter_steps
        if self._fed is not None:
            self._finish(step, self._fed)
        if self._over(step):
            return None
        self._reporter.check_cancelled()
        self._fed = self.plan.train.batch(step)
        self._started = time.monotonic()
        return self._fed.arrays

    def load_next_eval_batch(self, train_ctx: Any) -> None:
        """Nothing: validation is run by ``validate``, which weighs batches by their tokens."""
        del train_ctx

    def validate(self, source: BatchSource) -> float:
        """Mean cross-entropy in nats over all supervised tokens of one pass over ``source``."""
        total = source.batches_per_epoch
        self._reporter.stage("validating", total, "batches")
        nll, weight = 0.0, 0.0
        for index in range(total):
            summed, tokens = self._trainer.nll(source.batch(index))
            nll += summed
            weight += tokens
            self._reporter.progress(index + 1, total)
        return nll / max(weight, 1.0)

    def _over(self, step: int) -> bool:
        return step == self.plan.max_steps or self._validations.exhausted

    def _on_dispatched(self, result: StepResult) -> None:
        self._result = result
        if not self._compiled:
            # Dispatch of the first step returns when it is compiled, and the computation goes on.
            give_back_memory()
            self._compiled = True
            self._started = time.monotonic()
            self._training()

    def _training(self) -> None:
        self._reporter.stage("training", self.plan.max_steps, "steps")

    def _finish(self, step: int, batch: Batch) -> None:
        mean, grad_norm = float(self._result["loss"]), float(self._result["grad_norm"])
        duration = time.monotonic() - self._started
        self._require_finite(step, mean, grad_norm, batch)
        self._left.took(duration)
        self._ledger.add(step)
        self.history.append(
            StepMetrics(
                step=step,
                epoch=step / self.plan.train.batches_per_epoch,
                loss=mean,
                learning_rate=float(np.asarray(self.plan.learning_rate(step - 1))),
                grad_norm=grad_norm,
                supervised_tokens=batch.supervised_tokens,
                tokens=batch.tokens,
                tokens_per_second=batch.tokens / duration,
                supervised_tokens_per_second=batch.supervised_tokens / duration,
                step_duration_s=duration,
                eta_s=self._left.after(step, paused=step == self.plan.max_steps),
            )
        )
        self._complete(step)

    def _complete(self, step: int) -> None:
        """Validate and save after a step, as is due, and tell of it."""
        best = False
        try:
            if self._validation_due(step):
                assert self.plan.validation is not None
                began = time.monotonic()
                value = self.validate(self.plan.validation)
                self._left.validation_took(time.monotonic() - began)
                if not math.isfinite(value):
                    raise self._not_finite(step, f"the validation loss is {value}")
                self.history[-1] = self.history[-1].model_copy(update={"validation_loss": value})
                best = self._validations.take(value) and self.plan.keep_best
        finally:
            # A job that is cancelled while it validates has taken the step all the same.
            self._reporter.metrics(self.history[-1])
        interval = self.plan.checkpoint_interval_steps
        due = self._over(step) or bool(interval and step % interval == 0)
        if due or best:
            began = time.monotonic()
            self._save(state=due, best=best)
            self._left.saving_took(time.monotonic() - began)
        if (due or best or self._validation_due(step)) and not self._over(step):
            self._training()
        self._reporter.progress(step, self.plan.max_steps, self._left.after(step, paused=True))

    def _take_up(self) -> None:
        """Do what was left after the step of the state that was restored."""
        last = self.history[-1]
        if self._validation_due(last.step) and last.validation_loss is None:
            self._complete(last.step)
            return
        losses = [entry.validation_loss for entry in self.history if entry.validation_loss is not None]
        lowest = last.validation_loss is not None and losses.index(min(losses)) == len(losses) - 1
        self._keeper.found(last.step, best=lowest and self.plan.keep_best)

    def _save(self, *, state: bool, best: bool = False) -> None:
        """Save the last step. The state comes last: a job that resumes from it finds its checkpoint there."""
        if not self._trainer.weights_are_finite():
            raise self._not_finite(self.history[-1].step, "weights are no longer finite")
        self._keeper.checkpoint(self._trainer.network(), self.history, best=best)
        self._saved = self.history[-1].step
        if state:
            self._save_state()

    def _save_where_it_stands(self) -> None:
        """Save of the last step what is not saved yet: the best one leaves a checkpoint without a state."""
        last = self.history[-1].step if self.history else 0
        if last != self._saved:
            self._save(state=True)
        elif last != self._stated:
            self._save_state()

    def _save_state(self) -> None:
        self._keeper.state(self._trainer.saved(tuple(self.history)))
        self._stated = self.history[-1].step

    def _validation_due(self, step: int) -> bool:
        interval = self.plan.validation_interval_steps
        last = step == self.plan.max_steps
        return self.plan.validation is not None and (last or bool(interval and step % interval == 0))

    def _require_finite(self, step: int, mean: float, grad_norm: float, batch: Batch) -> None:
        if math.isfinite(mean) and math.isfinite(grad_norm):
            return
        ids = [name for row in batch.example_ids for name in row]
        epoch, index = divmod(step - 1, self.plan.train.batches_per_epoch)
        raise self._not_finite(
            step,
            f"loss is {mean} and gradient norm {grad_norm}",
            f", or look at the {len(ids)} examples of its batch (batch {index + 1} of epoch {epoch + 1}), "
            f"the first of which is {ids[0]}",
            epoch=str(epoch + 1),
            batch=str(index + 1),
            first_example_id=ids[0],
        )

    def _not_finite(self, step: int, what: str, more: str = "", **facts: str) -> FailedPrecondition:
        before = f"; the last checkpoint is that of step {self._saved}" if self._saved else ""
        return FailedPrecondition(
            f"step {step}: {what}; lower the learning rate{more}{before}",
            reason="LOSS_NOT_FINITE",
            metadata={"step": str(step), **facts},
        )


class Validations:
    """Folds validation losses in the order in which they were measured.

    Args:
        stopping: when they end training; None for never.
        losses: those that were measured already.
    """

    def __init__(self, stopping: EarlyStopping | None, losses: Iterable[float] = ()) -> None:
        self._stopping = stopping
        self._lowest = math.inf
        self._reference = math.inf
        self._without_fall = 0
        for loss in losses:
            self.take(loss)

    def take(self, loss: float) -> bool:
        """Count a loss; returns whether it is the lowest so far."""
        lowest = loss < self._lowest
        if lowest:
            self._lowest = loss
        # A slow fall must add up to more than min_delta, so it is measured from the last one that counted.
        if loss < self._reference - (0.0 if self._stopping is None else self._stopping.min_delta):
            self._reference, self._without_fall = loss, 0
        else:
            self._without_fall += 1
        return lowest

    @property
    def exhausted(self) -> bool:
        """Whether training ends because the loss fell no more."""
        return self._stopping is not None and self._without_fall >= self._stopping.patience

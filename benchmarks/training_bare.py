"""The steps of a training job without the service: ``python -m benchmarks.training_bare TASK``.

The task names the folder of a job that has ended, whose spec and data are taken. Nothing is told, measured or
saved; a step is waited for, so that it can be timed.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from tunix.sft.hooks import DataHooks

from benchmarks import peers
from benchmarks.training_service import seconds_of
from tunix_rt_kit.jobs.child import JobDir
from tunix_rt_kit.models.store import ModelStore
from tunix_rt_trainer.jobs.model import WorkerSpec
from tunix_rt_trainer.worker.batches import BatchSource
from tunix_rt_trainer.worker.data import DataPreparation
from tunix_rt_trainer.worker.network import build_network, dividing, make_mesh
from tunix_rt_trainer.worker.reporter import Reporter
from tunix_rt_trainer.worker.step import StepResult, StepTrainer, make_optimizer


class _Loop(DataHooks):  # type: ignore[misc]
    def __init__(self, source: BatchSource, steps: int) -> None:
        self.ends: list[float] = []
        self._source = source
        self._steps = steps
        self._result: StepResult | None = None

    def dispatched(self, result: StepResult) -> None:
        self._result = result

    def load_next_train_batch(self, train_ctx: Any) -> Any:
        if self._result is not None:
            float(self._result["loss"])
            self.ends.append(time.monotonic())
        step: int = train_ctx.iter_steps
        return None if step == self._steps else self._source.batch(step).arrays

    def load_next_eval_batch(self, train_ctx: Any) -> None:
        del train_ctx


def main(folder: Path, steps: int) -> list[float]:
    """Seconds of the steps that count."""
    worker = WorkerSpec.model_validate(JobDir(folder).spec)
    spec = worker.spec
    mesh = make_mesh(spec.mesh)
    model = ModelStore(worker.models_dir).ensure(spec.base_model)
    with tempfile.TemporaryDirectory(prefix="tunix-rt-bench-") as silent:
        plan = DataPreparation(worker, model, folder, Reporter(JobDir(silent))).plan()
    loop = _Loop(plan.train, steps)
    with dividing(spec.mesh):
        network = build_network(model.path, spec, mesh)
        optimizer = make_optimizer(spec.optimizer, plan.max_steps)
        trainer = StepTrainer(network, optimizer, microbatches=1, hooks=loop, dispatched=loop.dispatched)
        with mesh:
            trainer.prepare(mesh, None)
            trainer.train()
    return seconds_of(loop.ends)


if __name__ == "__main__":
    task = peers.told()
    peers.answer({"seconds": main(Path(task["job"]), task["steps"])})

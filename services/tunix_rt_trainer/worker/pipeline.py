"""One training job from its spec, or from where an earlier attempt was ended, to its checkpoint."""

from __future__ import annotations

import gc

import jax

from tunix_rt_kit.jobs import JobDir
from tunix_rt_kit.models import runtime
from tunix_rt_kit.models.store import BaseModelInfo, ModelStore
from tunix_rt_trainer.jobs.memory import advice, rows_at_a_time
from tunix_rt_trainer.jobs.model import TrainingManifest, WorkerSpec
from tunix_rt_trainer.worker.data import DataPreparation
from tunix_rt_trainer.worker.devices import dividing, make_mesh
from tunix_rt_trainer.worker.ledger import Ledger
from tunix_rt_trainer.worker.loop import LoopPlan, TrainingLoop
from tunix_rt_trainer.worker.network import build_network
from tunix_rt_trainer.worker.optimizer import make_optimizer
from tunix_rt_trainer.worker.reporter import Reporter
from tunix_rt_trainer.worker.saving import LEDGER_FILE, JobKeeper, identity
from tunix_rt_trainer.worker.sinks import MetricsSinks
from tunix_rt_trainer.worker.states import FOLDER, SavedState, StateStore


def run(job: JobDir) -> None:
    """Do the job of a folder; checkpoints are left under ``checkpoints/`` and told of by events.

    It goes on from the latest whole state that an earlier attempt left in the folder and ends in the same
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

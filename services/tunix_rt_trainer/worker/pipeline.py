"""One training job from its spec to its checkpoint."""

from __future__ import annotations

import resource
import shutil
from dataclasses import dataclass
from pathlib import Path

import jax

from tunix_rt_kit.artifacts import canonical_json
from tunix_rt_kit.chat import ChatTemplate
from tunix_rt_kit.errors import FailedPrecondition
from tunix_rt_kit.jobs import JobCancelled, JobDir
from tunix_rt_kit.models import runtime
from tunix_rt_kit.models.llama import make_mesh
from tunix_rt_kit.models.lora import save_adapter
from tunix_rt_kit.models.store import BaseModelInfo, ModelStore
from tunix_rt_kit.models.tokenizer import load_tokenizer
from tunix_rt_kit.supervision import TokenExample
from tunix_rt_trainer.model import (
    TRAIN_SPLIT,
    VALIDATION_SPLIT,
    SplitFile,
    StepMetrics,
    TrainingManifest,
    WorkerSpec,
)
from tunix_rt_trainer.turn_markers import require_single_tokens
from tunix_rt_trainer.worker.batches import BatchSource
from tunix_rt_trainer.worker.examples import read_examples, tokenize
from tunix_rt_trainer.worker.loop import LoopPlan, TrainingLoop
from tunix_rt_trainer.worker.network import build_network
from tunix_rt_trainer.worker.optimizer import learning_rate, make_optimizer
from tunix_rt_trainer.worker.packing import BatchPlan
from tunix_rt_trainer.worker.reporter import Reporter

METRICS_FILE = "metrics.jsonl"
MANIFEST_FILE = "manifest.json"
_TIMED = {"tokens_per_second", "step_duration_s", "eta_s"}


def run(job: JobDir) -> None:
    """Do the job of a folder; its checkpoint is left under ``checkpoints/`` and told of by an event.

    A cancelled job leaves the checkpoint of its last step too.

    Raises:
        DomainError: what is wrong with model, data or settings.
        JobCancelled: the job was cancelled.
    """
    worker = WorkerSpec.model_validate(job.spec)
    reporter = Reporter(job)
    if worker.attempt > 1:
        reporter.log(f"started again from the beginning, attempt {worker.attempt}")
    model = _ensure_model(worker, reporter)
    plan = _DataPreparation(worker, model, job.path, reporter).plan()
    reporter.stage("loading the model")
    mesh, spec = make_mesh(), worker.spec
    network = build_network(model.path, dtype=spec.dtype, lora=spec.lora, seed=spec.seed, mesh=mesh)
    loop = TrainingLoop(network, make_optimizer(spec.optimizer, plan.max_steps), plan, reporter)
    try:
        loop.run(mesh)
    except JobCancelled:
        if loop.history:
            _save(worker, model, loop, mesh, job.path, reporter)
        raise
    _save(worker, model, loop, mesh, job.path, reporter)


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


@dataclass
class _DataPreparation:
    """Makes the plan of a job's batches from its files."""

    worker: WorkerSpec
    model: BaseModelInfo
    folder: Path
    reporter: Reporter

    def plan(self) -> LoopPlan:
        """Raises DomainError, naming what does not fit."""
        spec, inputs = self.worker.spec, self.worker.inputs
        self._check_length()
        self._tokenizer = load_tokenizer(self.model.path)
        end_of_turn = ChatTemplate(**inputs.chat_template.model_dump()).end_of_turn
        require_single_tokens((*inputs.turn_markers, end_of_turn), self._tokenizer, spec.base_model)
        end_id = self._tokenizer.token_id(end_of_turn)
        assert end_id is not None
        self._end_id = end_id
        train = self._tokens(self.worker.train_file, inputs.train, TRAIN_SPLIT)
        train_plan = self._batch_plan(train, packing=spec.packing)
        steps = spec.max_steps or train_plan.batches_per_epoch
        self._check_warmup(steps)
        self.reporter.max_steps(steps)
        self._tell(train, train_plan, steps)
        validation, batches = self._validation()
        return LoopPlan(
            train=self._source(train, train_plan, steps),
            validation=validation,
            validation_batches=batches,
            validation_interval_steps=spec.validation_interval_steps,
            max_steps=steps,
            learning_rate=learning_rate(spec.optimizer, steps),
        )

    def _validation(self) -> tuple[BatchSource | None, int]:
        file, inputs = self.worker.validation_file, self.worker.inputs.validation
        if file is None or inputs is None:
            return None, 0
        examples = self._tokens(file, inputs, VALIDATION_SPLIT)
        plan = self._batch_plan(examples, packing=True)
        return self._source(examples, plan, plan.batches_per_epoch), plan.batches_per_epoch

    def _tokens(self, file: str, split_file: SplitFile, split: str) -> list[TokenExample]:
        examples = read_examples(self.folder / file, split_file.digest)
        self.reporter.stage("preparing data", len(examples), f"{split} examples")
        return tokenize(
            examples,
            self._tokenizer,
            max_length=self.worker.spec.max_length,
            vocab_size=self.model.vocab_size,
            end_id=self._end_id,
            split=split,
            progress=self.reporter.progress,
        )

    def _batch_plan(self, examples: list[TokenExample], *, packing: bool) -> BatchPlan:
        return BatchPlan(
            [row.id for row in examples],
            [len(row.ids) for row in examples],
            row_length=self.worker.spec.max_length,
            rows_per_batch=self.worker.spec.rows_per_batch,
            packing=packing,
            seed=self.worker.spec.seed,
            dataset_digest=self.worker.inputs.dataset_digest,
        )

    def _source(self, examples: list[TokenExample], plan: BatchPlan, steps: int) -> BatchSource:
        return BatchSource(
            examples,
            plan,
            row_length=self.worker.spec.max_length,
            pad_id=self._tokenizer.pad_id(),
            steps=steps,
        )

    def _tell(self, examples: list[TokenExample], plan: BatchPlan, steps: int) -> None:
        length = self.worker.spec.max_length
        filled = sum(len(row.ids) for row in examples) / (plan.rows_per_epoch * length)
        self.reporter.log(
            f"{len(examples)} examples in {plan.rows_per_epoch} rows of {length} tokens, {filled:.0%} "
            f"filled; {plan.batches_per_epoch} batches an epoch, {steps} steps"
        )

    def _check_length(self) -> None:
        length, most = self.worker.spec.max_length, self.model.context_length
        if length > most:
            raise FailedPrecondition(
                f"max_length is {length}; {self.worker.spec.base_model} takes at most {most} tokens",
                reason="MAX_LENGTH_INVALID",
            )

    def _check_warmup(self, steps: int) -> None:
        warmup = self.worker.spec.optimizer.warmup_steps
        if warmup >= steps:
            raise FailedPrecondition(
                f"optimizer.warmup_steps is {warmup}, but one pass over the training split is {steps} steps",
                reason="WARMUP_STEPS_INVALID",
            )


def _save(
    worker: WorkerSpec,
    model: BaseModelInfo,
    loop: TrainingLoop,
    mesh: jax.sharding.Mesh,
    job_folder: Path,
    reporter: Reporter,
) -> None:
    step = loop.history[-1].step
    relative = f"checkpoints/{step}"
    reporter.stage("saving")
    folder = job_folder / relative
    shutil.rmtree(folder, ignore_errors=True)
    save_adapter(loop.network, folder, alpha=worker.spec.lora.alpha, base_model=worker.spec.base_model)
    (folder / METRICS_FILE).write_bytes(b"".join(_metrics_line(metrics) for metrics in loop.history))
    manifest = _manifest(worker, model, loop, mesh)
    (folder / MANIFEST_FILE).write_bytes(canonical_json(manifest.model_dump(mode="json")))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    reporter.log(f"wrote the checkpoint of step {step}; the worker's memory peaked at {peak:.1f} GB")
    reporter.checkpoint(step, relative)


def _manifest(
    worker: WorkerSpec, model: BaseModelInfo, loop: TrainingLoop, mesh: jax.sharding.Mesh
) -> TrainingManifest:
    return TrainingManifest(
        training_job=worker.job_name,
        spec=worker.spec.model_copy(update={"max_steps": loop.plan.max_steps}),
        dataset_digest=worker.inputs.dataset_digest,
        train_file_digest=worker.inputs.train.digest,
        base_weights_digest=model.weights_digest or "",
        tokenizer_digest=model.tokenizer_digest or "",
        base_config_digest=model.config_digest or "",
        chat_template_digest=worker.inputs.chat_template_digest,
        data_order_digest=loop.data_order_digest,
        package_versions=runtime.package_versions(),
        runtime_settings=runtime.runtime_settings(),
        device=runtime.device(),
        mesh=dict(mesh.shape),
        code_revision=worker.code_revision,
    )


def _metrics_line(metrics: StepMetrics) -> bytes:
    """One line without times, so that equal runs make equal files."""
    return canonical_json(metrics.model_dump(mode="json", exclude=_TIMED, exclude_none=True)) + b"\n"

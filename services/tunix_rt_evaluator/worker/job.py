"""One evaluation, from its spec to an event for every item.

Events, besides those that ``run_worker`` writes:

- ``attempt``: ``number``. What follows belongs to this attempt.
- ``stage``: a Progress. A stage begins, and the one before has ended.
- ``progress``: a Progress. How far the stage has come.
- ``facts``: ``facts``, a ModelFacts: what is being run.
- ``item``: ``generation``, a Generation. Items that were written by an earlier attempt are not written
  again, and batches that are whole are not generated again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

from tunix_rt_evaluator.model import ChatTemplateFields, Generation, ModelFacts, Progress, WorkerSpec
from tunix_rt_evaluator.stop_tokens import stop_ids
from tunix_rt_evaluator.worker.batches import Batch, plan_batches
from tunix_rt_evaluator.worker.engine import Engine, Output, engine_name
from tunix_rt_evaluator.worker.prompts import read_prompts, token_digest
from tunix_rt_evaluator.worker.weights import is_adapter, load_weights
from tunix_rt_kit.chat import ChatTemplate
from tunix_rt_kit.errors import FailedPrecondition
from tunix_rt_kit.jobs import JobDir
from tunix_rt_kit.models.loader import make_mesh
from tunix_rt_kit.models.runtime import device, package_versions, runtime_settings
from tunix_rt_kit.models.store import BaseModelInfo, ModelStore
from tunix_rt_kit.models.tokenizer import ModelTokenizer, load_tokenizer

_EVENTS = "events.jsonl"


def evaluate(job: JobDir) -> None:
    """Do the job; raises JobCancelled when it was told to stop, and DomainError when it cannot be done."""
    spec = WorkerSpec.model_validate(job.spec)
    done = _written_items(job.path)
    job.emit("attempt", number=spec.attempt)
    info = _pull(job, spec)
    template = _template(spec, info)
    tokenizer = load_tokenizer(info.path)
    stops = stop_ids(template, tokenizer)
    prompts, failed = read_prompts(spec.items, template, tokenizer, context_length=info.context_length)
    batches = plan_batches(
        prompts,
        batch_size=spec.decoding.batch_size,
        max_new_tokens=spec.decoding.max_new_tokens,
    )
    checkpoint = None if spec.checkpoint_dir is None else job.path / spec.checkpoint_dir
    _report(job, "stage", Progress(stage="loading the model"))
    mesh = make_mesh()
    model = load_weights(info.path, checkpoint, dtype=spec.dtype, mesh=mesh)
    _emit_facts(job, spec, info, template, merged=checkpoint is not None and is_adapter(checkpoint))
    engine = Engine(
        model, mesh, stop_ids=stops, pad_id=tokenizer.pad_id(), context_length=info.context_length
    )
    open_batches = [batch for batch in batches if any(prompt.item_id not in done for prompt in batch.prompts)]
    _compile(job, engine, open_batches)
    _emit(job, [result for result in failed if result.item_id not in done])
    done |= {result.item_id for result in failed}
    _generate(job, engine, open_batches, tokenizer, done, total=len(spec.items))


def _written_items(folder: Path) -> set[str]:
    path = folder / _EVENTS
    if not path.exists():
        return set()
    lines = path.read_bytes().split(b"\n")[:-1]
    events = (json.loads(line) for line in lines if b'"kind":"item"' in line)
    return {str(event["generation"]["item_id"]) for event in events if event["kind"] == "item"}


def _pull(job: JobDir, spec: WorkerSpec) -> BaseModelInfo:
    store = ModelStore(spec.models_dir)
    info = store.resolve(spec.base_model)
    if not info.pulled:
        stage = "pulling the model"
        _report(job, "stage", Progress(stage=stage, unit="bytes"))

        def report(_: str, completed: int, total: int) -> None:
            _report(job, "progress", Progress(stage=stage, completed=completed, total=total, unit="bytes"))

        info = store.ensure(spec.base_model, report)
    expected = spec.base_weights_digest
    if expected is not None and info.weights_digest != expected:
        raise FailedPrecondition(
            f"base model {spec.base_model!r} is here with weights {info.weights_digest}; the checkpoint "
            "was trained "
            f"on {expected}",
            reason="BASE_MODEL_MISMATCH",
            metadata={"base_model": spec.base_model},
        )
    return info


def _template(spec: WorkerSpec, info: BaseModelInfo) -> ChatTemplate:
    if spec.chat_template is not None:
        return ChatTemplate.model_validate(spec.chat_template.model_dump())
    if info.chat_template is None or info.eos_token is None:
        raise FailedPrecondition(
            f"base model {info.id!r} has no chat template of its own; name one, such as the built-in chatml",
            reason="CHAT_TEMPLATE_MISSING",
            metadata={"base_model": info.id},
        )
    return ChatTemplate.from_jinja(
        info.chat_template, eos_token=info.eos_token, bos_token=info.bos_token or ""
    )


def _emit_facts(
    job: JobDir, spec: WorkerSpec, info: BaseModelInfo, template: ChatTemplate, *, merged: bool
) -> None:
    adapter = {"adapter": "merged in float32"} if merged else {}
    facts = ModelFacts(
        base_weights_digest=info.weights_digest or "",
        tokenizer_digest=info.tokenizer_digest or "",
        chat_template=ChatTemplateFields.model_validate(template.model_dump()),
        chat_template_digest=template.digest,
        engine=engine_name(),
        package_versions=package_versions(),
        runtime_settings=runtime_settings() | adapter,
        device=device(),
        code_revision=spec.code_revision,
    )
    job.emit("facts", facts=facts.model_dump(mode="json"))


def _compile(job: JobDir, engine: Engine, batches: Sequence[Batch]) -> None:
    shapes = list(dict.fromkeys(batch.shape for batch in batches))
    progress = Progress(stage="compiling", total=len(shapes), unit="programs")
    _report(job, "stage", progress)
    for number, shape in enumerate(shapes, start=1):
        engine.compile(shape)
        _report(job, "progress", progress.model_copy(update={"completed": number}))


def _generate(
    job: JobDir,
    engine: Engine,
    batches: Sequence[Batch],
    tokenizer: ModelTokenizer,
    done: set[str],
    total: int,
) -> None:
    progress = Progress(stage="generating", completed=len(done), total=total, unit="items")
    _report(job, "stage", progress)
    started = time.perf_counter()
    for number, batch in enumerate(batches, start=1):
        begun = time.perf_counter()
        outputs = engine.run(batch, job.check_cancelled)
        share = (time.perf_counter() - begun) / len(batch.prompts)
        results = _results(batch, outputs, tokenizer, share)
        _emit(job, [result for result in results if result.item_id not in done])
        done |= {result.item_id for result in results}
        eta = (time.perf_counter() - started) / number * (len(batches) - number)
        _report(job, "progress", progress.model_copy(update={"completed": len(done), "eta_s": eta}))


def _results(
    batch: Batch, outputs: Sequence[Output], tokenizer: ModelTokenizer, seconds: float
) -> list[Generation]:
    return [
        Generation(
            item_id=prompt.item_id,
            prompt_tokens=len(prompt.ids),
            prompt_token_digest=token_digest(prompt.ids),
            output=tokenizer.decode(output.ids[:-1] if output.stopped else output.ids),
            output_tokens=len(output.ids),
            finish_reason="stop" if output.stopped else "length",
            seconds=seconds,
        )
        for prompt, output in zip(batch.prompts, outputs, strict=True)
    ]


def _emit(job: JobDir, results: Sequence[Generation]) -> None:
    for result in results:
        job.emit("item", generation=result.model_dump(mode="json"))


def _report(job: JobDir, kind: str, progress: Progress) -> None:
    """Tell how far the work has come; raises JobCancelled if the job was told to stop."""
    job.check_cancelled()
    job.emit(kind, **progress.model_dump(mode="json", exclude_none=True))

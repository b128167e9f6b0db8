"""The stages of a loop.

Nothing about a job is remembered here: each is created with a request id made from the loop's name, the stage
and everything that goes into it, so that asking again returns the job that is there. A job that ended FAILED
or CANCELLED is tried anew under the next attempt's request id; which attempt is the latest, the servers know.
Only the import leaves a note in the output folder, to spare sending the traces again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from tunix_rt import v1
from tunix_rt.aio import jobs
from tunix_rt.aio.client import AsyncClient
from tunix_rt.aio.importing import ImportResult, import_traces
from tunix_rt.aio.loop.sources import (
    bytes_of,
    chat_template,
    digest_of,
    eval_items,
    eval_set_id,
    import_key,
    traces_of,
)
from tunix_rt.aio.naming import in_folder, resolve
from tunix_rt.errors import FailedPreconditionError, InvalidArgumentError, NotFoundError
from tunix_rt.files import folder_lock, read_text, write_atomically
from tunix_rt.formats import Lossy, give_grader
from tunix_rt.loop import specs
from tunix_rt.loop.config import LoopConfig
from tunix_rt.loop.result import LoopEvent, LoopResult, Stage, TrainingProgress, facts_of
from tunix_rt.redaction import Redactor

MAX_ATTEMPTS: Final = 100
STATE_FILE: Final = "loop-state.json"
RESULT_FILE: Final = "loop.json"
_MAX_STATE_BYTES: Final = 1 << 20
REPORTS: Final = {
    "report.md": v1.REPORT_FORMAT_MARKDOWN,
    "report.json": v1.REPORT_FORMAT_JSON,
    "report.html": v1.REPORT_FORMAT_HTML,
}

Job = TypeVar("Job", v1.Dataset, v1.TrainingJob, v1.Evaluation)


class Loop:
    """One run of a loop; ``run`` does its stages in order."""

    def __init__(
        self, config: LoopConfig, client: AsyncClient, on_event: Callable[[LoopEvent], None] | None
    ) -> None:
        self._config = config
        self._client = client
        self._on_event = on_event
        self._output = config.output_dir
        self._seconds: dict[Stage, float] = {}
        self._import_key = ""

    async def run(self) -> LoopResult:
        """As ``tunix_rt.loop.run_loop``."""
        self._prepare_output()
        with folder_lock(self._output, alone=False) as free:
            if not free:
                raise FailedPreconditionError(
                    f"the loop of {self._output} is being deleted; run it again when that is done",
                    reason="LOOP_BEING_DELETED",
                    metadata={"output_dir": str(self._output)},
                )
            return await self._run_stages()

    async def _run_stages(self) -> LoopResult:
        config = self._config = await self._with_whole_names()
        template, special = await chat_template(config.dataset, config.training.base_model, self._client)
        imported = await self._import()
        eval_set = None
        if config.eval_set.held_out_split is None:
            eval_set = await self._eval_set(None)
        dataset = await self._dataset(template, special, [eval_set.name] if eval_set else [])
        if eval_set is None:
            eval_set = await self._eval_set(dataset)
        before = await self._evaluation(
            "evaluation_before",
            specs.base_evaluation_spec(
                config.evaluation, eval_set.name, config.training.base_model, template
            ),
        )
        job = await self._training(dataset)
        checkpoint = await self._client.trainer.get_checkpoint(job.best_checkpoint or job.checkpoint)
        after = await self._evaluation(
            "evaluation_after",
            specs.tuned_evaluation_spec(config.evaluation, eval_set.name, checkpoint.name),
        )
        report, files = await self._comparison(before, after)
        result = LoopResult(
            name=config.name,
            imported=imported,
            dataset=dataset,
            eval_set=eval_set,
            evaluation_before=before,
            training_job=job,
            checkpoint=checkpoint,
            evaluation_after=after,
            report=report,
            files=files | {RESULT_FILE: self._output / RESULT_FILE},
            stage_seconds=self._seconds,
        )
        write_atomically(self._output / RESULT_FILE, result.to_json())
        return result

    async def _with_whole_names(self) -> LoopConfig:
        """The config with resource names in the place of ids, beginnings of ids and display names."""
        config, client = self._config, self._client
        names: dict[str, Any] = {
            "eval_sets": [await resolve(client, in_folder("evalSets", n)) for n in config.dataset.eval_sets]
        }
        if config.dataset.parent:
            names["parent"] = await resolve(client, in_folder("datasets", config.dataset.parent))
        return config.model_copy(update={"dataset": config.dataset.model_copy(update=names)})

    async def _import(self) -> ImportResult | None:
        traces = self._config.traces
        if traces is None:
            with self._stage("import"):
                self._emit("import", "skipped", message="the store is used as it is")
            return None
        self._import_key = import_key(traces)
        with self._stage("import"):
            known = await self._known_import()
            if known is not None:
                self._emit("import", "skipped", message=_told(known), completed=known.read, unit="traces")
                return known
            total = traces.generate.count if traces.generate else 0
            redactor = traces.redactor()
            result = await import_traces(
                self._client,
                traces_of(traces, redactor),
                duplicate_policy=traces.duplicates,
                on_progress=lambda done: self._emit(
                    "import", "progress", completed=done.read, total=total, unit="traces"
                ),
                import_id=self._request_id("import", self._import_key),
            )
            if result.read == 0:
                raise InvalidArgumentError(f"{traces.file} holds no traces", reason="TRACES_EMPTY")
            self._note("import", {"key": self._import_key, "result": asdict(result)})
            self._emit(
                "import",
                "finished",
                message=_told(result) + _redacted(redactor),
                completed=result.read,
                total=result.read,
                unit="traces",
            )
        return result

    async def _known_import(self) -> ImportResult | None:
        """The result of this import if it is done and the store still has what it stored."""
        try:
            note = self._notes()["import"]
            result = ImportResult(**note["result"])
            if note["key"] != self._import_key:
                return None
            await self._client.trace_store.get_trace(result.last_name)
        except (OSError, ValueError, KeyError, TypeError, NotFoundError):
            return None
        return result

    def _notes(self) -> dict[str, Any]:
        """What earlier runs left in the output folder."""
        return notes(self._output)

    def _note(self, key: str, value: Any) -> None:
        try:
            kept = self._notes()
        except (OSError, ValueError):
            kept = {}
        write_atomically(self._output / STATE_FILE, json.dumps(kept | {key: value}, indent=2).encode())

    def _made(self, name: str) -> None:
        """Remember that this loop made a resource, for whoever deletes what it made."""
        try:
            made = made_by(self._output)
        except (OSError, ValueError):
            made = []
        if name not in made:
            self._note("made", [*made, name])

    async def _dataset(
        self, template: v1.ChatTemplate, special_tokens: Sequence[str], eval_sets: list[str]
    ) -> v1.Dataset:
        spec = specs.dataset_spec(self._config.dataset, template, special_tokens, eval_sets)
        with self._stage("dataset"):
            name = f"datasets/{spec.dataset_id}@{spec.version or 1}"
            if not await self._is_there(self._client.exporter.get_dataset, name):
                self._made(name)
            job = await self._created(
                "dataset",
                [bytes_of(spec), self._import_key],
                lambda request_id: self._client.exporter.create_dataset(spec, request_id=request_id),
            )
            job = await self._called(job, "", self._client.exporter.update_dataset)
            fresh = not jobs.has_succeeded(job)
            if fresh:
                job = await jobs.wait_for_dataset(
                    self._client, job.name, lambda update: self._progress("dataset", update)
                )
            rows = ", ".join(f"{split.split} {split.row_count:,}" for split in job.splits)
            self._emit(
                "dataset",
                "finished" if fresh else "skipped",
                resource=job.name,
                message=f"rows: {rows}{_noticed(job)}",
            )
        return job

    async def _eval_set(self, dataset: v1.Dataset | None) -> v1.EvalSet:
        config = self._config
        with self._stage("eval_set"):
            left_out = Lossy()
            items = await eval_items(config.eval_set, self._client, dataset, left_out)
            eval_set = v1.EvalSet(items=items)
            if (grader := config.eval_set.own_grader()) is not None:
                give_grader(eval_set, grader)
            set_id = eval_set_id(config.eval_set, config.dataset.id, eval_set.items)
            eval_set.eval_set_id = set_id
            there = await self._is_there(self._client.evaluator.get_eval_set, f"evalSets/{set_id}")
            if not there:
                self._made(f"evalSets/{set_id}")
            create = self._client.evaluator.create_eval_set
            stored = await create(eval_set, request_id=self._request_id("eval_set", bytes_of(eval_set)))
            if stored.HasField("delete_time"):
                # This loop made it before, and somebody deleted it.
                stored = await create(eval_set)
            stored = await self._called(stored, "", self._client.evaluator.update_eval_set)
            self._emit(
                "eval_set",
                "skipped" if there else "finished",
                resource=stored.name,
                message="; ".join(
                    [f"{stored.item_count:,} item{'' if stored.item_count == 1 else 's'}", *left_out.lines()]
                ),
            )
        return stored

    async def _is_there(self, get: Callable[[str], Awaitable[Any]], name: str) -> bool:
        try:
            return not (await get(name)).HasField("delete_time")
        except NotFoundError:
            return False

    async def _evaluation(self, stage: Stage, spec: v1.EvaluationSpec) -> v1.Evaluation:
        with self._stage(stage):
            job = await self._created(
                stage,
                [bytes_of(spec)],
                lambda request_id: self._client.evaluator.create_evaluation(spec, request_id=request_id),
            )
            name = f"{self._config.name}: {'before' if stage == 'evaluation_before' else 'after'} training"
            job = await self._called(job, name, self._client.evaluator.update_evaluation)
            fresh = not jobs.has_succeeded(job)
            if fresh:
                job = await jobs.wait_for_evaluation(
                    self._client, job.name, lambda update: self._progress(stage, update)
                )
            accuracy = job.summary.overall
            self._emit(
                stage,
                "finished" if fresh else "skipped",
                resource=job.name,
                message=f"{accuracy.correct_count} of {accuracy.item_count} right ({accuracy.accuracy:.1%})",
            )
        return job

    async def _training(self, dataset: v1.Dataset) -> v1.TrainingJob:
        spec = specs.training_spec(self._config.training, dataset.name)
        with self._stage("training"):
            job = await self._created(
                "training",
                [bytes_of(spec), dataset.digest],
                lambda request_id: self._client.trainer.create_training_job(spec, request_id=request_id),
            )
            job = await self._called(job, self._config.name, self._client.trainer.update_training_job)
            fresh = not jobs.has_succeeded(job)
            if fresh:
                job = await jobs.wait_for_training_job(
                    self._client, job.name, TrainingProgress(partial(self._emit, "training"))
                )
            self._emit(
                "training",
                "finished" if fresh else "skipped",
                resource=job.name,
                message=f"step {job.latest_metrics.step:,}, loss {job.latest_metrics.loss:.4f}",
            )
        return job

    async def _comparison(
        self, before: v1.Evaluation, after: v1.Evaluation
    ) -> tuple[v1.ComparisonReport, dict[str, Path]]:
        with self._stage("comparison"):
            report = await self._client.evaluator.compare_evaluations(before.name, after.name)
            report = await self._called(
                report, self._config.name, self._client.evaluator.update_comparison_report
            )
            self._made(report.name)
            files = {name: self._output / name for name in REPORTS}
            for name, path in files.items():
                await self._client.evaluator.download_comparison_report(
                    report.name, path, format=REPORTS[name]
                )
            overall = report.overall
            self._emit(
                "comparison",
                "finished",
                resource=report.name,
                message=f"{overall.base.accuracy:.1%} -> {overall.candidate.accuracy:.1%}, "
                f"p = {overall.p_value:.2g}",
            )
        return report, files

    async def _called(
        self, made: specs.Named, name: str, update: Callable[..., Awaitable[Any]]
    ) -> specs.Named:
        """What was made, under the loop's name, tags and note."""
        changed, arguments = specs.called(self._config, made, name)
        return cast(specs.Named, await update(changed, **arguments)) if arguments else made

    async def _created(
        self, stage: Stage, inputs: list[bytes | str], create: Callable[[str], Awaitable[Job]]
    ) -> Job:
        """The job of a stage: the one that is there unless it went wrong, else a new one."""
        for attempt in range(1, MAX_ATTEMPTS + 1):
            job = await create(self._request_id(stage, *inputs, str(attempt)))
            if job.HasField("delete_time"):
                continue
            if stage != "dataset":
                self._made(job.name)
            if jobs.has_succeeded(job):
                return job
            if not jobs.has_ended(job):
                self._emit(stage, "progress", resource=job.name, message="queued")
                return job
        jobs.check_succeeded(job)
        raise AssertionError("a job that ended well was returned")

    def _request_id(self, stage: Stage, *inputs: bytes | str) -> str:
        return digest_of("tunix-rt-loop/1", self._config.name, stage, *inputs)[:40]

    def _prepare_output(self) -> None:
        """Find out before the long work whether its results can be written."""
        probe = self._output / ".writable"
        try:
            write_atomically(probe, b"")
            probe.unlink()
        except OSError as error:
            raise FailedPreconditionError(
                f"output_dir {self._output}: cannot be written: {error.strerror or error}",
                reason="OUTPUT_UNWRITABLE",
            ) from error

    def _progress(self, stage: Stage, job: v1.Dataset | v1.Evaluation) -> None:
        self._emit(stage, "progress", resource=job.name, **facts_of(job.progress))

    @contextmanager
    def _stage(self, stage: Stage) -> Iterator[None]:
        started = time.monotonic()
        self._emit(stage, "started")
        yield
        self._seconds[stage] = time.monotonic() - started

    def _emit(self, stage: Stage, kind: Any, **facts: Any) -> None:
        if self._on_event is not None:
            self._on_event(LoopEvent(stage, kind, **facts))


def notes(output_dir: Path) -> dict[str, Any]:
    """What loops noted in an output folder; raises OSError, and ValueError for what they did not write."""
    return dict(json.loads(read_text(output_dir / STATE_FILE, _MAX_STATE_BYTES)))


def made_by(output_dir: Path) -> list[str]:
    """The names of what loops with this output folder made, in that order; raises as ``notes``."""
    return [str(name) for name in notes(output_dir).get("made", ())]


def _noticed(dataset: v1.Dataset) -> str:
    """What was noticed of the rows that are learned."""
    told = [
        f"; of {notice.rows.row_count:,} in train {notice.reason}"
        for notice in dataset.notices
        if notice.split == "train"
    ]
    return "".join(told)


def _redacted(redactor: Redactor | None) -> str:
    if redactor is None:
        return ""
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(redactor.counts.items()))
    return f"; redacted: {kinds or 'nothing'}"


def _told(result: ImportResult) -> str:
    read = f"{result.read:,} trace{'' if result.read == 1 else 's'}"
    return f"{read}: {result.created:,} stored, {result.skipped:,} there already"

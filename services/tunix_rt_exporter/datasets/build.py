"""Builds of datasets as jobs, and one build from the traces of a snapshot to files, step by step.

What comes of it does not depend on the order in which the traces arrive. Where one of several rows must go,
the rows of the parent stay first, and then those with the lowest content digest.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

import numpy as np

from tunix_rt_exporter.datasets.decontaminate import EvalIndex, EvalMatch
from tunix_rt_exporter.datasets.deduplicate import (
    Signatures,
    by_precedence,
    without_duplicates,
    without_near_duplicates,
)
from tunix_rt_exporter.datasets.model import (
    TRAIN,
    BuildResult,
    Dataset,
    DatasetSpec,
    DroppedRows,
    EvalPrompts,
    EvalSetSource,
    Parent,
    Report,
    SourceTrace,
    TemplateFacts,
    TraceSource,
    content_text,
)
from tunix_rt_exporter.datasets.render import RenderedRow, RowRenderer, Unwritable
from tunix_rt_exporter.datasets.rows import (
    KEPT,
    Outcome,
    Replaced,
    RowPlaces,
    RowStore,
    parent_of,
    row_places,
)
from tunix_rt_exporter.datasets.select import (
    MODEL_ANSWER,
    UNMARKED,
    is_model_answer,
    newest_of_each_content,
    selected,
)
from tunix_rt_exporter.datasets.service import DatasetRepository
from tunix_rt_exporter.datasets.split import SplitGroups, assigned_splits, without_conflicts
from tunix_rt_exporter.datasets.write import (
    DROP_CODES,
    builder_versions,
    contaminated,
    disagrees,
    dropped_counts,
    dropped_in_words,
    dropped_line,
    manifest,
    notices,
    refusal,
    statistics,
    stored_file,
    unwritable,
    write_dropped,
    write_splits,
)
from tunix_rt_kit.artifacts import ArtifactStore, storage_errors
from tunix_rt_kit.canonical import canonical_json, normalised
from tunix_rt_kit.chat import ChatTemplate, losses
from tunix_rt_kit.errors import DomainError, FailedPrecondition
from tunix_rt_kit.jobs.engine import LIVE, JobKind, Leases
from tunix_rt_kit.jobs.run import Run
from tunix_rt_kit.values import JobError, JobState, Progress

BATCH: Final = 256
# A word of its own, which no text of a trace holds, so that texts can be normalised in one go.
_BETWEEN: Final = " \0 "


class DatasetBuild:
    """Builds one dataset.

    Args:
        spec: what to build, checked, every default filled in.
        template: the spec's chat template.
        eval_sets: those that the spec names.
        store: where the files go.
        folder: an empty local folder for the rows while they are sorted.
        parent: the dataset that the spec names as such.
        other_eval_sets: gives those that the spec does not name; may raise DomainError, which is noticed.
        report: is told of progress after each batch, and may raise to end the build.
        keep_places: is given where each trace went, once all files are written.
    """

    def __init__(
        self,
        spec: DatasetSpec,
        *,
        template: ChatTemplate,
        eval_sets: Sequence[EvalPrompts],
        store: ArtifactStore,
        folder: Path,
        report: Report,
        parent: Parent | None = None,
        other_eval_sets: Callable[[], Iterable[EvalPrompts]] = tuple,
        keep_places: Callable[[RowPlaces], None] = lambda _: None,
    ) -> None:
        self._spec = spec
        self._template = template
        # In the order of digests, so that a row with items of several sets always counts for the same one.
        self._eval_sets = sorted(eval_sets, key=lambda eval_set: eval_set.digest)
        self._store = store
        self._folder = folder
        self._report = report
        self._parent = parent
        self._other_eval_sets = other_eval_sets
        self._keep_places = keep_places
        self._groups = SplitGroups(spec.split_group)

    def run(self, traces: Iterable[Sequence[SourceTrace]]) -> BuildResult:
        """Build from the matching traces of the snapshot.

        Nothing is visible before the end.

        Raises:
            FailedPrecondition: DATASET_EMPTY if no row is left, or none for the split "train";
                SPLIT_GROUP_MISSING if no trace has the metadata field of the spec; TARGET_LOST or
                ROWS_UNRENDERABLE if rows cannot be written and the spec refuses that; CHAT_TEMPLATE_HISTORY.
            InvalidArgument: the chat template fails.
            DomainError: what the stores raise; and whatever ``report`` raises.
        """
        names = [split.split for split in self._spec.splits]
        with ExitStack() as stack:
            rows = stack.enter_context(RowStore(self._folder / "rows", self._spec.seed))
            texts = self._signatures(stack, "texts", self._spec.deduplication.threshold)
            prompts = self._signatures(stack, "prompts", self._spec.split_group.near_duplicate_threshold)
            trace_count = self._read(traces, rows, texts, prompts)
            outcome = self._decide(rows, texts, prompts)
            if refused := refusal(self._spec, rows, outcome):
                raise refused
            counts = dropped_counts(rows, outcome, self._eval_sets)
            dropped = dropped_in_words(counts)
            self._check_rows(outcome, dropped)
            splits = write_splits(rows, outcome, names, self._store, self._report)
            dropped_rows = write_dropped(rows, outcome, self._store, self._report)
            figures = statistics(rows.keys["figures"][outcome.rows])
            noticed = tuple(notices(rows, outcome, names, self._other_eval_sets, self._report))
            self._keep_places(row_places(rows, outcome))
        parent_digest = self._parent.digest if self._parent else ""
        described = manifest(
            self._spec,
            chat_template_digest=self._template.digest,
            eval_sets=self._eval_sets,
            parent_digest=parent_digest,
            distinct_traces=outcome.distinct,
            dropped=counts,
            splits=splits,
            statistics=figures,
        )
        stored = self._store.put_bytes(canonical_json(described))
        return BuildResult(
            digest=stored.digest,
            manifest=stored_file("manifest.json", stored),
            splits=tuple(splits),
            trace_count=trace_count,
            dropped=(*_copies(trace_count - outcome.distinct), *dropped),
            statistics=figures,
            dropped_rows=dropped_rows,
            parent_digest=parent_digest,
            builder_versions=builder_versions(),
            template_facts=_template_facts(self._template),
            notices=noticed,
        )

    def _signatures(self, stack: ExitStack, name: str, threshold: float | None) -> Signatures | None:
        """What finds near-duplicates, or None where nobody asks for them."""
        if threshold is None:
            return None
        return stack.enter_context(Signatures(self._folder / name, threshold))

    def _read(
        self,
        traces: Iterable[Sequence[SourceTrace]],
        rows: RowStore,
        texts: Signatures | None,
        prompts: Signatures | None,
    ) -> int:
        """Take all traces into ``rows``, a batch at a time; returns how many."""
        items = EvalIndex(self._eval_sets, self._spec.decontamination.ngram_words)
        renderer = RowRenderer(
            self._template,
            self._spec.reasoning_style,
            self._spec.special_tokens,
            train_on=self._spec.train_on,
            changed_history=self._spec.changed_history,
        )
        count = 0
        self._report(Progress(stage="reading traces", unit="traces"))
        for part in traces:
            for start in range(0, len(part), BATCH):
                batch = part[start : start + BATCH]
                self._groups.look_for_field(batch)
                self._add(batch, rows, items, renderer)
                if texts is not None:
                    texts.add([trace.said for trace in batch])
                if prompts is not None:
                    prompts.add([trace.prompt for trace in batch])
                count += len(batch)
                self._report(Progress(stage="reading traces", completed=count, unit="traces"))
        self._groups.check(count)
        rows.flush()
        if not count:
            raise _empty(f"no trace of snapshot {self._spec.as_of} matches the filter")
        self._report(Progress(stage="comparing rows", total=count, unit="rows"))
        return count

    def _add(
        self, batch: Sequence[SourceTrace], rows: RowStore, items: EvalIndex, renderer: RowRenderer
    ) -> None:
        """Select, decontaminate and render: each trace becomes a row, or is dropped."""
        stages = [self._left_out(trace) for trace in batch]
        taken = [trace for trace, stage in zip(batch, stages, strict=True) if stage is None]
        found: Sequence[EvalMatch | None] = [None] * len(taken)
        if self._eval_sets:
            spoken = any(trace.messages for trace in taken)
            questions = [trace.questions for trace in taken] if spoken else None
            found = items.matches([trace.texts for trace in taken], questions)
        clean = [trace for trace, match in zip(taken, found, strict=True) if match is None]
        matches, rendered = iter(found), renderer.render(clean)
        for trace, stage in zip(batch, stages, strict=True):
            if stage is not None:
                rows.add_dropped(trace, DROP_CODES[stage], dropped_line(trace.digest.hex(), stage))
            elif match := next(matches):
                eval_set = self._eval_sets[match.eval_set]
                rows.add_dropped(trace, *contaminated(trace.digest.hex(), match, eval_set))
            elif isinstance(row := next(rendered), Unwritable):
                rows.add_dropped(trace, *unwritable(trace.digest.hex(), row))
            else:
                self._add_row(trace, row, rows)

    def _left_out(self, trace: SourceTrace) -> str | None:
        """The stage that drops a trace before it is looked into, if one does."""
        if self._spec.model_answers == "drop" and is_model_answer(trace):
            return MODEL_ANSWER
        return UNMARKED if trace.messages and not trace.learned_turns(self._spec.train_on) else None

    def _add_row(self, trace: SourceTrace, row: RenderedRow, rows: RowStore) -> None:
        if trace.messages:
            text = normalised(_BETWEEN.join(self._whole_text(trace)))
            prompt = normalised(trace.prompt)
        else:
            text = normalised(_BETWEEN.join(trace.texts))
            prompt = "" if text.startswith("\0") else text.partition(_BETWEEN)[0]
        group = self._groups.of(trace, prompt)
        rows.add(trace, row, group=group, text=text, prompt=prompt, disagrees=disagrees(trace))

    def _whole_text(self, trace: SourceTrace) -> Iterator[str]:
        """All that a conversation teaches, and what it teaches it with: the ids of calls are neither."""
        # No text holds a zero, so that no trace of another form and no other turns have the same texts.
        yield "\0\0"
        yield from trace.tools
        learned = trace.learned_turns(self._spec.train_on)
        for number, message in enumerate(trace.messages):
            yield f"\0{message['role']}{number in learned}"
            yield from (message.get("name", ""), message.get("reasoning", ""), content_text(message))
            for call in message.get("tool_calls", ()):
                yield from ("\0call", call["name"], call["arguments"])

    def _decide(self, rows: RowStore, texts: Signatures | None, prompts: Signatures | None) -> Outcome:
        """Drop duplicates, assign splits, select and order."""
        distinct = newest_of_each_content(rows)
        codes = rows.keys["drop_code"][distinct]
        parent = self._parent.rows if self._parent else b""
        kept = by_precedence(distinct[codes == KEPT], rows, parent)
        replaced: list[Replaced] = []
        if self._spec.deduplication.method != "identical":
            kept, duplicates = without_duplicates(kept, rows)
            replaced.append(duplicates)
        if texts is not None:
            kept, near_duplicates = without_near_duplicates(kept, texts, self._report)
            replaced.append(near_duplicates)
        splits = assigned_splits(rows, self._spec.splits)
        if prompts is not None:
            kept, conflicts = without_conflicts(kept, splits, prompts, self._report)
            replaced.append(conflicts)
        chosen = selected(kept, rows, self._spec.selection)
        return Outcome(
            rows=chosen,
            splits=splits[chosen],
            distinct=len(distinct),
            dropped=distinct[codes != KEPT],
            replaced=replaced,
            unselected=np.setdiff1d(kept, chosen, assume_unique=True),
        )

    def _check_rows(self, outcome: Outcome, dropped: Sequence[DroppedRows]) -> None:
        counts = Counter(outcome.splits.tolist())
        for number, split in enumerate(self._spec.splits):
            if split.split == TRAIN and not counts[number] and len(outcome.rows):
                raise _empty(
                    f"none of the {len(outcome.rows)} rows falls into the split {TRAIN!r} of fraction "
                    f"{split.fraction:g}"
                )
        if not len(outcome.rows):
            why = ", ".join(f"{entry.row_count} as {entry.stage} ({entry.reason})" for entry in dropped)
            raise _empty(f"every matching trace was dropped: {why}")


def _copies(count: int) -> list[DroppedRows]:
    """Traces with a content that was there already: no part of the manifest."""
    reason = "the same content is there already"
    return [DroppedRows(stage="duplicate", reason=reason, row_count=count)] if count else []


def _template_facts(template: ChatTemplate) -> TemplateFacts:
    return TemplateFacts(
        required_tokens=template.markers,
        control_texts=template.control_texts,
        losses=tuple(losses(template)),
    )


def _empty(why: str) -> FailedPrecondition:
    return FailedPrecondition(f"the dataset would be empty: {why}", reason="DATASET_EMPTY")


_PROGRESS_S: Final = 0.25
# How often a build begins again by itself, and the first pause before, which then doubles: 15.5 s in all.
_MOST_RETRIES: Final = 5
_RETRY_PAUSE_S: Final = 0.5


class Builds(JobKind):
    """The builds of datasets. A build that was interrupted begins anew.

    Args:
        repository: where datasets are remembered.
        traces, eval_sets: what datasets are made from.
        artifacts: where their files go.
        folder: for unfinished builds, of all servers with this data folder.
        slots: how many builds run at once.
    """

    name = "build"

    def __init__(
        self,
        repository: DatasetRepository,
        *,
        traces: TraceSource,
        eval_sets: EvalSetSource,
        artifacts: ArtifactStore,
        folder: Path,
        slots: int,
    ) -> None:
        super().__init__(repository, slots)
        self._repository = repository
        self._traces = traces
        self._eval_sets = eval_sets
        self._artifacts = artifacts
        self._folder = folder

    def remove_leftovers(self, leases: Leases) -> None:
        """Delete what servers that have ended left half-written; unfinished artifacts a day after."""
        with storage_errors(str(self._folder)):
            self._folder.mkdir(parents=True, exist_ok=True)
            folders = list(self._folder.iterdir())
        # Read after the folders: a build is leased for as long as it has one.
        leased = {build_id for build_id, lease in leases.all().items() if not lease.free}
        for folder in folders:
            if folder.name.partition(".")[0] not in leased:
                shutil.rmtree(folder, ignore_errors=True)
        self._artifacts.remove_stale()

    def work(self, run: Run) -> None:
        change, build_id = self._repository.change_state, run.job_id
        # RUNNING too: another server may have begun, or the answer to this very change may have been lost.
        waiting = (JobState.QUEUED, JobState.RUNNING)
        if not run.retry(lambda: change(build_id, waiting, JobState.RUNNING)):
            run.check()
            return
        result = self._built(run)
        # What is done waits for a database that is full or read-only, too.
        run.retry(lambda: change(build_id, LIVE, JobState.SUCCEEDED, result=result), (DomainError,))

    def failure(self, job_id: str, error: Exception) -> JobError:
        if isinstance(error, DomainError):
            return super().failure(job_id, error)
        message = "internal error; the server's log says more"
        metadata = {"build_id": job_id, "type": type(error).__name__}
        return JobError(code="INTERNAL", reason="INTERNAL", message=message, metadata=metadata)

    def _built(self, run: Run) -> BuildResult:
        """What comes of a build, begun again a few times if what it needs can be had by that."""
        retries = 0
        while True:
            dataset = run.retry(lambda: self._repository.by_build(run.job_id))
            try:
                return self._of_its_digest(dataset, self._build(dataset, run))
            except DomainError as error:
                if retries == _MOST_RETRIES or not self._may_go_on(error, dataset, run):
                    raise
            run.pause(_RETRY_PAUSE_S * 2**retries)
            retries += 1

    def _of_its_digest(self, dataset: Dataset, result: BuildResult) -> BuildResult:
        """``result``; raises FailedPrecondition if the dataset was another one before it was deleted."""
        if dataset.bound_digest in (None, result.digest):
            return result
        raise FailedPrecondition(
            f"datasets/{dataset.spec.key} was {dataset.bound_digest} before it was deleted, and is "
            f"{result.digest} now; use another version for this content",
            reason="DATASET_VERSION_BOUND",
            metadata={"name": f"datasets/{dataset.spec.key}", "digest": str(dataset.bound_digest)},
        )

    def _may_go_on(self, error: DomainError, dataset: Dataset, run: Run) -> bool:
        """Whether a build that failed by ``error`` may do better now, from a newer snapshot if need be."""
        if error.reason == "SNAPSHOT_INCOMPLETE" and dataset.snapshot_open:
            as_of = self._traces.resolve(dataset.spec.filter, 0)
            return run.retry(lambda: self._repository.take_snapshot(dataset, as_of))
        return error.reason == "STORAGE_UNAVAILABLE"

    def _build(self, dataset: Dataset, run: Run) -> BuildResult:
        spec = dataset.spec
        with self._own_folder(dataset.build_id) as folder:
            build = DatasetBuild(
                spec,
                template=ChatTemplate.of(spec.chat_template),
                eval_sets=[self._eval_sets.prompts(name) for name in spec.eval_sets],
                other_eval_sets=lambda: self._other_eval_sets(spec.eval_sets),
                store=self._artifacts,
                folder=folder,
                report=self._reporter(run),
                parent=self._parent(spec.parent, run),
                keep_places=lambda places: run.retry(lambda: self._repository.keep_places(dataset, places)),
            )
            return build.run(self._traces.traces(spec.filter, spec.as_of, run.pause))

    def _other_eval_sets(self, named: Collection[str]) -> Iterator[EvalPrompts]:
        for name in self._eval_sets.names():
            if name not in named:
                yield self._eval_sets.prompts(name)

    def _parent(self, name: str, run: Run) -> Parent | None:
        if not name:
            return None
        dataset_id, _, version = name.removeprefix("datasets/").partition("@")
        dataset = run.retry(lambda: self._repository.find(dataset_id, version))
        if dataset is None or dataset.result is None:
            raise FailedPrecondition(f"the parent {name} is not complete", reason="DATASET_NOT_READY")
        return parent_of(self._artifacts, dataset.result)

    @contextmanager
    def _own_folder(self, build_id: str) -> Iterator[Path]:
        """An empty folder of this run's own, in place of those that earlier servers left of the build."""
        for left in self._folder.glob(f"{build_id}*"):
            shutil.rmtree(left, ignore_errors=True)
        with storage_errors(str(self._folder)):
            folder = Path(tempfile.mkdtemp(prefix=f"{build_id}.", dir=self._folder))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _reporter(self, run: Run) -> Callable[[Progress], None]:
        told, stage = 0.0, ""

        def report(progress: Progress) -> None:
            nonlocal told, stage
            run.check()
            now = time.monotonic()
            if progress.stage != stage or progress.completed == progress.total or now - told >= _PROGRESS_S:
                # A database that is away costs the watchers a figure, not the build.
                with suppress(DomainError):
                    self._repository.set_progress(run.job_id, progress)
                told, stage = time.monotonic(), progress.stage

        return report

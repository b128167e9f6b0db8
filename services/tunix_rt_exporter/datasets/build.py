"""One build of a dataset, from the traces of a snapshot to files, in the order of the steps.

What comes of it does not depend on the order in which the traces arrive. Where one of several rows must go,
the rows of the parent stay first, and then those with the lowest content digest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

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
    DatasetSpec,
    DroppedRows,
    EvalPrompts,
    Parent,
    Report,
    SourceTrace,
    TemplateFacts,
)
from tunix_rt_exporter.datasets.notices import disagrees, notices
from tunix_rt_exporter.datasets.render import RenderedRow, RowRenderer, Unwritable
from tunix_rt_exporter.datasets.rows import KEPT, Outcome, Replaced, RowStore
from tunix_rt_exporter.datasets.select import MODEL_ANSWER, is_model_answer, newest_of_each_content, selected
from tunix_rt_exporter.datasets.split import SplitGroups, assigned_splits, without_conflicts
from tunix_rt_exporter.datasets.write import (
    DROP_CODES,
    builder_versions,
    contaminated,
    dropped_counts,
    dropped_in_words,
    dropped_line,
    manifest,
    refusal,
    statistics,
    stored_file,
    unwritable,
    write_dropped,
    write_splits,
)
from tunix_rt_kit.artifacts import ArtifactStore, canonical_json
from tunix_rt_kit.chat import ChatTemplate, losses
from tunix_rt_kit.errors import FailedPrecondition
from tunix_rt_kit.text import normalised
from tunix_rt_kit.values import Progress

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
        self._groups = SplitGroups(spec.split_group)

    def run(self, traces: Iterable[Sequence[SourceTrace]]) -> BuildResult:
        """Build from the matching traces of the snapshot.

        Nothing is visible before the end.

        Raises:
            FailedPrecondition: DATASET_EMPTY if no row is left, or none for the split "train";
                SPLIT_GROUP_MISSING if no trace has the metadata field of the spec; TARGET_LOST or
                ROWS_UNRENDERABLE if rows cannot be written and the spec refuses that.
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
            if self._spec.unwritable_rows == "refuse" and (refused := refusal(rows, outcome)):
                raise refused
            counts = dropped_counts(rows, outcome, self._eval_sets)
            dropped = dropped_in_words(counts)
            self._check_rows(outcome, dropped)
            splits = write_splits(rows, outcome, names, self._store, self._report)
            dropped_rows = write_dropped(rows, outcome, self._store, self._report)
            figures = statistics(rows.keys["figures"][outcome.rows])
            noticed = tuple(notices(rows, outcome, names, self._other_eval_sets, self._report))
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
        renderer = RowRenderer(self._template, self._spec.reasoning_style, self._spec.special_tokens)
        count = 0
        self._report(Progress(stage="reading traces", unit="traces"))
        for part in traces:
            for start in range(0, len(part), BATCH):
                batch = part[start : start + BATCH]
                self._groups.look_for_field(batch)
                self._add(batch, rows, items, renderer)
                if texts is not None:
                    texts.add(["\n".join(_texts(trace)) for trace in batch])
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
        drops_answers = self._spec.model_answers == "drop"
        answers = [drops_answers and is_model_answer(trace) for trace in batch]
        taken = [trace for trace, answer in zip(batch, answers, strict=True) if not answer]
        found: Sequence[EvalMatch | None] = [None] * len(taken)
        if self._eval_sets:
            found = items.matches([_texts(trace) for trace in taken])
        clean = [trace for trace, match in zip(taken, found, strict=True) if match is None]
        matches, rendered = iter(found), renderer.render(clean)
        for trace, answer in zip(batch, answers, strict=True):
            if answer:
                line = dropped_line(trace.digest.hex(), MODEL_ANSWER)
                rows.add_dropped(trace, DROP_CODES[MODEL_ANSWER], line)
            elif match := next(matches):
                eval_set = self._eval_sets[match.eval_set]
                rows.add_dropped(trace, *contaminated(trace.digest.hex(), match, eval_set))
            elif isinstance(row := next(rendered), Unwritable):
                rows.add_dropped(trace, *unwritable(trace.digest.hex(), row))
            else:
                self._add_row(trace, row, rows)

    def _add_row(self, trace: SourceTrace, row: RenderedRow, rows: RowStore) -> None:
        text = normalised(_BETWEEN.join(_texts(trace)))
        prompt = "" if text.startswith("\0") else text.partition(_BETWEEN)[0]
        group = self._groups.of(trace, prompt)
        rows.add(trace, row, group=group, text=text, prompt=prompt, disagrees=disagrees(trace))

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
            unselected=len(kept) - len(chosen),
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


def _texts(trace: SourceTrace) -> list[str]:
    return [trace.prompt, *[step["content"] for step in trace.steps], trace.final_answer]


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

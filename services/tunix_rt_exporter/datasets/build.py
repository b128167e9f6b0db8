"""One build of a dataset: read the snapshot, drop, order, write, and describe what was made."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Final

from tunix_rt_exporter.datasets.deduplicate import Signatures
from tunix_rt_exporter.datasets.dropped import copies, dropped_rows, lasting_counts, refusal, report_lines
from tunix_rt_exporter.datasets.manifest import builder_versions, manifest
from tunix_rt_exporter.datasets.model import (
    FORMATS,
    TRAIN,
    BuildResult,
    DatasetSpec,
    DroppedRows,
    EvalPrompts,
    Notice,
    Parent,
    SourceTrace,
    SplitFiles,
    Statistics,
)
from tunix_rt_exporter.datasets.notices import notices
from tunix_rt_exporter.datasets.select import TraceReader
from tunix_rt_exporter.datasets.split import Arrangement, Rules, arrange, distribution
from tunix_rt_exporter.datasets.spool import RowSpool
from tunix_rt_exporter.datasets.templates import template_facts
from tunix_rt_kit.artifacts import Artifact, ArtifactStore, canonical_json
from tunix_rt_kit.chat import ChatTemplate
from tunix_rt_kit.errors import FailedPrecondition
from tunix_rt_kit.values import Progress, StoredFile

WRITE_BATCH: Final = 1_000

Report = Callable[[Progress], None]


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
        # In the order of digests, so that a prompt of several sets is always laid to the same one.
        self._eval_sets = sorted(eval_sets, key=lambda eval_set: eval_set.digest)
        self._store = store
        self._folder = folder
        self._report = report
        self._parent = parent
        self._other_eval_sets = other_eval_sets

    def run(self, traces: Iterable[Sequence[SourceTrace]]) -> BuildResult:
        """Build from the matching traces of the snapshot.

        Raises FailedPrecondition: DATASET_EMPTY if no row is left, or none for the split "train",
        SPLIT_GROUP_MISSING if no trace has the metadata field of the spec, and TARGET_LOST or
        ROWS_UNRENDERABLE if rows cannot be written and the spec refuses that; InvalidArgument if the chat
        template fails; and what the stores and ``report`` raise. Nothing is visible before the end.
        """
        with ExitStack() as stack:
            spool = stack.enter_context(RowSpool(self._folder / "rows", self._spec.seed))
            rules = self._rules(stack)
            trace_count = self._read(spool, rules, traces)
            spool.flush()
            if not trace_count:
                raise _empty(f"no trace of snapshot {self._spec.as_of} matches the filter")
            self._report(Progress(stage="comparing rows", total=trace_count, unit="rows"))
            arrangement = arrange(spool, rules, self._report)
            if self._spec.unwritable_rows == "refuse" and (refused := refusal(spool, arrangement)):
                raise refused
            dropped = dropped_rows(spool, arrangement, self._eval_sets)
            lasting = lasting_counts(spool, arrangement, self._eval_sets)
            self._check_rows(arrangement, dropped)
            splits = self._write(spool, arrangement)
            report = self._write_report(spool, arrangement)
            figures = spool.figures[arrangement.rows]
            found = self._notices(spool, arrangement)
        statistics = Statistics(
            steps=distribution(figures[:, 0]),
            prompt_characters=distribution(figures[:, 1]),
            response_characters=distribution(figures[:, 2]),
        )
        parent_digest = self._parent.digest if self._parent else ""
        described = manifest(
            self._spec,
            chat_template_digest=self._template.digest,
            eval_sets=self._eval_sets,
            parent_digest=parent_digest,
            distinct_traces=arrangement.distinct,
            dropped=lasting,
            splits=splits,
            statistics=statistics,
        )
        stored = self._store.put_bytes(canonical_json(described))
        return BuildResult(
            digest=stored.digest,
            manifest=_file("manifest.json", stored),
            splits=tuple(splits),
            trace_count=trace_count,
            dropped=(*copies(trace_count, arrangement), *dropped),
            statistics=statistics,
            dropped_rows=report,
            parent_digest=parent_digest,
            builder_versions=builder_versions(),
            template_facts=template_facts(self._template),
            notices=found,
        )

    def _rules(self, stack: ExitStack) -> Rules:
        deduplication, group = self._spec.deduplication, self._spec.split_group

        def signatures(name: str, threshold: float | None) -> Signatures | None:
            if threshold is None:
                return None
            return stack.enter_context(Signatures(self._folder / name, threshold))

        return Rules(
            selection=self._spec.selection,
            splits=self._spec.splits,
            exact=deduplication.method != "identical",
            near=signatures("texts", deduplication.threshold),
            apart=signatures("prompts", group.near_duplicate_threshold),
            parent=self._parent.rows if self._parent else b"",
        )

    def _read(self, spool: RowSpool, rules: Rules, traces: Iterable[Sequence[SourceTrace]]) -> int:
        reader = TraceReader(
            self._spec,
            template=self._template,
            eval_sets=self._eval_sets,
            spool=spool,
            near=rules.near,
            apart=rules.apart,
        )
        return reader.read(traces, self._report)

    def _write_report(self, spool: RowSpool, arrangement: Arrangement) -> StoredFile | None:
        total = len(arrangement.marked) + sum(len(replaced.rows) for replaced in arrangement.replaced)
        if not total:
            return None
        lines, done = report_lines(spool, arrangement), 0
        with self._store.writer() as writer:
            while batch := list(islice(lines, WRITE_BATCH)):
                writer.write(b"".join(batch))
                done += len(batch)
                self._report(Progress(stage="writing dropped rows", completed=done, total=total, unit="rows"))
        return _file("dropped.jsonl", writer.artifact)

    def _notices(self, spool: RowSpool, arrangement: Arrangement) -> tuple[Notice, ...]:
        names = [split.split for split in self._spec.splits]
        found = notices(spool, arrangement, names, self._other_eval_sets, self._report)
        return tuple(found)

    def _check_rows(self, arrangement: Arrangement, dropped: Sequence[DroppedRows]) -> None:
        counts = Counter(arrangement.splits.tolist())
        for number, split in enumerate(self._spec.splits):
            if split.split == TRAIN and not counts[number] and len(arrangement.rows):
                raise _empty(
                    f"none of the {len(arrangement.rows)} rows falls into the split {TRAIN!r} of fraction "
                    f"{split.fraction:g}"
                )
        if not len(arrangement.rows):
            why = ", ".join(f"{entry.row_count} as {entry.stage} ({entry.reason})" for entry in dropped)
            raise _empty(f"every matching trace was dropped: {why}")

    def _write(self, spool: RowSpool, arrangement: Arrangement) -> list[SplitFiles]:
        total, done, started = len(arrangement.rows), 0, time.monotonic()
        names = [split.split for split in self._spec.splits]
        with ExitStack() as stack:
            writers = [[stack.enter_context(self._store.writer()) for _ in FORMATS] for _ in names]
            while done < total:
                end = min(done + WRITE_BATCH, total)
                lines: list[list[list[bytes]]] = [[[] for _ in FORMATS] for _ in names]
                for row, split in zip(
                    arrangement.rows[done:end].tolist(), arrangement.splits[done:end].tolist(), strict=True
                ):
                    for format_lines, line in zip(lines[split], spool.lines(row), strict=True):
                        format_lines.append(line)
                for split_writers, split_lines in zip(writers, lines, strict=True):
                    for writer, format_lines in zip(split_writers, split_lines, strict=True):
                        writer.write(b"".join(format_lines))
                done = end
                eta_s = (time.monotonic() - started) * (total - done) / done
                self._report(
                    Progress(stage="writing rows", completed=done, total=total, unit="rows", eta_s=eta_s)
                )
        counts: Mapping[int, int] = Counter(arrangement.splits.tolist())
        return [
            SplitFiles(
                split=name,
                row_count=counts.get(number, 0),
                files={
                    kind: _file(f"{name}/{kind}.jsonl", writer.artifact)
                    for kind, writer in zip(FORMATS, writers[number], strict=True)
                },
            )
            for number, name in enumerate(names)
        ]


def _file(path: str, artifact: Artifact) -> StoredFile:
    return StoredFile(path=path, size_bytes=artifact.size, digest=artifact.digest, uri=artifact.uri)


def _empty(why: str) -> FailedPrecondition:
    return FailedPrecondition(f"the dataset would be empty: {why}", reason="DATASET_EMPTY")

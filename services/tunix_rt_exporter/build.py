"""One build of a dataset: read the snapshot, drop, order, write, and describe what was made."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from tunix_rt_exporter.arrange import Arrangement, arrange, distribution
from tunix_rt_exporter.manifest import DUPLICATE, manifest
from tunix_rt_exporter.model import (
    FORMATS,
    TRAIN,
    BuildResult,
    DatasetSpec,
    DroppedRows,
    EvalPrompts,
    Progress,
    SourceTrace,
    SplitFiles,
    Statistics,
    StoredFile,
)
from tunix_rt_exporter.rows import RowRenderer
from tunix_rt_exporter.spool import KEPT, RowSpool
from tunix_rt_kit.artifacts import Artifact, ArtifactStore, canonical_json
from tunix_rt_kit.chat import ChatTemplate
from tunix_rt_kit.errors import FailedPrecondition
from tunix_rt_kit.text import normalised

RENDER_BATCH: Final = 256
WRITE_BATCH: Final = 1_000
_UNRENDERABLE: Final = 1
_FIRST_EVAL_SET: Final = 2

Report = Callable[[Progress], None]


class DatasetBuild:
    """Builds one dataset.

    Args:
        spec: what to build, checked, every default filled in.
        template: the spec's chat template.
        eval_sets: those that the spec names.
        store: where the files go.
        spool_path: a local file for the rows while they are sorted.
        report: is told of progress after each batch, and may raise to end the build.
    """

    def __init__(
        self,
        spec: DatasetSpec,
        *,
        template: ChatTemplate,
        eval_sets: Sequence[EvalPrompts],
        store: ArtifactStore,
        spool_path: Path,
        report: Report,
    ) -> None:
        self._spec = spec
        self._template = template
        # In the order of digests, so that a prompt of several sets is always laid to the same one.
        self._eval_sets = sorted(eval_sets, key=lambda eval_set: eval_set.digest)
        self._store = store
        self._spool_path = spool_path
        self._report = report

    def run(self, traces: Iterable[Sequence[SourceTrace]]) -> BuildResult:
        """Build from the matching traces of the snapshot.

        Raises FailedPrecondition(DATASET_EMPTY) if no row is left, or none for the split "train";
        InvalidArgument if the chat template fails; and what the stores and ``report`` raise. Nothing is
        visible before the end.
        """
        with RowSpool(self._spool_path, self._spec.seed) as spool:
            trace_count = self._read(spool, traces)
            spool.flush()
            if not trace_count:
                raise _empty(f"no trace of snapshot {self._spec.as_of} matches the filter")
            arrangement = arrange(spool, self._spec.selection, self._spec.splits)
            dropped = self._dropped(trace_count, arrangement)
            self._check_rows(arrangement, dropped)
            splits = self._write(spool, arrangement)
            figures = spool.figures[arrangement.rows]
        statistics = Statistics(
            steps=distribution(figures[:, 0]),
            prompt_characters=distribution(figures[:, 1]),
            response_characters=distribution(figures[:, 2]),
        )
        described = manifest(
            self._spec,
            chat_template_digest=self._template.digest,
            eval_sets=self._eval_sets,
            distinct_traces=arrangement.distinct,
            dropped=self._dropped(trace_count, arrangement, by_digest=True),
            splits=splits,
            statistics=statistics,
        )
        stored = self._store.put_bytes(canonical_json(described))
        return BuildResult(
            digest=stored.digest,
            manifest=_file("manifest.json", stored),
            splits=tuple(splits),
            trace_count=trace_count,
            dropped=tuple(dropped),
            statistics=statistics,
        )

    def _read(self, spool: RowSpool, traces: Iterable[Sequence[SourceTrace]]) -> int:
        renderer = RowRenderer(self._template, self._spec.reasoning_style)
        eval_prompts: dict[str, int] = {}
        for number, eval_set in enumerate(self._eval_sets, start=_FIRST_EVAL_SET):
            for prompt in eval_set.prompts:
                eval_prompts.setdefault(normalised(prompt), number)
        count = 0
        self._report(Progress(stage="reading traces"))
        for part in traces:
            for start in range(0, len(part), RENDER_BATCH):
                batch = part[start : start + RENDER_BATCH]
                prompts = [normalised(trace.prompt) for trace in batch]
                marks = [eval_prompts.get(prompt, KEPT) for prompt in prompts]
                rows = renderer.render([t for t, mark in zip(batch, marks, strict=True) if mark == KEPT])
                for trace, prompt, mark in zip(batch, prompts, marks, strict=True):
                    row = next(rows) if mark == KEPT else None
                    spool.add(trace, prompt, row, mark if row or mark else _UNRENDERABLE)
                count += len(batch)
                self._report(Progress(stage="reading traces", completed=count))
        return count

    def _dropped(
        self, trace_count: int, arrangement: Arrangement, *, by_digest: bool = False
    ) -> list[DroppedRows]:
        entries = [
            DroppedRows(
                stage=DUPLICATE,
                reason="the same content is there already",
                row_count=trace_count - arrangement.distinct,
            )
        ]
        if by_digest:
            entries = []
        for number, eval_set in enumerate(self._eval_sets, start=_FIRST_EVAL_SET):
            where = eval_set.digest if by_digest else eval_set.name
            entries.append(
                DroppedRows(
                    stage="contaminated",
                    reason=f"the prompt stands in {where}",
                    row_count=arrangement.marked.get(number, 0),
                )
            )
        entries += [
            DroppedRows(
                stage="unrenderable",
                reason="a text holds a control text of the chat template",
                row_count=arrangement.marked.get(_UNRENDERABLE, 0),
            ),
            DroppedRows(stage="selection", reason="not selected", row_count=arrangement.unselected),
        ]
        return [entry for entry in entries if entry.row_count]

    def _check_rows(self, arrangement: Arrangement, dropped: Sequence[DroppedRows]) -> None:
        counts = Counter(arrangement.splits.tolist())
        for number, split in enumerate(self._spec.splits):
            if split.split == TRAIN and not counts[number] and len(arrangement.rows):
                raise _empty(
                    f"none of the {len(arrangement.rows)} rows falls into the split {TRAIN!r} of fraction "
                    f"{split.fraction:g}"
                )
        if not len(arrangement.rows):
            why = ", ".join(f"{entry.row_count} as {entry.stage}" for entry in dropped)
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

"""Looks afterwards for rows of a dataset that give away items of an eval set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tunix_rt_exporter.datasets.decontaminate import EvalIndex, EvalMatch
from tunix_rt_exporter.datasets.model import BuildResult, Decontamination, EvalPrompts
from tunix_rt_exporter.datasets.stored_rows import stored_rows
from tunix_rt_kit.artifacts import ArtifactStore


@dataclass(frozen=True, slots=True)
class FoundRow:
    """A row that gives away an item, and the split that it is in."""

    row_id: str
    split: str
    match: EvalMatch


@dataclass(frozen=True, slots=True)
class AuditPart:
    """What was found since the part before, and how many of all the rows were compared so far."""

    found: Sequence[FoundRow]
    compared: int
    total: int


def audit(
    store: ArtifactStore, result: BuildResult, eval_set: EvalPrompts, rule: Decontamination
) -> Iterator[AuditPart]:
    """Compare every row with every item, as a build does; one part at least. Raises DataLoss."""
    index = EvalIndex([eval_set], rule.ngram_words)
    total, compared = sum(split.row_count for split in result.splits), 0
    for split, rows in stored_rows(store, result):
        matches = index.matches(
            [
                [row["prompts"], *(step["content"] for step in row["trace_steps"]), row["final_answer"]]
                for row in rows
            ]
        )
        compared += len(rows)
        yield AuditPart(
            [
                FoundRow(row["id"], split, match)
                for row, match in zip(rows, matches, strict=True)
                if match is not None
            ],
            compared,
            total,
        )

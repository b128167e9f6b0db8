"""What a build left out: counts for the manifest and the dataset, and a report that names each row.

A line of the report is canonical JSON: ``id`` and ``stage``, and with them what the row matched. The lines
stand in the order of stages, then of row ids. Second copies of a content, which have the id of the first, are
not in it, and neither are rows that were merely not selected.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np

from tunix_rt_exporter.datasets.model import DroppedRows, EvalPrompts
from tunix_rt_exporter.datasets.render import TARGET_LOST, UNRENDERABLE
from tunix_rt_exporter.datasets.split import DUPLICATE, NEAR_DUPLICATE, SPLIT_CONFLICT, Arrangement
from tunix_rt_exporter.datasets.spool import RowSpool
from tunix_rt_kit.artifacts import canonical_json
from tunix_rt_kit.errors import FailedPrecondition

CONTAMINATED: Final = "contaminated"
SELECTION: Final = "selection"
MODEL_ANSWER: Final = "model_answer"
MARKS: Final = {UNRENDERABLE: 1, TARGET_LOST: 2, MODEL_ANSWER: 3}
_UNWRITABLE: Final = (UNRENDERABLE, TARGET_LOST)
FIRST_EVAL_SET: Final = 8
_NAMED: Final = 5
_REASONS: Final = {
    UNRENDERABLE: "a text holds a control text or a special token, or the template refuses it",
    MODEL_ANSWER: "a model's answer in an evaluation",
    TARGET_LOST: "the chat template does not write the prompt, the reasoning or the answer as it is",
    SELECTION: "not selected",
    DUPLICATE: "prompt, steps and answer are those of another row after normalisation",
    NEAR_DUPLICATE: "a near-duplicate of another row",
    SPLIT_CONFLICT: "its prompt is a near-duplicate of one in another split",
}


def note(digest: bytes, stage: str, **matched: Any) -> bytes:
    """A line of the report."""
    return canonical_json({"id": digest.hex(), "stage": stage, **matched}) + b"\n"


def report_lines(spool: RowSpool, arrangement: Arrangement) -> Iterator[bytes]:
    """The lines of the report."""
    for row in arrangement.marked[np.argsort(spool.marks[arrangement.marked], kind="stable")].tolist():
        yield spool.note(row)
    digests = spool.digests
    for replaced in arrangement.replaced:
        order = np.argsort(digests[replaced.rows], kind="stable")
        for row, kept in zip(replaced.rows[order].tolist(), replaced.kept[order].tolist(), strict=True):
            yield note(spool.digest(row), replaced.stage, kept=spool.digest(kept).hex())


def refusal(spool: RowSpool, arrangement: Arrangement) -> FailedPrecondition | None:
    """The error that names the rows which the chat template cannot write as they are; None if it can all."""
    marks = spool.marks[arrangement.marked]
    found = {stage: arrangement.marked[marks == MARKS[stage]].tolist() for stage in _UNWRITABLE}
    if not any(found.values()):
        return None
    told = [
        f"{len(rows)} as {stage} ({', '.join(_named(spool, row) for row in rows[:_NAMED])}"
        f"{', ...' if len(rows) > _NAMED else ''})"
        for stage, rows in found.items()
        if rows
    ]
    return FailedPrecondition(
        f"rows cannot be written as they are, which the spec refuses: {'; '.join(told)}",
        reason="TARGET_LOST" if found[TARGET_LOST] else "ROWS_UNRENDERABLE",
        metadata={stage: str(len(rows)) for stage, rows in found.items()},
    )


def _named(spool: RowSpool, row: int) -> str:
    """A dropped row by the beginning of its id, and what is wrong with it."""
    fields = json.loads(spool.note(row))
    facts = [_told(fields[name]) for name in sorted(fields.keys() - {"id", "stage"})]
    return f"{fields['id'][:12]}: {', '.join(facts)}"


def _told(fact: Any) -> str:
    return " and ".join(fact) if isinstance(fact, list) else str(fact)[:100]


def dropped_rows(
    spool: RowSpool, arrangement: Arrangement, eval_sets: Sequence[EvalPrompts]
) -> list[DroppedRows]:
    """How many rows each stage left out, and why, in words."""
    return [
        DroppedRows(
            stage=stage,
            reason=_REASONS[stage] if eval_set is None else f"gives away an item of {eval_set.name}",
            row_count=count,
        )
        for stage, eval_set, count in _counts(spool, arrangement, eval_sets)
    ]


def lasting_counts(
    spool: RowSpool, arrangement: Arrangement, eval_sets: Sequence[EvalPrompts]
) -> list[dict[str, Any]]:
    """The same for the manifest: without words, which may be put better, and with eval sets by digest."""
    return [
        {"stage": stage, "row_count": count} | ({} if eval_set is None else {"eval_set": eval_set.digest})
        for stage, eval_set, count in _counts(spool, arrangement, eval_sets)
    ]


def _counts(
    spool: RowSpool, arrangement: Arrangement, eval_sets: Sequence[EvalPrompts]
) -> list[tuple[str, EvalPrompts | None, int]]:
    marks, counts = np.unique(spool.marks[arrangement.marked], return_counts=True)
    marked = dict(zip(marks.tolist(), counts.tolist(), strict=True))
    entries: list[tuple[str, EvalPrompts | None, int]] = [
        (CONTAMINATED, eval_set, marked.get(number, 0))
        for number, eval_set in enumerate(eval_sets, start=FIRST_EVAL_SET)
    ]
    entries += [(stage, None, marked.get(mark, 0)) for stage, mark in MARKS.items()]
    entries += [(part.stage, None, len(part.rows)) for part in arrangement.replaced]
    entries.append((SELECTION, None, arrangement.unselected))
    return [entry for entry in entries if entry[2]]


def copies(trace_count: int, arrangement: Arrangement) -> list[DroppedRows]:
    """How many traces had a content that was there already: no part of the manifest."""
    count = trace_count - arrangement.distinct
    reason = "the same content is there already"
    return [DroppedRows(stage="duplicate", reason=reason, row_count=count)] if count else []

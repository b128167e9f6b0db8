"""Writes what a build made: the files of the splits, the report of dropped rows, and the manifest. Also what
a person should know of rows that were kept, which is no part of the manifest.

A line of the report is canonical JSON: ``id`` and ``stage``, and with them what the row matched. The lines
stand in the order of stages, then of row ids. Second copies of a content, which have the id of the first, are
not in it, and neither are rows that were merely not selected.

The manifest says what a dataset is, in canonical JSON, and its digest is the dataset's. It holds nothing that
depends on where, when or how often the traces were stored: no names, times, URIs, snapshot numbers, and no
count of second copies. Inputs are named by digest. The versions in it are those of rules and formats, which
can change a row; those of packages, which must not, stand beside it.
"""

from __future__ import annotations

import json
import platform
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from decimal import Decimal, InvalidOperation
from importlib import metadata
from itertools import islice
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tunix_rt_exporter.datasets.decontaminate import CONTAMINATED, EvalMatch, asked_texts
from tunix_rt_exporter.datasets.deduplicate import DUPLICATE, NEAR_DUPLICATE
from tunix_rt_exporter.datasets.model import (
    CONVERSATION_EXAMPLE,
    FORMATS,
    BuildResult,
    Dataset,
    DatasetSpec,
    Distribution,
    DroppedRows,
    EvalPrompts,
    Notice,
    NoticeKind,
    Report,
    SourceTrace,
    SplitFiles,
    Statistics,
    TraceUse,
)
from tunix_rt_exporter.datasets.render import (
    CHANGED_HISTORY,
    TARGET_LOST,
    UNRENDERABLE,
    Unwritable,
    example_of,
)
from tunix_rt_exporter.datasets.rows import LEFT_OUT, Outcome, RowStore, prompt_key
from tunix_rt_exporter.datasets.select import MODEL_ANSWER, SELECTION, UNMARKED
from tunix_rt_exporter.datasets.split import SPLIT_CONFLICT
from tunix_rt_exporter.datasets.word_runs import Integers
from tunix_rt_kit.artifacts import Artifact, ArtifactStore
from tunix_rt_kit.canonical import canonical_json, normalised
from tunix_rt_kit.errors import DataLoss, DomainError, FailedPrecondition
from tunix_rt_kit.values import Progress, StoredFile, TimeLeft

WRITE_BATCH: Final = 1_000

MANIFEST_FORMAT: Final = "tunix-rt/dataset/4"
ROW_FORMATS: Final = {"trace": 1, "tunix_sft": 2, "training_example": 2}
# Raised when a rule begins to decide otherwise about any row.
RULE_VERSIONS: Final = {
    "contamination": 2,
    "duplicates": 1,
    "model_answers": 1,
    "near_duplicates": 2,
    "order": 1,
    "splits": 1,
    "unwritable": 2,
}
# Of what datasets with conversations alone have.
_CONVERSATION_VERSIONS: Final = {"conversation": 1, CONVERSATION_EXAMPLE: 1}
_CONVERSATION_FIELDS: Final = ("train_on", "changed_history")
_PACKAGES: Final = ("tunix-rt", "numpy", "datasketch", "jinja2")
_SPEC_FIELDS: Final = {
    "filter",
    "selection",
    "splits",
    "seed",
    "chat_template",
    "reasoning_style",
    "deduplication",
    "split_group",
    "decontamination",
    "model_answers",
    "special_tokens",
}

DROP_CODES: Final = {UNRENDERABLE: 1, TARGET_LOST: 2, MODEL_ANSWER: 3, CHANGED_HISTORY: 4, UNMARKED: 5}
"""Of rows that are dropped while they are read; those of contaminated rows follow, by eval set."""
_FIRST_EVAL_SET: Final = 8
_UNWRITABLE: Final = (UNRENDERABLE, TARGET_LOST)
_REFUSALS: Final = {
    TARGET_LOST: "TARGET_LOST",
    UNRENDERABLE: "ROWS_UNRENDERABLE",
    CHANGED_HISTORY: "CHAT_TEMPLATE_HISTORY",
}
_NAMED: Final = 5
_LONGEST_TOLD: Final = 100
_REASONS: Final = {
    UNRENDERABLE: "a text holds a control text or a special token, or the template refuses it",
    MODEL_ANSWER: "a model's answer in an evaluation",
    CHANGED_HISTORY: "the chat template writes an earlier turn in another way when one is added",
    UNMARKED: "no turn of the conversation is to be learned, by its marks",
    TARGET_LOST: "the chat template does not write the prompt, the reasoning or the answer as it is",
    SELECTION: "not selected",
    DUPLICATE: "prompt, steps and answer are those of another row after normalisation",
    NEAR_DUPLICATE: "a near-duplicate of another row",
    SPLIT_CONFLICT: "its prompt is a near-duplicate of one in another split",
}


def write_splits(
    rows: RowStore, outcome: Outcome, names: Sequence[str], store: ArtifactStore, report: Report
) -> list[SplitFiles]:
    """Write the kept rows: a file for each split and format. ``report`` may raise to end it."""
    total, done, left = len(outcome.rows), 0, TimeLeft()
    with ExitStack() as stack:
        formats = (*FORMATS, CONVERSATION_EXAMPLE) if rows.keys["examples"][outcome.rows].any() else FORMATS
        writers = [[stack.enter_context(store.writer()) for _ in formats] for _ in names]
        while done < total:
            end = min(done + WRITE_BATCH, total)
            lines: list[list[list[bytes]]] = [[[] for _ in formats] for _ in names]
            batch = zip(outcome.rows[done:end].tolist(), outcome.splits[done:end].tolist(), strict=True)
            for row, split in batch:
                written = rows.lines(row)
                for format_lines, line in zip(lines[split], written, strict=False):
                    format_lines.append(line)
                if formats != FORMATS:
                    lines[split][-1].append(rows.examples(row) or example_of(written[2]))
            for split_writers, split_lines in zip(writers, lines, strict=True):
                for writer, format_lines in zip(split_writers, split_lines, strict=True):
                    writer.write(b"".join(format_lines))
            done = end
            eta_s = left.after(done, total, time.monotonic())
            report(Progress(stage="writing rows", completed=done, total=total, unit="rows", eta_s=eta_s))
    counts = Counter(outcome.splits.tolist())
    return [
        SplitFiles(
            split=name,
            row_count=counts[number],
            files={
                kind: stored_file(f"{name}/{kind}.jsonl", writer.artifact)
                for kind, writer in zip(formats, writers[number], strict=True)
            },
        )
        for number, name in enumerate(names)
    ]


def write_dropped(
    rows: RowStore, outcome: Outcome, store: ArtifactStore, report: Report
) -> StoredFile | None:
    """Write the report of dropped rows, if there are any. ``report`` may raise to end it."""
    total = len(outcome.dropped) + sum(len(replaced.rows) for replaced in outcome.replaced)
    if not total:
        return None
    lines, done = _dropped_lines(rows, outcome), 0
    with store.writer() as writer:
        while batch := list(islice(lines, WRITE_BATCH)):
            writer.write(b"".join(batch))
            done += len(batch)
            report(Progress(stage="writing dropped rows", completed=done, total=total, unit="rows"))
    return stored_file("dropped.jsonl", writer.artifact)


def contaminated(row_id: str, match: EvalMatch, eval_set: EvalPrompts) -> tuple[int, bytes]:
    """The drop code of a row that contains an item of ``eval_set``, and its line of the report."""
    line = dropped_line(
        row_id,
        CONTAMINATED,
        eval_set=eval_set.name,
        eval_item=match.item,
        match=match.kind.name.lower(),
        matched_text=match.text,
    )
    return _FIRST_EVAL_SET + match.eval_set, line


def unwritable(row_id: str, row: Unwritable) -> tuple[int, bytes]:
    """The drop code of a row that the chat template cannot write, and its line of the report."""
    return DROP_CODES[row.stage], dropped_line(row_id, row.stage, **row.facts)


def dropped_line(row_id: str, stage: str, **matched: Any) -> bytes:
    """A line of the report of dropped rows."""
    return canonical_json({"id": row_id, "stage": stage, **matched}) + b"\n"


def why_left_out(line: dict[str, Any]) -> str:
    """What a line of the report of dropped rows says, in words."""
    stage = line["stage"]
    if stage == CONTAMINATED:
        how = f"{line['match']}: {line['matched_text'][:_LONGEST_TOLD]}"
        return f"gives away item {line['eval_item']} of {line['eval_set']} ({how})"
    facts = [_told(line[name]) for name in ("control_text", "problem", "lost") if line.get(name)]
    if "kept" in line:
        facts.append(f"row {line['kept'][:12]} is kept")
    told = _REASONS.get(stage, stage)
    return f"{told} ({'; '.join(facts)})" if facts else told


def trace_use(store: ArtifactStore, dataset: Dataset, row_id: str, place: int, number: int) -> TraceUse:
    """What became of a trace in a complete dataset, of which ``rows.RowPlaces`` tells place and number."""
    result = dataset.result
    assert result is not None
    use = TraceUse(dataset=f"datasets/{dataset.spec.key}", dataset_digest=result.digest, row_id=row_id)
    if place >= 0:
        return use.model_copy(update={"split": result.splits[place].split, "row_number": number})
    line: dict[str, Any] = {"stage": SELECTION}
    if place == LEFT_OUT:
        try:
            line = _report_line(store, result, row_id)
        except DataLoss as error:
            return use.model_copy(update={"reason": f"why cannot be told: {error.message}"})
    facts = {name: line.get(name, "") for name in ("stage", "eval_set", "eval_item")}
    return use.model_copy(update={**facts, "kept_row_id": line.get("kept", ""), "reason": why_left_out(line)})


def _report_line(store: ArtifactStore, result: BuildResult, row_id: str) -> dict[str, Any]:
    """The line of the report of dropped rows that is about a row."""
    assert result.dropped_rows is not None
    beginning = f'"id":"{row_id}"'.encode()
    for line in store.iter_lines(result.dropped_rows.digest):
        if beginning in line:
            found: dict[str, Any] = json.loads(line)
            return found
    raise DataLoss(f"the report of dropped rows has no row {row_id}", reason="REPORT_DAMAGED")


def refusal(spec: DatasetSpec, rows: RowStore, outcome: Outcome) -> FailedPrecondition | None:
    """The error that names the rows which the chat template cannot write as they are, if there are any and
    the spec refuses them."""
    codes = rows.keys["drop_code"][outcome.dropped]
    # There are rows of this stage only where the spec refuses them.
    stages = (*(_UNWRITABLE if spec.unwritable_rows == "refuse" else ()), CHANGED_HISTORY)
    found = {stage: outcome.dropped[codes == DROP_CODES[stage]].tolist() for stage in stages}
    if not any(found.values()):
        return None
    told = [
        f"{len(numbers)} as {stage} ({', '.join(_named(rows, row) for row in numbers[:_NAMED])}"
        f"{', ...' if len(numbers) > _NAMED else ''})"
        for stage, numbers in found.items()
        if numbers
    ]
    return FailedPrecondition(
        f"rows cannot be written as they are, which the spec refuses: {'; '.join(told)}",
        reason=next(_REFUSALS[stage] for stage in _REFUSALS if found.get(stage)),
        metadata={stage: str(len(numbers)) for stage, numbers in found.items()},
    )


def dropped_counts(
    rows: RowStore, outcome: Outcome, eval_sets: Sequence[EvalPrompts]
) -> list[tuple[str, EvalPrompts | None, int]]:
    """How many rows each stage dropped, and for contaminated rows the eval set."""
    codes, counts = np.unique(rows.keys["drop_code"][outcome.dropped], return_counts=True)
    by_code = dict(zip(codes.tolist(), counts.tolist(), strict=True))
    entries: list[tuple[str, EvalPrompts | None, int]] = [
        (CONTAMINATED, eval_set, by_code.get(code, 0))
        for code, eval_set in enumerate(eval_sets, start=_FIRST_EVAL_SET)
    ]
    entries += [(stage, None, by_code.get(code, 0)) for stage, code in DROP_CODES.items()]
    entries += [(replaced.stage, None, len(replaced.rows)) for replaced in outcome.replaced]
    entries.append((SELECTION, None, len(outcome.unselected)))
    return [entry for entry in entries if entry[2]]


def dropped_in_words(counts: Sequence[tuple[str, EvalPrompts | None, int]]) -> list[DroppedRows]:
    """What ``dropped_counts`` found, with reasons for people."""
    return [
        DroppedRows(
            stage=stage,
            reason=_REASONS[stage] if eval_set is None else f"gives away an item of {eval_set.name}",
            row_count=count,
        )
        for stage, eval_set, count in counts
    ]


def manifest(
    spec: DatasetSpec,
    *,
    chat_template_digest: str,
    eval_sets: Sequence[EvalPrompts],
    parent_digest: str,
    distinct_traces: int,
    dropped: Sequence[tuple[str, EvalPrompts | None, int]],
    splits: Sequence[SplitFiles],
    statistics: Statistics,
) -> dict[str, Any]:
    """The manifest of a dataset; ``dropped`` is what ``dropped_counts`` gives."""
    conversations = any(CONVERSATION_EXAMPLE in split.files for split in splits)
    # Without conversations it is as it was before there were any.
    defaults = DatasetSpec.model_fields
    fields = {
        name
        for name in _CONVERSATION_FIELDS
        if conversations or getattr(spec, name) != defaults[name].default
    }
    return {
        "format": MANIFEST_FORMAT,
        "row_formats": {**ROW_FORMATS, **(_CONVERSATION_VERSIONS if conversations else {})},
        "rules": RULE_VERSIONS,
        "spec": spec.model_dump(mode="json", include=_SPEC_FIELDS | fields),
        "chat_template_digest": chat_template_digest,
        "eval_set_digests": sorted({eval_set.digest for eval_set in eval_sets}),
        "parent_digest": parent_digest,
        "distinct_traces": distinct_traces,
        # Without words, which may be put better, and with eval sets by digest.
        "dropped": [
            {"stage": stage, "row_count": count} | ({} if eval_set is None else {"eval_set": eval_set.digest})
            for stage, eval_set, count in dropped
        ],
        "splits": [_split(split) for split in splits],
        "statistics": statistics.model_dump(),
    }


def statistics(figures: Integers) -> Statistics:
    """Figures over rows, from the steps, prompt characters and response characters of each, [rows, 3]."""
    steps, prompts, responses = map(_distribution, figures.T)
    return Statistics(steps=steps, prompt_characters=prompts, response_characters=responses)


def builder_versions() -> dict[str, str]:
    """Versions of what builds datasets here, by package."""
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in _PACKAGES}


def stored_file(path: str, artifact: Artifact) -> StoredFile:
    """An artifact as a file of a dataset."""
    return StoredFile(path=path, size_bytes=artifact.size, digest=artifact.digest, uri=artifact.uri)


def _dropped_lines(rows: RowStore, outcome: Outcome) -> Iterator[bytes]:
    for row in outcome.dropped[np.argsort(rows.keys["drop_code"][outcome.dropped], kind="stable")].tolist():
        yield rows.dropped_line(row)
    digests = rows.keys["digest"]
    for replaced in outcome.replaced:
        order = np.argsort(digests[replaced.rows], kind="stable")
        for row, kept in zip(replaced.rows[order].tolist(), replaced.kept[order].tolist(), strict=True):
            yield dropped_line(rows.row_id(row), replaced.stage, kept=rows.row_id(kept))


def _named(rows: RowStore, row: int) -> str:
    """A dropped row by the beginning of its id, and what is wrong with it."""
    fields = json.loads(rows.dropped_line(row))
    facts = [_told(fields[name]) for name in sorted(fields.keys() - {"id", "stage"})]
    return f"{fields['id'][:12]}: {', '.join(facts)}"


def _told(fact: Any) -> str:
    return " and ".join(fact) if isinstance(fact, list) else str(fact)[:_LONGEST_TOLD]


def _split(split: SplitFiles) -> Mapping[str, Any]:
    return {
        "split": split.split,
        "rows": split.row_count,
        "files": {
            name: {"path": file.path, "bytes": file.size_bytes, "digest": file.digest}
            for name, file in split.files.items()
        },
    }


def _distribution(values: Integers) -> Distribution:
    """The spread of at least one integer, the same on every machine."""
    ordered = np.sort(values)
    count = len(ordered)
    return Distribution(
        minimum=int(ordered[0]),
        mean=int(ordered.sum()) / count,
        median=(int(ordered[(count - 1) // 2]) + int(ordered[count // 2])) / 2,
        p95=int(ordered[-(-95 * count // 100) - 1]),
        maximum=int(ordered[-1]),
    )


MAX_NAMED_ROWS: Final = 20
MAX_EVAL_SETS: Final = 1_000
_REFERENCE: Final = "reference_answer"
_LONGEST_NUMBER: Final = 64


def disagrees(trace: SourceTrace) -> bool:
    """Whether a trace has a reference answer which its final answer is not, neither as text nor as number.

    A conversation ends in what people say, and says its answer in other words.
    """
    if trace.messages:
        return False
    reference = trace.metadata.get(_REFERENCE)
    if isinstance(reference, bool) or not isinstance(reference, str | int | float):
        return False
    given, wanted = normalised(trace.final_answer), normalised(str(reference))
    if given == wanted:
        return False
    number = _number(given)
    return number is None or number != _number(wanted)


def notices(
    rows: RowStore,
    outcome: Outcome,
    splits: Sequence[str],
    eval_sets: Callable[[], Iterable[EvalPrompts]],
    report: Report,
) -> Iterator[Notice]:
    """What is to be noticed about the rows that were kept, by split; raises what ``report`` raises.

    Args:
        rows, outcome: the rows, and which of them are kept.
        splits: the names of the splits.
        eval_sets: gives the eval sets that rows are looked for in; may raise DomainError.
        report: is told of progress.
    """

    def named(kind: NoticeKind, reason: str, found: npt.NDArray[np.bool_]) -> Iterator[Notice]:
        for number, split in enumerate(splits):
            kept = outcome.rows[found & (outcome.splits == number)].tolist()
            if kept:
                ids = tuple(rows.row_id(row) for row in kept[:MAX_NAMED_ROWS])
                yield Notice(kind=kind, split=split, reason=reason, row_count=len(kept), example_row_ids=ids)

    disagreeing = rows.keys["disagrees"][outcome.rows]
    yield from named("reference_answer", f"the answer is not the metadata's {_REFERENCE}", disagreeing)
    # ``isin`` takes no numbers in the other byte order where some are above 2**63.
    keys = rows.keys["prompt"][outcome.rows].astype(np.uint64)
    try:
        others = iter(eval_sets())
        for count, eval_set in enumerate(islice(others, MAX_EVAL_SETS)):
            report(Progress(stage="looking at eval sets", completed=count, unit="eval sets"))
            texts = (text for turns in eval_set.prompts.values() for text in asked_texts(turns))
            prompts = b"".join(prompt_key(normalised(text)) for text in texts)
            asked = np.isin(keys, np.frombuffer(prompts, dtype=">u8").astype(np.uint64))
            yield from named("eval_prompt", f"the prompt stands in {eval_set.name}", asked)
        if next(others, None) is not None:
            yield _unknown(f"only the newest {MAX_EVAL_SETS:,} eval sets were looked at")
    except DomainError as error:
        yield _unknown(f"rows were not looked for in all eval sets: {error.message}")


def _unknown(reason: str) -> Notice:
    return Notice(kind="eval_sets_unknown", split="", reason=reason, row_count=0, example_row_ids=())


def _number(text: str) -> Decimal | None:
    try:
        number = Decimal(text.replace(",", "")) if len(text) <= _LONGEST_NUMBER else None
    except InvalidOperation:
        return None
    # "sNaN" is one for Decimal, and raises when it is compared.
    return number if number is not None and number.is_finite() else None

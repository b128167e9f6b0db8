"""The first half of a build: traces become rows in the spool, each with the keys that decide about it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from tunix_rt_exporter.datasets.decontaminate import EvalIndex, EvalMatch
from tunix_rt_exporter.datasets.deduplicate import Signatures
from tunix_rt_exporter.datasets.dropped import CONTAMINATED, FIRST_EVAL_SET, MARKS, MODEL_ANSWER, note
from tunix_rt_exporter.datasets.model import DatasetSpec, EvalPrompts, SourceTrace, SplitGroup
from tunix_rt_exporter.datasets.notices import disagrees
from tunix_rt_exporter.datasets.render import RenderedRow, RowRenderer, Unwritable
from tunix_rt_exporter.datasets.spool import RowSpool
from tunix_rt_kit.artifacts import canonical_json
from tunix_rt_kit.chat import ChatTemplate
from tunix_rt_kit.errors import FailedPrecondition
from tunix_rt_kit.text import normalised
from tunix_rt_kit.values import Progress

BATCH: Final = 256
MODEL_ANSWERS_SOURCE: Final = "evaluation"
"""The source of traces that were made of a model's answers."""
_EVALUATION: Final = "evaluations/"

# A word of its own, which no text of a trace holds, so that texts can be normalised in one go.
_BETWEEN: Final = " \0 "

_KEYS_KEPT: Final = 1_000
_KEYS_NAMED: Final = 10

Report = Callable[[Progress], None]


class TraceReader:
    """Renders traces, and finds out what they are compared by.

    Args:
        spec: what to build.
        template: the spec's chat template.
        eval_sets: those that the spec names; a row that gives away several is laid to the first.
        spool: takes the rows.
        near, apart: take the whole texts, and the prompts, of all rows; None where nobody compares them.
    """

    def __init__(
        self,
        spec: DatasetSpec,
        *,
        template: ChatTemplate,
        eval_sets: Sequence[EvalPrompts],
        spool: RowSpool,
        near: Signatures | None,
        apart: Signatures | None,
    ) -> None:
        self._renderer = RowRenderer(template, spec.reasoning_style, spec.special_tokens)
        self._drops_answers = spec.model_answers == "drop"
        self._eval_sets = eval_sets
        self._items = EvalIndex(eval_sets, spec.decontamination.ngram_words) if eval_sets else None
        self._group = spec.split_group
        self._grouped = spec.split_group.metadata_field is None
        self._keys: set[str] = set()
        self._spool = spool
        self._near = near
        self._apart = apart

    def read(self, traces: Iterable[Sequence[SourceTrace]], report: Report) -> int:
        """Take all traces, by parts; returns how many.

        Raises InvalidArgument if the template fails, and FailedPrecondition(SPLIT_GROUP_MISSING) if none of
        the traces has the metadata field that groups are made by.
        """
        count = 0
        report(Progress(stage="reading traces", unit="traces"))
        for part in traces:
            for start in range(0, len(part), BATCH):
                batch = part[start : start + BATCH]
                self._add(batch)
                count += len(batch)
                report(Progress(stage="reading traces", completed=count, unit="traces"))
        if count and not self._grouped:
            raise self._no_groups(count)
        return count

    def _add(self, batch: Sequence[SourceTrace]) -> None:
        if not self._grouped:
            self._look_for_groups(batch)
        taken = [trace for trace in batch if not self._drops(trace)]
        found: Sequence[EvalMatch | None] = [None] * len(taken)
        if self._items is not None:
            found = self._items.matches([_texts(trace) for trace in taken])
        matches = iter(found)
        rows = self._renderer.render(
            [trace for trace, match in zip(taken, found, strict=True) if match is None]
        )
        for trace in batch:
            if self._drops(trace):
                self._spool.add_dropped(trace, MARKS[MODEL_ANSWER], note(trace.digest, MODEL_ANSWER))
            elif (match := next(matches)) is not None:
                self._add_contaminated(trace, match)
            else:
                self._add_row(trace, next(rows))
        if self._near is not None:
            self._near.add(["\n".join(_texts(trace)) for trace in batch])
        if self._apart is not None:
            self._apart.add([trace.prompt for trace in batch])

    def _drops(self, trace: SourceTrace) -> bool:
        return self._drops_answers and is_model_answer(trace)

    def _add_row(self, trace: SourceTrace, row: RenderedRow | Unwritable) -> None:
        if isinstance(row, Unwritable):
            line = note(trace.digest, row.stage, **row.facts)
            self._spool.add_dropped(trace, MARKS[row.stage], line)
            return
        text = normalised(_BETWEEN.join(_texts(trace)))
        prompt = "" if text.startswith("\0") else text.partition(_BETWEEN)[0]
        group = split_group(self._group, prompt, trace.metadata)
        self._spool.add(trace, group, text, row, prompt=prompt, disagrees=disagrees(trace))

    def _add_contaminated(self, trace: SourceTrace, match: EvalMatch) -> None:
        fields = {
            "eval_set": self._eval_sets[match.eval_set].name,
            "eval_item": match.item,
            "match": match.kind.name.lower(),
            "matched_text": match.text,
        }
        line = note(trace.digest, CONTAMINATED, **fields)
        self._spool.add_dropped(trace, FIRST_EVAL_SET + match.eval_set, line)

    def _look_for_groups(self, batch: Sequence[SourceTrace]) -> None:
        self._grouped = any(self._group.metadata_field in trace.metadata for trace in batch)
        for trace in batch:
            if len(self._keys) < _KEYS_KEPT:
                self._keys.update(trace.metadata)

    def _no_groups(self, count: int) -> FailedPrecondition:
        field, named = self._group.metadata_field, ", ".join(map(repr, sorted(self._keys)[:_KEYS_NAMED]))
        right = f"one of {named} would be right" if named else "they have no metadata to group by"
        return FailedPrecondition(
            f"spec.split_group.metadata_field: is {field!r}, which none of the {count} traces has; {right}",
            reason="SPLIT_GROUP_MISSING",
            metadata={"metadata_field": field or "", "trace_count": str(count)},
        )


def is_model_answer(trace: SourceTrace) -> bool:
    """Whether a trace was made of what a model answered in an evaluation."""
    evaluation = trace.metadata.get("evaluation")
    named = isinstance(evaluation, str) and evaluation.startswith(_EVALUATION)
    return named or trace.source == MODEL_ANSWERS_SOURCE


def split_group(rule: SplitGroup, prompt: str, metadata: dict[str, Any]) -> str:
    """What a row's split hangs on: the normalised ``prompt``, or a value of the metadata."""
    if rule.metadata_field is None or rule.metadata_field not in metadata:
        return prompt
    return "\0" + canonical_json([rule.metadata_field, metadata[rule.metadata_field]]).decode()


def _texts(trace: SourceTrace) -> list[str]:
    return [trace.prompt, *[step["content"] for step in trace.steps], trace.final_answer]

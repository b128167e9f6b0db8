"""What a person should know of rows that a build kept. No part of the dataset's digest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from decimal import Decimal, InvalidOperation
from itertools import islice
from typing import Final

import numpy as np
import numpy.typing as npt

from tunix_rt_exporter.datasets.model import EvalPrompts, Notice, NoticeKind, Report, SourceTrace
from tunix_rt_exporter.datasets.rows import Outcome, RowStore, prompt_key
from tunix_rt_kit.errors import DomainError
from tunix_rt_kit.text import normalised
from tunix_rt_kit.values import Progress

MAX_NAMED_ROWS: Final = 20
MAX_EVAL_SETS: Final = 1_000
_REFERENCE: Final = "reference_answer"
_LONGEST_NUMBER: Final = 64


def disagrees(trace: SourceTrace) -> bool:
    """Whether a trace has a reference answer which its final answer is not, neither as text nor as number."""
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
            prompts = b"".join(prompt_key(normalised(prompt)) for prompt in eval_set.prompts.values())
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

"""Which traces become rows, which of the rows a dataset takes, and in which order.

Only the selection ``latest`` looks at the order of commits, because that is what it asks for.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from tunix_rt_exporter.datasets.model import MODEL_ANSWERS_SOURCE, Selection, SourceTrace
from tunix_rt_exporter.datasets.rows import RowStore
from tunix_rt_exporter.datasets.word_runs import Integers

MODEL_ANSWER: Final = "model_answer"
UNMARKED: Final = "unmarked"
SELECTION: Final = "selection"
_EVALUATION: Final = "evaluations/"


def is_model_answer(trace: SourceTrace) -> bool:
    """Whether a trace was made of what a model answered in an evaluation."""
    evaluation = trace.metadata.get("evaluation")
    named = isinstance(evaluation, str) and evaluation.startswith(_EVALUATION)
    return named or trace.source == MODEL_ANSWERS_SOURCE


def newest_of_each_content(rows: RowStore) -> Integers:
    """For each content the row that was committed last, in the order of content digests."""
    digests = rows.keys["digest"]
    order = np.lexsort((-rows.keys["sequence"], digests))
    ranked = digests[order]
    first = np.ones(len(order), dtype=bool)
    first[1:] = ranked[1:] != ranked[:-1]
    return order[first]


def selected(candidates: Integers, rows: RowStore, selection: Selection) -> Integers:
    """The candidates that the selection takes, in the order of the dataset: a hash of seed and content."""
    keys = rows.keys["order"][candidates]
    ordered = candidates[np.lexsort((keys[:, 1], keys[:, 0]))]
    count = len(ordered) if selection.count is None else min(selection.count, len(ordered))
    if selection.strategy == "random":
        return ordered[:count]
    if selection.strategy == "latest":
        newest = np.argsort(-rows.keys["sequence"][ordered], kind="stable")[:count]
        return ordered[np.sort(newest)]
    return ordered

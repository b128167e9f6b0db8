"""Options about duplicates, splits and leaks of a dataset, and the messages that they become."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from tunix_rt import v1
from tunix_rt.cli.spec_options import filled


class Unwritable(StrEnum):
    """What becomes of rows that the chat template cannot write as they are."""

    DROP = "drop"
    REFUSE = "refuse"


class Duplicates(StrEnum):
    """Which traces count as duplicates of each other."""

    EXACT = "exact"
    NEAR = "near"
    IDENTICAL = "identical"


_METHODS = {
    Duplicates.EXACT: v1.Deduplication.METHOD_EXACT,
    Duplicates.NEAR: v1.Deduplication.METHOD_NEAR,
    Duplicates.IDENTICAL: v1.Deduplication.METHOD_IDENTICAL,
}

UNWRITABLE = {Unwritable.DROP: v1.UNWRITABLE_ROWS_DROP, Unwritable.REFUSE: v1.UNWRITABLE_ROWS_REFUSE}

UnwritableOption = Annotated[
    Unwritable,
    typer.Option(
        "--unwritable",
        help="Rows that the template cannot write as they are: drop and name them, or refuse the build.",
    ),
]
ModelAnswersOption = Annotated[
    bool,
    typer.Option(
        "--model-answers",
        help="Take what models answered in evaluations too, as --source evaluation does.",
    ),
]
DuplicatesOption = Annotated[
    Duplicates,
    typer.Option(
        "--duplicates",
        help="Keep one of: exact, texts that are equal but for case and spaces; near, similar ones too; "
        "identical, only contents that are the same to the last character.",
    ),
]
SimilarityOption = Annotated[
    float | None,
    typer.Option(
        "--similarity", min=0.5, max=0.95, help="From where on two are near-duplicates. \\[default: 0.8]"
    ),
]
GroupByOption = Annotated[
    str | None,
    typer.Option(
        "--group-by",
        metavar="KEY",
        callback=filled,
        help="Rows with the same value of this metadata field share a split. \\[default: same prompt]",
    ),
]
KeepApartOption = Annotated[
    float | None,
    typer.Option(
        "--keep-apart",
        min=0.5,
        max=0.95,
        metavar="SIMILARITY",
        help="Drop rows whose prompt is this similar to one in another split.",
    ),
]
NgramOption = Annotated[
    int | None,
    typer.Option(
        "--ngram-words",
        min=0,
        max=64,
        help="So many words in a row give an eval item away; 0: only equal prompts. \\[default: 13]",
    ),
]
ParentOption = Annotated[
    str,
    typer.Option(
        "--parent",
        metavar="DATASET",
        help="Derive from this dataset: its rows come before any new ones, and stay in their splits.",
    ),
]


def deduplication(duplicates: Duplicates, similarity: float | None) -> v1.Deduplication:
    """Which traces count as duplicates. Raises typer.BadParameter."""
    if similarity is not None and duplicates is not Duplicates.NEAR:
        raise typer.BadParameter("--similarity goes with --duplicates near")
    return v1.Deduplication(method=_METHODS[duplicates], threshold=similarity)


def split_group(field: str | None, similarity: float | None) -> v1.SplitGroup:
    """Which rows share a split."""
    if field is not None:
        return v1.SplitGroup(metadata_field=field, near_duplicate_threshold=similarity)
    return v1.SplitGroup(prompt=True, near_duplicate_threshold=similarity)


def decontamination(ngram_words: int | None) -> v1.Decontamination:
    """How rows are compared with eval items."""
    return v1.Decontamination(ngram_words=ngram_words)

"""The manifest: what a dataset is, in canonical JSON. Its digest is the dataset's.

It holds nothing that hangs on where, when or how often the traces were stored: no names, times, URIs,
snapshot numbers, and no count of duplicates. Inputs are named by digest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from tunix_rt_exporter.model import DatasetSpec, DroppedRows, EvalPrompts, SplitFiles, Statistics

MANIFEST_FORMAT: Final = "tunix-rt/dataset/1"
ROW_FORMATS: Final = {"trace": 1, "tunix_sft": 1, "training_example": 1}
DUPLICATE: Final = "duplicate"


def manifest(
    spec: DatasetSpec,
    *,
    chat_template_digest: str,
    eval_sets: Sequence[EvalPrompts],
    distinct_traces: int,
    dropped: Sequence[DroppedRows],
    splits: Sequence[SplitFiles],
    statistics: Statistics,
) -> dict[str, Any]:
    """The manifest of a dataset; ``dropped`` names eval sets by digest, and leaves duplicates out."""
    fields = spec.model_dump(
        mode="json", include={"filter", "selection", "splits", "seed", "chat_template", "reasoning_style"}
    )
    return {
        "format": MANIFEST_FORMAT,
        "row_formats": ROW_FORMATS,
        "spec": fields,
        "chat_template_digest": chat_template_digest,
        "eval_set_digests": sorted({eval_set.digest for eval_set in eval_sets}),
        "distinct_traces": distinct_traces,
        "dropped": [entry.model_dump() for entry in dropped],
        "splits": [_split(split) for split in splits],
        "statistics": statistics.model_dump(),
    }


def _split(split: SplitFiles) -> Mapping[str, Any]:
    return {
        "split": split.split,
        "rows": split.row_count,
        "files": {
            name: {"path": file.path, "bytes": file.size_bytes, "digest": file.digest}
            for name, file in split.files.items()
        },
    }

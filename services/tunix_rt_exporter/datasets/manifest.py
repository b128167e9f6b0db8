"""The manifest: what a dataset is, in canonical JSON. Its digest is the dataset's.

It holds nothing that hangs on where, when or how often the traces were stored: no names, times, URIs,
snapshot numbers, and no count of second copies. Inputs are named by digest. The versions in it are those of
rules and formats, which can change a row; those of packages, which must not, stand beside it.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any, Final

from tunix_rt_exporter.datasets.model import DatasetSpec, EvalPrompts, SplitFiles, Statistics

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


def manifest(
    spec: DatasetSpec,
    *,
    chat_template_digest: str,
    eval_sets: Sequence[EvalPrompts],
    parent_digest: str,
    distinct_traces: int,
    dropped: Sequence[Mapping[str, Any]],
    splits: Sequence[SplitFiles],
    statistics: Statistics,
) -> dict[str, Any]:
    """The manifest of a dataset; ``dropped`` is what ``dropped.lasting_counts`` gives."""
    fields = spec.model_dump(mode="json", include=_SPEC_FIELDS)
    return {
        "format": MANIFEST_FORMAT,
        "row_formats": ROW_FORMATS,
        "rules": RULE_VERSIONS,
        "spec": fields,
        "chat_template_digest": chat_template_digest,
        "eval_set_digests": sorted({eval_set.digest for eval_set in eval_sets}),
        "parent_digest": parent_digest,
        "distinct_traces": distinct_traces,
        "dropped": list(dropped),
        "splits": [_split(split) for split in splits],
        "statistics": statistics.model_dump(),
    }


def builder_versions() -> dict[str, str]:
    """Versions of what builds datasets here, by package."""
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in _PACKAGES}


def _split(split: SplitFiles) -> Mapping[str, Any]:
    return {
        "split": split.split,
        "rows": split.row_count,
        "files": {
            name: {"path": file.path, "bytes": file.size_bytes, "digest": file.digest}
            for name, file in split.files.items()
        },
    }

"""Dataset builds without any service around them."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from tunix_rt import v1
from tunix_rt_exporter.convert import source_trace
from tunix_rt_exporter.datasets.build import DatasetBuild
from tunix_rt_exporter.datasets.model import (
    BuildResult,
    DatasetFormat,
    DatasetSpec,
    EvalPrompts,
    Parent,
    SourceTrace,
)
from tunix_rt_kit.artifacts import ArtifactStore
from tunix_rt_kit.canonical import digest_bytes, digest_json
from tunix_rt_kit.chat import ChatTemplate
from tunix_rt_kit.values import Progress


def source(number: int, sequence: int | None = None, **changes: Any) -> SourceTrace:
    """A trace whose content depends on ``number``; ``changes`` replace fields."""
    fields: dict[str, Any] = {
        "prompt": f"What is {number} + 1?",
        "steps": [{"i": 0, "type": "compute", "content": f"{number} + 1 = {number + 1}"}],
        "final_answer": str(number + 1),
        "metadata": {"number": number, "ratio": number / 3},
        **changes,
    }
    digest = bytes.fromhex(digest_json(fields).removeprefix("sha256:"))
    return SourceTrace(sequence=number + 1 if sequence is None else sequence, digest=digest, **fields)


def spoken(trace: v1.Trace, sequence: int = 1) -> SourceTrace:
    """A trace of the contract as a build takes it."""
    sent = v1.Trace()
    sent.CopyFrom(trace)
    sent.sequence = sequence
    sent.content_digest = digest_bytes(trace.SerializeToString(deterministic=True))
    return source_trace(sent)


def eval_set(name: str, *prompts: str) -> EvalPrompts:
    """An eval set of these prompts, its digest made from them."""
    digest = hashlib.sha256("\n".join(prompts).encode()).hexdigest()
    items = {f"item-{number}": [prompt] for number, prompt in enumerate(prompts)}
    return EvalPrompts(f"evalSets/{name}", f"sha256:{digest}", items)


def built(
    folder: Path,
    parts: Sequence[Sequence[SourceTrace]],
    eval_sets: Sequence[EvalPrompts] = (),
    *,
    parent: Parent | None = None,
    report: Callable[[Progress], None] = lambda _: None,
    other_eval_sets: Callable[[], Iterable[EvalPrompts]] = tuple,
    **spec: Any,
) -> BuildResult:
    """What comes of a build whose traces arrive in ``parts``."""
    wanted = DatasetSpec.model_validate({"dataset_id": "d", **spec})
    with tempfile.TemporaryDirectory(dir=folder) as own:
        build = DatasetBuild(
            wanted,
            template=ChatTemplate.of(wanted.chat_template),
            eval_sets=eval_sets,
            store=ArtifactStore(folder / "artifacts"),
            folder=Path(own),
            report=report,
            parent=parent,
            other_eval_sets=other_eval_sets,
        )
        return build.run(parts)


def read(folder: Path, result: BuildResult, split: str, kind: DatasetFormat) -> bytes:
    """A split of a build in a format."""
    (files,) = [entry.files for entry in result.splits if entry.split == split]
    return ArtifactStore(folder / "artifacts").read_bytes(files[kind].digest)

"""The formats that are made of a dataset's stored files when somebody first asks for them.

A derived file is a function of a file that the manifest names and of the spec. Its digest is bound to the
dataset with the first reading, so all later ones give the same bytes, whatever version of this code serves
them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from tunix_rt_exporter.datasets.locks import LockPerKey
from tunix_rt_exporter.datasets.model import BuildResult, Dataset, DatasetFormat, SplitFiles
from tunix_rt_exporter.datasets.ports import DerivedFiles
from tunix_rt_exporter.datasets.templates import chat_template
from tunix_rt_kit.artifacts import Artifact, ArtifactStore, canonical_json
from tunix_rt_kit.callers import holding
from tunix_rt_kit.chat import Message
from tunix_rt_kit.errors import DataLoss
from tunix_rt_kit.values import StoredFile

# Of a chat, the trace has the question and the training example the reply, which is thus what is trained on.
_SOURCES: Final[Mapping[DatasetFormat, Sequence[DatasetFormat]]] = {
    "chat": ("trace", "training_example"),
    "training_example_parquet": ("training_example",),
    "chat_parquet": ("chat",),
}
_PARQUET: Final = "_parquet"
_BATCH_BYTES: Final = 1 << 20


class DatasetFiles:
    """The file of a split in any format.

    Args:
        store: where all files are.
        bound: which derived file belongs to which dataset.
    """

    def __init__(self, store: ArtifactStore, bound: DerivedFiles) -> None:
        self._store = store
        self._bound = bound
        self._locks = LockPerKey()

    def get(
        self, dataset: Dataset, result: BuildResult, split: SplitFiles, kind: DatasetFormat
    ) -> StoredFile:
        """The file; one that was never read is made first, which takes as long as writing its rows does.

        Whoever asks meanwhile waits for it.

        Raises DataLoss: a file that it is made of is missing or damaged (ARTIFACT_MISSING, ARTIFACT_CORRUPT),
        or what is made now is not what was bound before (DERIVED_FILE_CHANGED).
        """
        if kind in split.files:
            return split.files[kind]
        path = file_name(split.split, kind)
        with holding(self._locks.of((result.digest, path))):
            return self._bound_or_made(dataset, result, split, kind)

    def _bound_or_made(
        self, dataset: Dataset, result: BuildResult, split: SplitFiles, kind: DatasetFormat
    ) -> StoredFile:
        path = file_name(split.split, kind)
        bound = self._bound.find(result.digest, path)
        if bound is not None and self._store.exists(bound.digest):
            return bound
        sources = [self.get(dataset, result, split, source) for source in _SOURCES[kind]]
        made = self._derive(dataset, sources, kind)
        file = StoredFile(path=path, size_bytes=made.size, digest=made.digest, uri=made.uri)
        kept = self._bound.bind(result.digest, file)
        if kept.digest != file.digest:
            raise DataLoss(
                f"{path} of datasets/{dataset.spec.key} was {kept.digest}, which is missing from {kept.uri}; "
                f"made again by this version it is {file.digest}",
                reason="DERIVED_FILE_CHANGED",
                metadata={"file": path, "digest": kept.digest, "actual_digest": file.digest},
            )
        return kept

    def _derive(self, dataset: Dataset, sources: Sequence[StoredFile], kind: DatasetFormat) -> Artifact:
        rows, *others = (map(json.loads, self._store.iter_lines(source.digest)) for source in sources)
        with self._store.writer() as writer:
            if kind.endswith(_PARQUET):
                # Not at the top: it is heavy, and most exporters are never asked for Parquet.
                from tunix_rt_exporter.datasets.parquet import write_parquet

                write_parquet(writer, kind.removesuffix(_PARQUET), rows)
            else:
                for block in _blocks(_chat_rows(dataset, rows, *others)):
                    writer.write(block)
        return writer.artifact


def file_name(split: str, kind: DatasetFormat) -> str:
    """The path of a split's file inside the dataset."""
    base = kind.removesuffix(_PARQUET)
    return f"{split}/{base}.{'jsonl' if base == kind else 'parquet'}"


def _chat_rows(
    dataset: Dataset, traces: Iterator[dict[str, Any]], examples: Iterator[dict[str, Any]]
) -> Iterator[bytes]:
    template = chat_template(dataset.spec.chat_template)
    for trace, example in zip(traces, examples, strict=True):
        asked = Message(role="user", content=trace["prompts"])
        replied = Message(role="assistant", content=template.frame.reply(example["response"]))
        messages = [
            {"role": message.role, "content": message.content}
            for message in template.with_system_instruction((asked, replied))
        ]
        metadata = {**trace["metadata"], "source_trace_id": trace["id"]}
        yield canonical_json({"id": trace["id"], "messages": messages, "metadata": metadata}) + b"\n"


def _blocks(lines: Iterator[bytes]) -> Iterator[bytes]:
    waiting: list[bytes] = []
    size = 0
    for line in lines:
        waiting.append(line)
        size += len(line)
        if size >= _BATCH_BYTES:
            yield b"".join(waiting)
            waiting, size = [], 0
    yield b"".join(waiting)

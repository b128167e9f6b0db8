"""The formats that are made of a dataset's stored files when somebody first asks for them.

A derived file is a function of a file that the manifest names and of the spec. Its digest is bound to the
dataset with the first reading, so all later ones give the same bytes, whatever version of this code serves
them.
"""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Protocol
from weakref import WeakValueDictionary

from tunix_rt_exporter.datasets.model import (
    CONVERSATION_EXAMPLE,
    BuildResult,
    Dataset,
    DatasetFormat,
    SplitFiles,
    TrainOn,
    learned_turns,
)
from tunix_rt_exporter.datasets.render import chat_message, example_of
from tunix_rt_exporter.datasets.write import stored_file
from tunix_rt_kit.artifacts import Artifact, ArtifactStore
from tunix_rt_kit.callers import holding
from tunix_rt_kit.canonical import CanonicalPart, canonical_json, canonical_line
from tunix_rt_kit.chat import ChatTemplate, Message
from tunix_rt_kit.chat.messages import template_message, template_tools
from tunix_rt_kit.errors import DataLoss
from tunix_rt_kit.values import StoredFile

if TYPE_CHECKING:
    from _thread import LockType

    from _typeshed import SupportsWrite

GROUP_ROWS: Final = 10_000
GROUP_BYTES: Final = 32 << 20
"""A row group of a Parquet file ends with the row that reaches either; until then it is held in memory."""

# Of a chat, the trace has the question and the training example the reply, which is thus what is trained on.
_SOURCES: Final[Mapping[DatasetFormat, Sequence[DatasetFormat]]] = {
    "chat": ("trace", "training_example"),
    "conversation_example": ("training_example",),
    "training_example_parquet": ("training_example",),
    "chat_parquet": ("chat",),
}
_PARQUET: Final = "_parquet"
_LINES_AT_ONCE: Final = 16


class LockPerKey:
    """A lock for each thing that one thread at a time may make, until nobody holds or awaits it."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._locks: WeakValueDictionary[Hashable, LockType] = WeakValueDictionary()

    def of(self, key: Hashable) -> LockType:
        """The lock of ``key``, the same for all who have it at the same time."""
        with self._guard:
            return self._locks.setdefault(key, threading.Lock())


class DerivedFiles(Protocol):
    """Where the digests of derived files are kept, by dataset."""

    def find(self, dataset_digest: str, path: str) -> StoredFile | None:
        """The file that was bound to this path of the dataset, or None."""

    def bind(self, dataset_digest: str, file: StoredFile) -> StoredFile:
        """Bind a file to its path unless one is bound already; returns the one that is."""


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
        base = kind.removesuffix(_PARQUET)
        path = f"{split.split}/{base}.{'jsonl' if base == kind else 'parquet'}"
        with holding(self._locks.of((result.digest, path))):
            bound = self._bound.find(result.digest, path)
            if bound is not None and self._store.exists(bound.digest):
                return bound
            sources = [self.get(dataset, result, split, source) for source in _SOURCES[kind]]
            file = stored_file(path, self._derive(dataset, sources, kind))
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
        splits = dataset.result.splits if dataset.result else ()
        conversations = any(CONVERSATION_EXAMPLE in split.files for split in splits)
        files = [self._store.iter_lines(source.digest) for source in sources]
        with self._store.writer() as writer:
            if kind.endswith(_PARQUET):
                rows = map(json.loads, files[0])
                write_parquet(writer, kind.removesuffix(_PARQUET), rows, conversations=conversations)
            else:
                is_chat = kind == "chat"
                lines = _chat_rows(dataset, *files) if is_chat else map(example_of, files[0])
                while block := b"".join(islice(lines, _LINES_AT_ONCE)):
                    writer.write(block)
        return writer.artifact


def _chat_rows(dataset: Dataset, traces: Iterator[bytes], examples: Iterator[bytes]) -> Iterator[bytes]:
    template = ChatTemplate.of(dataset.spec.chat_template)
    for line, example in zip(traces, examples, strict=True):
        trace = json.loads(line)
        if "messages" in trace:
            yield _conversation_chat(template, trace, dataset.spec.train_on)
            continue
        asked = Message(role="user", content=trace["prompts"])
        replied = Message(role="assistant", content=template.frame.reply(json.loads(example)["response"]))
        messages = [
            {"role": message.role, "content": message.content}
            for message in template.with_system_instruction((asked, replied))
        ]
        metadata = {**trace["metadata"], "source_trace_id": trace["id"]}
        yield canonical_json({"id": trace["id"], "messages": messages, "metadata": metadata}) + b"\n"


def _conversation_chat(template: ChatTemplate, trace: dict[str, Any], train_on: TrainOn) -> bytes:
    """A conversation's line: canonical JSON, but for arguments and tools, whose keys stand in their order.

    A turn of the assistant's that the dataset does not teach has ``"weight": 0``, as OpenAI's files have it.
    """
    messages = template.with_system_instruction([chat_message(message) for message in trace["messages"]])
    # An instruction may have become a message before them.
    added = len(messages) - len(trace["messages"])
    learned = {number + added for number in learned_turns(trace["messages"], train_on)}
    parts = {
        "messages": [
            template_message(message)
            | ({"weight": 0} if message.role == "assistant" and number not in learned else {})
            for number, message in enumerate(messages)
        ],
        "tools": template_tools(trace["tools"]) or [],
    }
    written = {name: CanonicalPart(_in_order(value)) for name, value in parts.items()}
    metadata = canonical_json({**trace["metadata"], "source_trace_id": trace["id"]})
    return canonical_line({"id": trace["id"], "metadata": CanonicalPart(metadata), **written})


def _in_order(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def write_parquet(
    sink: SupportsWrite[bytes], kind: str, rows: Iterable[dict[str, Any]], *, conversations: bool = False
) -> None:
    """Write rows of ``training_example`` or ``chat`` as a Parquet file into ``sink``.

    The same rows give the same bytes under the same version of Arrow. ``conversations`` says that there may
    be some, which have further columns. Raises what ``rows`` and ``sink`` do.
    """
    # Not at the top: it is heavy, and most exporters are never asked for Parquet.
    import pyarrow as pa
    import pyarrow.parquet as pq

    text = pa.string()
    # To Parquet it is a text; Arrow says to those who ask it, such as `datasets`, that the text is JSON, and
    # these make objects of it. As a struct it would have the keys of all rows in each.
    is_json = {"ARROW:extension:name": "arrow.json", "ARROW:extension:metadata": ""}
    function = pa.struct([("name", text), pa.field("arguments", text, metadata=is_json)])
    call = pa.struct([("id", text), ("type", text), ("function", function)])
    message = [("role", text), ("content", text)]
    if conversations:
        message += [("reasoning_content", text), ("tool_calls", pa.list_(call))]
        message += [("tool_call_id", text), ("name", text), ("weight", pa.int8())]
    tools = [pa.field("tools", text, metadata=is_json)] if conversations else []
    columns = {
        "training_example": [("prompt", text), ("response", text)],
        "chat": [("messages", pa.list_(pa.struct(message))), *tools],
    }
    # Metadata is free-form, and a column has one type: so it is a text, canonical JSON.
    schema = pa.schema([("id", text), *columns[kind], ("metadata", text)])
    with (
        pa.PythonFile(_Positioned(sink), mode="w") as file,
        pq.ParquetWriter(file, schema, compression="zstd", version="2.6") as writer,
    ):
        for group in _row_groups(rows):
            writer.write_table(pa.Table.from_pylist(group, schema=schema), row_group_size=GROUP_ROWS)


def _row_groups(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    group: list[dict[str, Any]] = []
    size = 0
    for row in rows:
        row["metadata"] = canonical_json(row["metadata"]).decode()
        _write_objects(row)
        group.append(row)
        size += sum(map(_size, row.values()))
        if len(group) == GROUP_ROWS or size >= GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _write_objects(row: dict[str, Any]) -> None:
    """Make JSON texts of a chat's tools and arguments, which have other keys in each row."""
    if "tools" in row:
        row["tools"] = _in_order(row["tools"]).decode()
    for message in row.get("messages", ()):
        for call in message.get("tool_calls", ()):
            call["function"]["arguments"] = _in_order(call["function"]["arguments"]).decode()


def _size(value: Any) -> int:
    """Characters of all texts in a value."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, int):
        return 0
    return sum(map(_size, value.values() if isinstance(value, dict) else value))


class _Positioned(io.RawIOBase):
    """A sink that knows how much it took, as Arrow asks of a file."""

    def __init__(self, sink: SupportsWrite[bytes]) -> None:
        self._sink = sink
        self._position = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def write(self, data: Any) -> int:
        self._sink.write(data)
        self._position += len(data)
        return len(data)

"""Rows as a Parquet file: streamed by row groups, the same bytes for the same rows and version of Arrow."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from tunix_rt_kit.artifacts import canonical_json

GROUP_ROWS: Final = 10_000
GROUP_BYTES: Final = 32 << 20
"""A row group ends with the row that reaches either; it is held in memory while it grows."""

# Metadata is free-form, and a column has one type: so it is a text, canonical JSON.
_METADATA: Final = ("metadata", pa.string())
_MESSAGE: Final = pa.struct([("role", pa.string()), ("content", pa.string())])
_SCHEMAS: Final[Mapping[str, Any]] = {
    "training_example": pa.schema(
        [("id", pa.string()), ("prompt", pa.string()), ("response", pa.string()), _METADATA]
    ),
    "chat": pa.schema([("id", pa.string()), ("messages", pa.list_(_MESSAGE)), _METADATA]),
}


class Sink(Protocol):
    """Takes the bytes of a file in order."""

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Append ``data``; returns its length in bytes."""


def write_parquet(sink: Sink, kind: str, rows: Iterable[dict[str, Any]]) -> None:
    """Write rows of ``training_example`` or ``chat`` into ``sink``; raises what ``rows`` and ``sink`` do."""
    schema = _SCHEMAS[kind]
    with (
        pa.PythonFile(_Positioned(sink), mode="w") as file,
        pq.ParquetWriter(file, schema, compression="zstd", version="2.6") as writer,
    ):
        for group in _groups(rows):
            writer.write_table(pa.Table.from_pylist(group, schema=schema), row_group_size=GROUP_ROWS)


def _groups(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    group: list[dict[str, Any]] = []
    size = 0
    for row in rows:
        row["metadata"] = canonical_json(row["metadata"]).decode()
        group.append(row)
        size += sum(_size(value) for value in row.values())
        if len(group) == GROUP_ROWS or size >= GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _size(value: Any) -> int:
    return len(value) if isinstance(value, str) else sum(len(message["content"]) for message in value)


class _Positioned(io.RawIOBase):
    """A sink that knows how much it took, as Arrow asks of a file."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._position = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def write(self, data: Any) -> int:
        self._position += len(data)
        return self._sink.write(data)

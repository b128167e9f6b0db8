"""Lines that an import leaves out: kept in a file, to be mended and imported again."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tunix_rt import v1
from tunix_rt.errors import TunixRtError
from tunix_rt.formats import BadLine, Record, trace_to_json
from tunix_rt.importing import ImportResult, RefusedTrace

# Bytes of lines that wait for the server's word. Of what comes beyond, the trace stands for its line.
_KEPT_BYTES: Final = 64 * 1024 * 1024


class BadLines:
    """Writes each bad line into a file as it is found. A context manager; no file is left if there is none.

    Raises OSError when the file cannot be made, TunixRtError when it cannot be written any more.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        # Unbuffered, so that an import that is killed leaves what it has found.
        self._file = path.open("wb", buffering=0)
        self._read = 0
        self._waiting: deque[tuple[int, int, bytes | None]] = deque()
        self._kept = 0
        self.count = 0

    def traces(self, records: Iterable[Record]) -> Iterator[v1.Trace]:
        """The good traces; their lines are remembered until the server has answered for them."""
        for record in records:
            if record.trace is None:
                self._write(BadLine(record.number, str(record.error), record.line))
                continue
            self._read += 1
            fits = self._kept + len(record.line) <= _KEPT_BYTES
            self._kept += len(record.line) if fits else 0
            self._waiting.append((self._read, record.number, record.line if fits else None))
            yield record.trace

    def refused(self, refused: RefusedTrace) -> None:
        """The server refused a trace."""
        number, line = self._origin(refused.position)
        text = trace_to_json(refused.trace).encode() if line is None else line
        self._write(BadLine(number, f"line {number}: the server refused it: {refused.reason}", text))

    def answered(self, result: ImportResult) -> None:
        """The server has answered for the first ``result.read`` traces."""
        while self._waiting and self._waiting[0][0] <= result.read:
            self._forget()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if not self.count and self._path.is_file():
            self._path.unlink()

    def _origin(self, position: int) -> tuple[int, bytes | None]:
        while True:
            place, number, line = self._forget()
            if place == position:
                return number, line

    def _forget(self) -> tuple[int, int, bytes | None]:
        entry = self._waiting.popleft()
        self._kept -= len(entry[2] or b"")
        return entry

    def _write(self, bad: BadLine) -> None:
        data = memoryview(bad.to_json().encode() + b"\n")
        try:
            while data:
                data = data[self._file.write(data) :]
        except OSError as error:
            raise TunixRtError(
                f"{self._path}: cannot be written: {error.strerror or error}", reason="ERRORS_FILE_FAILED"
            ) from error
        self.count += 1

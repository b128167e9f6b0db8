# Generated from aio/rpc/trace_stream.py by `make proto`: change that one.
"""The traces of a snapshot as they arrive. A broken connection is resumed after the last one."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import Final

from tunix_rt import v1
from tunix_rt.errors import UnavailableError

_MAX_BREAKS: Final = 3


class Snapshot:
    """How far a stream has come, so that it can be resumed after its last trace."""

    def __init__(self, filter: v1.TraceFilter | None, as_of: int) -> None:
        self._filter = filter
        self._last = 0
        self._breaks = 0
        self.as_of = as_of

    def request(self) -> v1.StreamTracesRequest:
        return v1.StreamTracesRequest(filter=self._filter, as_of=self.as_of, after_sequence=self._last)

    def take(self, part: v1.StreamTracesResponse) -> list[v1.Trace]:
        if part.WhichOneof("part") == "header":
            self.as_of = part.header.as_of
            return []
        # A server that is older than ``after_sequence`` sends all of them again.
        new = [trace for trace in part.batch.traces if trace.sequence > self._last]
        if new:
            self._last, self._breaks = new[-1].sequence, 0
        return new

    def check_may_resume(self, error: UnavailableError) -> None:
        self._breaks += 1
        if not self.as_of or self._breaks > _MAX_BREAKS:
            raise error


class TraceStream(Iterator[v1.Trace]):
    """The traces of a snapshot in the order of commits. A broken connection is resumed."""

    def __init__(
        self,
        open_stream: Callable[[v1.StreamTracesRequest], Iterator[v1.StreamTracesResponse]],
        snapshot: Snapshot,
    ) -> None:
        self._open = open_stream
        self._snapshot = snapshot
        self._batches = self._read()
        self._pending: Iterator[v1.Trace] = iter(())

    @property
    def as_of(self) -> int:
        """The snapshot that is streamed; asking for it again streams the same traces."""
        return self.start()

    def start(self) -> int:
        """Wait for the stream's header; returns ``as_of``."""
        if not self._snapshot.as_of:
            self._pending = iter(next(self._batches, []))
        return self._snapshot.as_of

    def close(self) -> None:
        """End the stream before its last trace."""
        self._batches.close()

    def __next__(self) -> v1.Trace:
        while True:
            for trace in self._pending:
                return trace
            self._pending = iter(next(self._batches))

    def _read(
        self,
    ) -> Generator[list[v1.Trace], None]:
        while True:
            try:
                for part in self._open(self._snapshot.request()):
                    yield self._snapshot.take(part)
                return
            except UnavailableError as error:
                self._snapshot.check_may_resume(error)

# Generated from aio/rpc/download.py by `make proto`: change that one.
"""Downloads: a header, then chunks; resumed where the connection broke, and verified by SHA-256."""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Callable, Iterator
from typing import BinaryIO, Final, TypeAlias

from tunix_rt import v1
from tunix_rt.errors import DataLossError, InternalError, UnavailableError
from tunix_rt.rpc.caller import patient

MAX_ATTEMPTS: Final = 6
# Seconds that all attempts may take together while the server is away.
PATIENCE: Final = 20.0
# Seconds before the second attempt; each further one waits twice as long.
FIRST_PAUSE: Final = 0.2
_LONGEST_PAUSE: Final = 3.0


# A message of a download stream: a header, or a chunk.
Part: TypeAlias = (
    v1.ReadDatasetResponse
    | v1.ReadDroppedRowsResponse
    | v1.ReadCheckpointFileResponse
    | v1.ReadComparisonReportResponse
)


class Received:
    """What has arrived of one file."""

    def __init__(self, sink: BinaryIO) -> None:
        self._sink = sink
        self._hash = hashlib.sha256()
        self._failures = 0
        self._header: v1.DownloadHeader | None = None
        self.offset = 0

    @property
    def header(self) -> v1.DownloadHeader:
        """The file's header; raises InternalError if the server has sent none."""
        if self._header is None:
            raise InternalError("the server sent a file without a header", reason="DOWNLOAD_MALFORMED")
        return self._header

    def feed(self, part: Part) -> None:
        """Take the next message."""
        if part.WhichOneof("part") == "header":
            if self._header is not None and self._header.digest != part.header.digest:
                raise DataLossError(
                    f"{part.header.file_name} changed while it was read", reason="DOWNLOAD_CHANGED"
                )
            self._header = part.header
            return
        self._sink.write(part.chunk)
        self._hash.update(part.chunk)
        self.offset += len(part.chunk)
        if part.chunk:
            self._failures = 0

    def is_complete(self) -> bool:
        """Whether all bytes are there; raises DataLossError unless they are the ones that were announced."""
        header = self.header
        if self.offset < header.size_bytes:
            return False
        digest = f"sha256:{self._hash.hexdigest()}"
        if self.offset > header.size_bytes or digest != header.digest:
            raise DataLossError(
                f"{header.file_name}: received {self.offset} bytes with digest {digest}, "
                f"the server announced {header.size_bytes} with {header.digest}",
                reason="DOWNLOAD_CORRUPT",
                metadata={"expected": header.digest, "received": digest},
            )
        return True

    def pause_after(self, error: UnavailableError) -> float:
        """Seconds until the next attempt; raises ``error`` after too many that brought no byte."""
        self._failures += 1
        if self._failures >= MAX_ATTEMPTS:
            raise error
        return min(FIRST_PAUSE * 2.0 ** (self._failures - 1), _LONGEST_PAUSE)

    def cut_short(self) -> UnavailableError:
        """The error of a stream that ended before the last byte."""
        return UnavailableError(
            f"the stream ended after {self.offset} of {self.header.size_bytes} bytes",
            reason="CONNECTION_BROKEN",
        )


def receive(open_at: Callable[[int], Iterator[Part]], sink: BinaryIO) -> v1.DownloadHeader:
    """Write a whole file into ``sink``.

    Args:
        open_at: opens the stream at an offset.
        sink: takes the bytes; discard them if this raises.

    Raises:
        DataLossError: the bytes are not those that the server announced.
        UnavailableError: the connection broke again and again.
    """
    received = Received(sink)
    while True:
        try:
            with patient(PATIENCE):
                for part in open_at(received.offset):
                    received.feed(part)
            if received.is_complete():
                return received.header
            raise received.cut_short()
        except UnavailableError as error:
            time.sleep(received.pause_after(error))


def receive_bytes(open_at: Callable[[int], Iterator[Part]]) -> bytes:
    """The whole file; raises as ``receive``."""
    sink = io.BytesIO()
    receive(open_at, sink)
    return sink.getvalue()

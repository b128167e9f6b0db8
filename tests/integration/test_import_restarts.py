"""An import into a server that is killed again and again: nothing is lost, nothing stands twice."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.program import Program
from support.threaded import free_address
from support.traces import trace
from tunix_rt import Client, ImportResult, import_traces

TRACES = 3_000
BATCH = 50


class Store:
    """A trace store that is a process of its own, always at the same address."""

    def __init__(self, folder: Path) -> None:
        self.address = free_address()
        self._folder = folder
        self.process: Program | None = None

    def start(self) -> None:
        arguments = ["--listen", self.address, "--data-dir", str(self._folder)]
        self.process = Program("tunix_rt_trace_store", arguments, self._folder / "server.log")

    def end(self, how: signal.Signals) -> int:
        assert self.process is not None
        self.process.send_signal(how)
        return self.process.wait(30)


@contextmanager
def restarted(
    store: Store, how: signal.Signals, times: int, stored: threading.Semaphore
) -> Iterator[list[int]]:
    """Ends and starts the server ``times`` times, each time when some more batches are stored."""
    exit_codes: list[int] = []

    def run() -> None:
        for _ in range(times):
            for _ in range(TRACES // BATCH // (times + 2)):
                if not stored.acquire(timeout=60):
                    return
            exit_codes.append(store.end(how))
            time.sleep(0.3)
            store.start()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield exit_codes
    finally:
        thread.join()


@pytest.mark.parametrize(
    ("how", "times", "exit_code"), [(signal.SIGKILL, 5, -signal.SIGKILL), (signal.SIGTERM, 2, 0)]
)
def test_each_trace_is_there_once(tmp_path: Path, how: signal.Signals, times: int, exit_code: int) -> None:
    store = Store(tmp_path)
    stored = threading.Semaphore(0)
    acknowledged: list[ImportResult] = []

    def progress(result: ImportResult) -> None:
        acknowledged.append(result)
        stored.release()

    store.start()
    try:
        with Client(store.address) as client:
            with restarted(store, how, times, stored) as exit_codes:
                result = import_traces(
                    client,
                    (trace(number) for number in range(TRACES)),
                    batch_size=BATCH,
                    in_flight=3,
                    # What is stored twice is not hidden.
                    duplicate_policy="keep",
                    on_progress=progress,
                )
            assert exit_codes == [exit_code] * times
            there = Counter(entry.prompt for entry in client.trace_store.stream_traces())
    finally:
        store.end(signal.SIGKILL)
    assert there == {trace(number).prompt: 1 for number in range(TRACES)}
    assert (result.read, result.created, result.skipped) == (TRACES, TRACES, 0)
    assert acknowledged[-1] == result

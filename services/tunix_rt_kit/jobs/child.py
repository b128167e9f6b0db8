"""The child's side of a job: its spec, its events, and when to end."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

from filelock import FileLock, Timeout

from tunix_rt_kit.canonical import canonical_json
from tunix_rt_kit.errors import DomainError
from tunix_rt_kit.jobs import files

_BEAT_S = 1.0


class JobCancelled(Exception):
    """Raised by ``JobDir.check_cancelled``; ends a worker whose job was cancelled."""


class JobDir:
    """A job's folder, seen from the child process that does the work."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._told_to_end = False
        self._events = -1

    @property
    def spec(self) -> dict[str, Any]:
        """What the parent wants done, as it was given to ``WorkerProcess.start``."""
        spec: dict[str, Any] = json.loads((self.path / files.SPEC).read_bytes())
        return spec

    def emit(self, kind: str, **fields: Any) -> None:
        """Append one event ``{"kind": kind, "time": seconds since 1970, **fields}``; the parent sees it at
        once.

        Raises InvalidArgument(JSON_NOT_CANONICAL) for a value that JSON cannot hold, such as NaN, and OSError
        if the event cannot be written: then nothing of it is.
        """
        line = canonical_json({"kind": kind, "time": time.time(), **fields}) + b"\n"
        if self._events < 0:
            self._events = self._open_events()
        written = os.write(self._events, line)
        if written < len(line):
            # The disk is full. The next event, if there is room by then, must not be glued to this one.
            os.ftruncate(self._events, os.fstat(self._events).st_size - written)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path / files.EVENTS))

    @property
    def cancel_requested(self) -> bool:
        """Whether the parent asked the job to stop, by its file or by SIGTERM."""
        return self._told_to_end or (self.path / files.CANCEL).exists()

    def check_cancelled(self) -> None:
        """Raise JobCancelled if the parent asked the job to stop."""
        if self.cancel_requested:
            raise JobCancelled

    def end_soon(self) -> None:
        """Act from now on as if the parent had asked the job to stop."""
        self._told_to_end = True

    def close(self) -> None:
        """Nothing more will be emitted."""
        if self._events >= 0:
            os.close(self._events)
            self._events = -1

    def _open_events(self) -> int:
        path = self.path / files.EVENTS
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        # A child killed in the middle of a line left its beginning; the next event must not be glued to it.
        os.ftruncate(descriptor, files.line_start(descriptor, os.fstat(descriptor).st_size))
        return descriptor


def run_worker(work: Callable[[JobDir], None], argv: Sequence[str] | None = None) -> int:
    """Do jobs as a child process: ``sys.exit(run_worker(main))`` in the module that ``WorkerProcess``
    starts.

    Takes the folder of a job from the first argument and does that job; then, of each line of its standard
    input, as long as there is one, the job in the folder that it names. Returns the exit code of the last.

    Keeps a second child out of a job's folder, and calls ``work``. The job's last event is ``{"kind": "exit",
    "code": ...}``: 0 when ``work`` came back, 3 when it raised JobCancelled, 1 when it failed. A failure is
    an event of its own before that: ``{"kind": "error", "code", "reason", "message", "metadata"}``; any
    exception but a domain error has the reason WORKER_FAILED, and its traceback is in the log. SIGTERM asks
    the job to stop; a second one ends the process at once. Where another child has the folder nothing can be
    told there: the process ends, with 4.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if len(arguments) != 1:
        print("usage: python -m MODULE JOB_DIR", file=sys.stderr)
        return 2
    code = _do(work, JobDir(arguments[0]))
    while code != files.LOCKED and (folder := sys.stdin.readline().rstrip("\n")):
        job = JobDir(folder)
        _write_log_to(job.path / files.LOG)
        code = _do(work, job)
    return code


def _do(work: Callable[[JobDir], None], job: JobDir) -> int:
    try:
        lock = FileLock(job.path / files.LOCK)
        lock.acquire(timeout=0)
    except Timeout:
        print(f"another worker has the job in {job.path}", file=sys.stderr)
        return files.LOCKED
    ended = threading.Event()
    with lock:
        _stop_on_sigterm(job)
        # The server that started this process may have been killed before it could.
        files.record_pid(job.path, os.getpid())
        threading.Thread(target=_beat, args=(job.path / files.HEARTBEAT, ended), daemon=True).start()
        code = _carry_out(work, job)
        ended.set()
    # Whoever sees this event may have another process take up the job, or give this one the next.
    job.emit("exit", code=code)
    job.close()
    return code


def _write_log_to(path: Path) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    os.close(descriptor)


def _carry_out(work: Callable[[JobDir], None], job: JobDir) -> int:
    try:
        work(job)
    except JobCancelled:
        return 3
    except DomainError as error:
        traceback.print_exc()
        job.emit(
            "error",
            code=error.code,
            reason=error.reason,
            message=error.message,
            metadata=error.metadata,
        )
        return 1
    except Exception as error:
        traceback.print_exc()
        message = " ".join(f"{type(error).__name__}: {error}".split())[:1000]
        job.emit("error", code="INTERNAL", reason="WORKER_FAILED", message=message, metadata={})
        return 1
    return 0


def _beat(path: Path, ended: threading.Event) -> None:
    """Touch ``path`` for as long as this process can run, until the job has ended."""
    while not ended.is_set():
        # A full disk is told of by whoever has something to write.
        with suppress(OSError):
            path.touch()
        ended.wait(_BEAT_S)


def _stop_on_sigterm(job: JobDir) -> None:
    def handle(number: int, _frame: FrameType | None) -> None:
        job.end_soon()
        signal.signal(number, signal.SIG_DFL)

    signal.signal(signal.SIGTERM, handle)

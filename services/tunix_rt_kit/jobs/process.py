"""The parent's side of a job: a child process in a folder of its own.

The folder holds ``spec.json`` (what to do), ``events.jsonl`` (one canonical JSON line per event of the
child), ``worker.log`` (its output), ``worker.pid`` (so that another server process can adopt it), ``owner``
(which server follows it), ``heartbeat`` (touched every second while the child can run) and ``cancel`` (the
wish that it stops). The child outlives the server that started it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import psutil
from filelock import FileLock, Timeout

from tunix_rt_kit.callers import check
from tunix_rt_kit.canonical import canonical_json
from tunix_rt_kit.errors import DomainError, FailedPrecondition
from tunix_rt_kit.jobs import files
from tunix_rt_kit.jobs.files import passed_on
from tunix_rt_kit.regular_files import open_regular, read_bytes, read_json

KILLED = -int(signal.SIGKILL)
STOPPED = 3
"""Exit code of a child that was asked to stop."""
_END_S = 10.0
_TAIL_BYTES = 256 * 1024
_TOKEN_BYTES = 1024
_ASKED_S: Final = 600.0
_LOOK_S: Final = 0.1


class WorkerProcess:
    """A child ``python -m MODULE JOB_DIR`` in its own session; its module ends with ``run_worker``.

    Args:
        module: what Python runs.
        job_dir: the job's folder; ``start`` makes it.
        env: added to what each child gets of this process's environment (``passed_on``).
        warm: the child waits for a further job when it has done this one, see ``WarmWorker``.
    """

    def __init__(
        self,
        module: str,
        job_dir: str | os.PathLike[str],
        *,
        env: Mapping[str, str] | None = None,
        warm: bool = False,
    ) -> None:
        self.module = module
        self.path = Path(job_dir)
        self._env = dict(env or {})
        self._warm = warm
        self._token = uuid.uuid4().hex
        self._child: subprocess.Popen[bytes] | None = None
        self._adopted: psutil.Process | None = None
        self._read_to = (0, 0)
        self._beat = (0, 0.0)

    def start(self, spec: Mapping[str, Any], warm: WarmWorker | None = None) -> None:
        """Write the spec and start the child, or give the job to a warm one. A wish to cancel from an earlier
        run is forgotten; events and log go on.

        Raises OSError if the folder cannot be written, and RuntimeError if the child is already running.
        """
        if self.running:
            raise RuntimeError(f"the worker in {self.path} is already running")
        self.path.mkdir(parents=True, exist_ok=True)
        for told_before in (files.CANCEL, files.HEARTBEAT):
            (self.path / told_before).unlink(missing_ok=True)
        self._own()
        files.write_atomically(self.path / files.SPEC, canonical_json(dict(spec)))
        self._child = warm.take(self.path) if warm else None
        if self._child is None:
            self._child = self._started()
        self._adopted = None
        self._beat = (0, time.monotonic())
        if self._recorded() is None:
            # Whoever else works here has the folder; our child ends when it finds that. By now it may have.
            with suppress(psutil.NoSuchProcess):
                files.record_pid(self.path, self._child.pid)

    def _started(self) -> subprocess.Popen[bytes]:
        with (self.path / files.LOG).open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", self.module, str(self.path.absolute())],
                stdin=subprocess.PIPE if self._warm else subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**passed_on(), **self._env},
            )

    def release(self) -> WarmWorker | None:
        """The child, which has done this job and waits for another; None if it does not."""
        child = self._child
        if child is None or child.stdin is None or child.poll() is not None:
            return None
        self._child = None
        return WarmWorker(child)

    def adopt(self, attempt: int | None = None) -> bool:
        """Take over the child that another process started in this folder; returns whether it still runs, or
        has told how it ended without being asked to stop.

        With ``attempt``, a child whose spec has another ``attempt`` is ended instead.
        """
        if self._child is None:
            self._adopted = self._recorded()
        if attempt is not None and self._attempt() != attempt:
            self.kill()
            return False
        if self._adopted is not None:
            self._own()
        self._beat = (0, time.monotonic())
        return self.poll() not in (KILLED, STOPPED)

    def found(self) -> int | None:
        """The ``attempt`` in the spec of the child that works in this folder, whichever server follows it;
        None if there is none. ``kill`` ends that child."""
        # A warm worker whose last job this was may do another one by now.
        self._adopted = self._recorded() if self._is_locked() else None
        # In this order: a child that is started meanwhile is not taken for the one of an earlier spec.
        return None if self._adopted is None else self._attempt()

    @property
    def owned(self) -> bool:
        """Whether no other process has started or adopted a child in this folder since this one did."""
        with suppress(FileNotFoundError):
            return read_bytes(self.path / files.OWNER, _TOKEN_BYTES).decode("utf-8") == self._token
        return False

    def _is_locked(self) -> bool:
        try:
            with FileLock(self.path / files.LOCK, timeout=0):
                return False
        except Timeout:
            return True

    def _own(self) -> None:
        files.write_atomically(self.path / files.OWNER, self._token.encode())

    def _attempt(self) -> int | None:
        with suppress(FileNotFoundError):
            attempt: int | None = read_json(self.path / files.SPEC).get("attempt")
            return attempt
        return None

    @property
    def running(self) -> bool:
        """Whether the child was started or adopted and has not ended."""
        return (self._child is not None or self._adopted is not None) and self.poll() is None

    @property
    def pid(self) -> int | None:
        """The child's process id, or None before ``start`` or ``adopt``."""
        process = self._child or self._adopted
        return None if process is None else process.pid

    def poll(self) -> int | None:
        """None while the child runs, then its exit code (negative: the signal that ended it).

        The exit code of an adopted child is the one in its last event; without that event it was killed (-9).
        """
        if self._child is not None:
            return self._child.poll()
        if self._adopted is not None and files.alive(self._adopted):
            return None
        last = self._last_event()
        if last is not None and last["kind"] == "exit":
            return int(last["code"])
        return KILLED

    def wait(self, timeout_s: float, is_enough: Callable[[], bool] = lambda: False) -> int | None:
        """Wait until the child has ended, at most ``timeout_s`` seconds, or ``is_enough``; returns as
        ``poll``."""
        end = time.monotonic() + timeout_s
        while (code := self.poll()) is None and time.monotonic() < end and not is_enough():
            time.sleep(0.02)
        return code

    def silent_s(self) -> float:
        """Seconds since the child's heartbeat was last seen to change, by those who called this, or since it
        was started or adopted. A child that is stopped or stuck is silent, one that computes is not."""
        now, beat = time.monotonic(), self._beat[0]
        with suppress(FileNotFoundError):
            beat = (self.path / files.HEARTBEAT).stat().st_mtime_ns
        if beat != self._beat[0]:
            self._beat = (beat, now)
        return now - self._beat[1]

    def cancel(self) -> None:
        """Ask the child to stop at its next opportunity; its JobDir then says ``cancel_requested``."""
        (self.path / files.CANCEL).touch()

    def kill(self) -> None:
        """End the child and everything that it started, at once. Nothing happens if it has ended."""
        if self.poll() is None and self.pid is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self.wait(10.0)

    def log_tail(self, lines: int = 20) -> list[str]:
        """The last lines of what the child wrote to its output."""
        with suppress(FileNotFoundError), open_regular(self.path / files.LOG) as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - _TAIL_BYTES))
            return log.read().decode("utf-8", "replace").splitlines()[-lines:]
        return []

    def events(self, from_line: int = 0, most_bytes: int = -1) -> list[dict[str, Any]]:
        """The child's events from number ``from_line`` on (the first is 0), as far as they are wholly
        written, and no more than lie in ``most_bytes`` (-1: all) and in the line that these end in.

        Reading on where the last call ended costs only what is new.
        """
        line, offset = self._read_to if self._read_to[0] == from_line else (0, 0)
        if line < from_line:
            most_bytes = -1
        try:
            with open_regular(self.path / files.EVENTS) as file:
                file.seek(offset)
                data = file.read(most_bytes) + file.readline()
        except FileNotFoundError:
            return []
        whole = data[: data.rfind(b"\n") + 1]
        rows = whole.splitlines()
        self._read_to = (line + len(rows), offset + len(whole))
        return [json.loads(row) for row in rows[max(0, from_line - line) :]]

    def _last_event(self) -> dict[str, Any] | None:
        with suppress(FileNotFoundError), open_regular(self.path / files.EVENTS) as file:
            end = files.line_start(file.fileno(), os.fstat(file.fileno()).st_size)
            if end:
                file.seek(files.line_start(file.fileno(), end - 1))
                event: dict[str, Any] = json.loads(file.readline())
                return event
        return None

    def _recorded(self) -> psutil.Process | None:
        with suppress(FileNotFoundError):
            record = read_json(self.path / files.PID)
            return files.recorded_process(record)
        return None


def running_children(root: Path, module: str) -> Iterator[tuple[str, int, WorkerProcess]]:
    """The children that work in folders of ``root``, whichever server follows them: folder's name, attempt
    and process of each."""
    for record in sorted(root.glob(f"*/{files.PID}")):
        process = WorkerProcess(module, record.parent)
        # One folder that somebody damaged keeps no server from its start.
        with suppress(OSError, ValueError, LookupError):
            attempt = process.found()
            if attempt is not None:
                yield record.parent.name, attempt, process


class WarmWorker:
    """A child that has done a job, and waits for the next on its standard input.

    It ends when nobody holds that any more: with this process, or when this object is closed.
    """

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        self._child = child

    def take(self, job_dir: Path) -> subprocess.Popen[bytes] | None:
        """Give it the job in a folder; returns the child, or None if it has ended."""
        stdin = self._child.stdin
        if stdin is None or self._child.poll() is not None:
            return None
        try:
            stdin.write(f"{job_dir.absolute()}\n".encode())
            stdin.flush()
        except OSError:
            self.close()
            return None
        return self._child

    def close(self) -> None:
        """Let it end, and end it if it does not."""
        if self._child.stdin is not None:
            with suppress(OSError):
                self._child.stdin.close()
        try:
            self._child.wait(_END_S)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(self._child.pid, signal.SIGKILL)
            self._child.wait()


def told_once(
    module: str, parent: Path, spec: Mapping[str, Any], kind: str, env: Mapping[str, str]
) -> dict[str, Any]:
    """What a child of ``module`` tells as its event ``kind``; its folder in ``parent`` is gone afterwards.

    It ends with the caller. Raises DomainError as the child did, and FailedPrecondition where it tells
    nothing, or takes more than ten minutes.
    """
    parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=parent, prefix="asked-") as folder:
        child = WorkerProcess(module, Path(folder), env=env)
        child.start({**spec, "attempt": 1})
        try:
            end = time.monotonic() + _ASKED_S
            while child.poll() is None and time.monotonic() < end:
                check()
                time.sleep(_LOOK_S)
        finally:
            child.kill()
        told = {event["kind"]: event for event in child.events()}
        if kind in told:
            return {name: value for name, value in told[kind].items() if name not in ("kind", "time")}
        if "error" in told:
            raise _error_of(told["error"])
        log = " ".join(child.log_tail(1))[:200]
        raise FailedPrecondition(f"the process that measures told no {kind}: {log}", reason="WORKER_FAILED")


def _error_of(event: Mapping[str, Any]) -> DomainError:
    kinds = {error.code: error for error in DomainError.__subclasses__()}
    error = kinds.get(event["code"], FailedPrecondition)
    return error(event["message"], reason=event["reason"], metadata=event.get("metadata"))

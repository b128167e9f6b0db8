"""The files of a job's folder, as parent and child know them."""

from __future__ import annotations

import os
import uuid
from contextlib import suppress
from pathlib import Path

import psutil

from tunix_rt_kit.artifacts.canonical import canonical_json

SPEC = "spec.json"
EVENTS = "events.jsonl"
LOG = "worker.log"
PID = "worker.pid"
LOCK = "worker.lock"
CANCEL = "cancel"
HEARTBEAT = "heartbeat"
OWNER = "owner"
_BLOCK = 1 << 16
_SAME_START_S = 2.0


def write_atomically(path: Path, data: bytes) -> None:
    """Make ``path`` hold ``data``; a crash leaves the old content or the new one. Raises OSError."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def record_pid(folder: Path, pid: int) -> None:
    """Write down that the process ``pid`` does the job, with its start, for ids are given anew. Raises
    OSError, and psutil.NoSuchProcess if it has ended."""
    record = {"pid": pid, "start_time": psutil.Process(pid).create_time()}
    write_atomically(folder / PID, canonical_json(record))


def same_process(pid: int, start_time: float) -> psutil.Process | None:
    """The process ``pid`` that began at ``start_time``; None if it has ended, whoever has its id by now."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        if abs(process.create_time() - start_time) < _SAME_START_S and alive(process):
            return process
    return None


def alive(process: psutil.Process) -> bool:
    """Whether a process has not ended."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def line_start(descriptor: int, position: int) -> int:
    """Where in a file the line begins that ``position`` lies in: after the last line break before it."""
    while position:
        begin = max(0, position - _BLOCK)
        found = os.pread(descriptor, position - begin, begin).rfind(b"\n")
        if found >= 0:
            return begin + found + 1
        position = begin
    return 0

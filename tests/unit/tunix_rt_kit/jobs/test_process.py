"""Child processes: what they report, and how they end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from support.timing import PATIENCE_S, eventually
from tunix_rt_kit.errors import FailedPrecondition, InvalidArgument
from tunix_rt_kit.jobs.child import JobDir
from tunix_rt_kit.jobs.child_jobs import end_left_behind
from tunix_rt_kit.jobs.files import LOCKED
from tunix_rt_kit.jobs.process import WarmWorker, WorkerProcess, running_children, told_once
from tunix_rt_kit.values import JobState

ENVIRONMENT = {"PYTHONPATH": os.pathsep.join(sys.path)}


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[WorkerProcess]:
    worker = WorkerProcess("support.worker", tmp_path / "job", env=ENVIRONMENT)
    yield worker
    if worker.pid is not None:
        worker.kill()


def kinds(worker: WorkerProcess) -> list[str]:
    return [event["kind"] for event in worker.events()]


def test_a_worker_reports_and_ends_well(worker: WorkerProcess) -> None:
    worker.start({"what": "count", "events": 3})
    assert worker.wait(PATIENCE_S) == 0
    assert kinds(worker) == ["step", "step", "step", "exit"]
    assert [event.get("number") for event in worker.events(1)] == [1, 2, None]
    assert worker.events()[0]["text"] == "é" and worker.events()[0]["time"] <= time.time()
    assert worker.log_tail() == ["working on count"]
    assert not worker.running


def test_events_are_read_on_from_where_the_last_call_ended(worker: WorkerProcess) -> None:
    worker.start({"what": "wait", "events": 2})
    eventually(lambda: kinds(worker) == ["step", "step", "waiting"])
    assert worker.events(3) == []
    worker.cancel()
    assert worker.wait(PATIENCE_S) == 3
    assert [event["kind"] for event in worker.events(3)] == ["exit"]
    assert worker.events(4) == []
    assert len(worker.events(0)) == 4


def test_a_domain_error_is_reported_with_its_reason(worker: WorkerProcess) -> None:
    worker.start({"what": "fail"})
    assert worker.wait(PATIENCE_S) == 1
    error = worker.events()[0]
    assert (error["kind"], error["code"], error["reason"]) == ("error", "NOT_FOUND", "THING_NOT_FOUND")
    assert (error["message"], error["metadata"]) == ("nothing there", {"thing": "x"})


def test_any_other_exception_is_reported_and_its_traceback_is_in_the_log(worker: WorkerProcess) -> None:
    worker.start({"what": "bug"})
    assert worker.wait(PATIENCE_S) == 1
    error = worker.events()[0]
    assert (error["reason"], error["message"]) == ("WORKER_FAILED", "KeyError: 'secret'")
    assert worker.log_tail(1) == ["KeyError: 'secret'"]
    assert any("Traceback" in line for line in worker.log_tail())


def test_sigterm_asks_the_worker_to_stop(worker: WorkerProcess) -> None:
    worker.start({"what": "wait"})
    eventually(lambda: "waiting" in kinds(worker))
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGTERM)
    assert worker.wait(PATIENCE_S) == 3


def test_kill_ends_the_whole_family(worker: WorkerProcess) -> None:
    worker.start({"what": "family"})
    eventually(lambda: "waiting" in kinds(worker))
    grandchild = worker.events()[0]["pid"]
    worker.kill()
    assert worker.poll() == -signal.SIGKILL
    eventually(
        lambda: (
            not psutil.pid_exists(grandchild) or psutil.Process(grandchild).status() == psutil.STATUS_ZOMBIE
        )
    )
    worker.kill()


def test_a_running_worker_is_not_started_again(worker: WorkerProcess) -> None:
    worker.start({"what": "wait"})
    with pytest.raises(RuntimeError, match="already running"):
        worker.start({"what": "wait"})


def test_a_second_process_stays_out_of_the_folder(worker: WorkerProcess) -> None:
    worker.start({"what": "wait"})
    eventually(lambda: "waiting" in kinds(worker))
    second = subprocess.run(
        [sys.executable, "-m", "support.worker", str(worker.path)],
        env={**os.environ, **ENVIRONMENT},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert second.returncode == 4
    assert second.stderr.startswith("another worker has the job in")
    assert worker.running


def test_a_worker_may_be_started_again_after_a_cancel(worker: WorkerProcess) -> None:
    worker.start({"what": "wait"})
    eventually(lambda: "waiting" in kinds(worker))
    worker.cancel()
    assert worker.wait(PATIENCE_S) == 3
    worker.start({"what": "count", "events": 1})
    assert worker.wait(PATIENCE_S) == 0
    assert kinds(worker) == ["waiting", "exit", "step", "exit"]


LAUNCH = """
import sys, time
from tunix_rt_kit.jobs.process import WorkerProcess
worker = WorkerProcess("support.worker", sys.argv[1])
worker.start({"what": "wait"})
print("started", flush=True)
time.sleep(60)
"""


def launch_elsewhere(folder: Path) -> None:
    """Start a worker from another process, which is then killed."""
    server = subprocess.Popen(
        [sys.executable, "-c", LAUNCH, str(folder)],
        env={**os.environ, **ENVIRONMENT},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None and server.stdout.readline() == "started\n"
    server.kill()
    server.wait()
    server.stdout.close()


def test_a_worker_outlives_its_server_and_is_adopted_by_the_next(worker: WorkerProcess) -> None:
    launch_elsewhere(worker.path)
    assert worker.adopt()
    eventually(lambda: "waiting" in kinds(worker))
    assert worker.poll() is None
    worker.cancel()
    assert worker.wait(PATIENCE_S) == 3


@pytest.mark.parametrize("clock_set_by", [0, 3600])
def test_a_worker_is_found_though_the_clock_was_set(worker: WorkerProcess, clock_set_by: int) -> None:
    worker.start({"what": "wait", "attempt": 7})
    eventually(lambda: "waiting" in kinds(worker))
    record = json.loads((worker.path / "worker.pid").read_text())
    record["start_time"] += clock_set_by
    (worker.path / "worker.pid").write_text(json.dumps(record))
    found = list(running_children(worker.path.parent, "support.worker"))
    assert [(name, attempt) for name, attempt, _ in found] == [("job", 7)]


def test_a_child_that_has_another_job_by_now_is_not_found_in_its_first_folder(tmp_path: Path) -> None:
    first, second = (
        WorkerProcess("support.worker", tmp_path / name, env=ENVIRONMENT, warm=True) for name in "ab"
    )
    first.start({"what": "count", "events": 1, "attempt": 1})
    eventually(lambda: "exit" in kinds(first))
    second.start({"what": "wait", "attempt": 2}, first.release())
    eventually(lambda: "waiting" in kinds(second))
    assert [name for name, _, _ in running_children(tmp_path, "support.worker")] == ["b"]
    second.kill()


def test_children_whose_jobs_went_on_elsewhere_are_ended(worker: WorkerProcess) -> None:
    worker.start({"what": "wait", "attempt": 1})
    eventually(lambda: "waiting" in kinds(worker))
    for state, attempts, runs in [("RUNNING", 1, True), ("RUNNING", 2, False)]:
        job = SimpleNamespace(state=JobState(state), attempt_count=attempts)
        end_left_behind(worker.path.parent, "support.worker", lambda _, job=job: job)  # type: ignore[misc]
        assert worker.running is runs


def test_a_child_that_finds_another_in_the_folder_does_not_put_its_own_name_there(
    worker: WorkerProcess,
) -> None:
    worker.start({"what": "wait"})
    eventually(lambda: "waiting" in kinds(worker))
    late = WorkerProcess("support.worker", worker.path, env=ENVIRONMENT)
    late.start({"what": "wait"})
    assert late.wait(PATIENCE_S) == LOCKED
    assert json.loads((worker.path / "worker.pid").read_text())["pid"] == worker.pid


def test_an_adopted_worker_can_be_killed(worker: WorkerProcess) -> None:
    launch_elsewhere(worker.path)
    assert worker.adopt()
    worker.kill()
    assert worker.poll() == -signal.SIGKILL
    again = WorkerProcess("support.worker", worker.path)
    assert not again.adopt()


def test_nothing_is_adopted_where_no_worker_ran_or_its_number_went_to_another_process(
    worker: WorkerProcess,
) -> None:
    assert not worker.adopt()
    worker.path.mkdir()
    (worker.path / "worker.pid").write_text(json.dumps({"pid": os.getpid(), "start_time": 5.0}))
    assert not worker.adopt()


@pytest.mark.parametrize("size", [4, 300_000])
def test_a_line_that_a_killed_child_left_half_written_is_dropped(worker: WorkerProcess, size: int) -> None:
    worker.path.mkdir()
    (worker.path / "events.jsonl").write_bytes(b'{"kind":"old","time":1}\n{"kind":"' + b"t" * size)
    assert kinds(worker) == ["old"]
    JobDir(worker.path).emit("new")
    assert kinds(worker) == ["old", "new"]


def test_an_event_that_json_cannot_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument):
        JobDir(tmp_path).emit("loss", value=float("nan"))
    assert not (tmp_path / "events.jsonl").exists()


def ended(worker: WorkerProcess) -> bool:
    return kinds(worker)[-1:] == ["exit"]


def kept_after_a_job(folder: Path) -> tuple[WorkerProcess, WarmWorker]:
    first = WorkerProcess("support.worker", folder, env=ENVIRONMENT, warm=True)
    first.start({"what": "count", "events": 1})
    eventually(lambda: ended(first))
    child = first.release()
    assert child is not None
    return first, child


def test_a_kept_child_does_the_next_job_in_a_folder_of_its_own(tmp_path: Path) -> None:
    first, child = kept_after_a_job(tmp_path / "first")
    second = WorkerProcess("support.worker", tmp_path / "second", env=ENVIRONMENT, warm=True)
    second.start({"what": "fail", "events": 2}, child)
    eventually(lambda: ended(second))
    assert kinds(first) == ["step", "exit"]
    assert kinds(second) == ["step", "step", "error", "exit"]
    assert [event["code"] for event in second.events() if event["kind"] == "exit"] == [1]
    assert first.log_tail() == ["working on count"]
    assert second.log_tail()[0] == "working on fail"
    pids = [json.loads((folder.path / "worker.pid").read_text())["pid"] for folder in (first, second)]
    assert pids[0] == pids[1] == second.pid
    second.kill()
    assert not psutil.pid_exists(pids[0])


def test_a_kept_child_can_be_told_to_stop_its_second_job(tmp_path: Path) -> None:
    _, child = kept_after_a_job(tmp_path / "first")
    second = WorkerProcess("support.worker", tmp_path / "second", env=ENVIRONMENT, warm=True)
    second.start({"what": "wait"}, child)
    eventually(lambda: kinds(second) == ["waiting"])
    assert second.pid is not None
    os.kill(second.pid, signal.SIGTERM)
    eventually(lambda: ended(second))
    assert [event["code"] for event in second.events() if event["kind"] == "exit"] == [3]
    second.kill()


def test_a_kept_child_that_has_ended_is_replaced(tmp_path: Path) -> None:
    first, child = kept_after_a_job(tmp_path / "first")
    child.close()
    second = WorkerProcess("support.worker", tmp_path / "second", env=ENVIRONMENT)
    second.start({"what": "count", "events": 1}, child)
    assert second.wait(PATIENCE_S) == 0
    assert not first.running


def test_events_are_read_a_few_at_a_time_where_few_bytes_are_asked_for(tmp_path: Path) -> None:
    job = JobDir(tmp_path)
    for number in range(5):
        job.emit("step", number=number)
    worker = WorkerProcess("support.worker", tmp_path)
    read: list[Any] = []
    while fresh := worker.events(len(read), 1):
        assert len(fresh) == 1
        read += fresh
    assert [event["number"] for event in read] == [0, 1, 2, 3, 4]
    assert [event["number"] for event in worker.events(2, 1)] == [2, 3, 4]


def test_a_kept_child_ends_where_another_has_the_folder(tmp_path: Path) -> None:
    busy = WorkerProcess("support.worker", tmp_path / "busy", env=ENVIRONMENT)
    busy.start({"what": "wait"})
    eventually(lambda: kinds(busy) == ["waiting"])
    first = WorkerProcess("support.worker", tmp_path / "busy", env=ENVIRONMENT, warm=True)
    first.start({"what": "count"})
    assert first.wait(PATIENCE_S) == 4
    _, child = kept_after_a_job(tmp_path / "first")
    second = WorkerProcess("support.worker", tmp_path / "busy", env=ENVIRONMENT, warm=True)
    second.start({"what": "count"}, child)
    assert second.wait(PATIENCE_S) == 4
    assert second.log_tail(1)[0].startswith("another worker has the job in")
    assert kinds(busy) == ["waiting"]
    assert busy.running
    busy.kill()


def test_a_child_that_is_not_kept_cannot_be_released(worker: WorkerProcess) -> None:
    worker.start({"what": "count"})
    assert worker.wait(PATIENCE_S) == 0
    assert worker.release() is None


def test_a_kept_child_ends_with_its_server(tmp_path: Path) -> None:
    script = (
        "import sys, time; from tunix_rt_kit.jobs.process import WorkerProcess\n"
        "worker = WorkerProcess('support.worker', sys.argv[1], warm=True)\n"
        "worker.start({'what': 'count'})\n"
        "while not worker.events(): time.sleep(0.02)\n"
        "print(worker.pid, flush=True)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "job")],
        env={**os.environ, **ENVIRONMENT},
        capture_output=True,
        text=True,
        check=True,
    )
    eventually(lambda: not psutil.pid_exists(int(done.stdout)))


def asked(folder: Path, **spec: Any) -> dict[str, Any]:
    return told_once("support.asked_child", folder / "cache", spec, "speed", ENVIRONMENT)


def test_a_child_that_is_asked_tells_or_fails_and_leaves_nothing(tmp_path: Path) -> None:
    assert asked(tmp_path, told={"rows": 2}) == {"rows": 2}
    with pytest.raises(FailedPrecondition, match="it does not fit") as caught:
        asked(tmp_path, fails=True)
    assert (caught.value.reason, caught.value.metadata) == ("TOO_LARGE", {"size": "9"})
    with pytest.raises(FailedPrecondition, match="told no speed"):
        asked(tmp_path)
    assert list((tmp_path / "cache").iterdir()) == []

"""The programs of the trace store, the exporter and the trainer, as a person or a container starts them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tunix_rt_kit.serving.health import check

PROGRAMS = ("tunix_rt_trace_store", "tunix_rt_exporter", "tunix_rt_trainer")


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", program, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment(),
    )


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


@pytest.fixture
def port() -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        number: int = taken.getsockname()[1]
    yield number


@pytest.mark.parametrize("program", PROGRAMS)
def test_serves_until_it_is_told_to_stop(program: str, port: int, tmp_path: Path) -> None:
    address = f"127.0.0.1:{port}"
    command = [
        sys.executable,
        "-m",
        program,
        "serve",
        "--listen",
        address,
        "--data-dir",
        str(tmp_path / "data"),
    ]
    with subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE, text=True) as server:
        end = time.monotonic() + 30
        while check(address, 1.0) != "SERVING" and time.monotonic() < end and server.poll() is None:
            pass
        assert check(address) == "SERVING"
        second = run(program, "--listen", address, "--data-dir", str(tmp_path / "other"))
        server.send_signal(signal.SIGTERM)
        assert server.wait(20) == 0
    assert second.returncode == 1
    (line,) = [text for text in second.stderr.splitlines() if not text.startswith("{")]
    assert "port is in use" in line


@pytest.mark.parametrize("program", PROGRAMS)
def test_migrates_postgresql(program: str, postgres_url: str, tmp_path: Path) -> None:
    options = ("--data-dir", str(tmp_path), "--database-url", postgres_url)
    assert run(program, "migrate", *options).returncode == 0
    assert run(program, "migrate", *options).returncode == 0


@pytest.mark.parametrize("program", PROGRAMS)
def test_bad_starts_are_one_clear_line(program: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for arguments, code, words in (
        (("--data-dir", str(file)), 1, str(file)),
        (("--database-url", "mysql://x/y"), 1, "not supported"),
        (("--listen", "nowhere"), 2, "host:port"),
    ):
        found = run(program, *arguments)
        assert found.returncode == code
        (line,) = found.stderr.splitlines()
        assert words in line

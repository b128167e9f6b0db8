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

from support.program import Program
from tunix_rt_kit.serving.health import check

PROGRAMS = ("tunix_rt_trace_store", "tunix_rt_exporter", "tunix_rt_trainer")


def run(log: Path, program: str, *arguments: str) -> tuple[int, list[str]]:
    """The program's exit code, and the lines that it wrote to ``log``, a new file."""
    code = Program(program, arguments, log, environment()).wait(60)
    return code, log.read_text().splitlines()


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
        code, lines = run(
            tmp_path / "log", program, "--listen", address, "--data-dir", str(tmp_path / "other")
        )
        server.send_signal(signal.SIGTERM)
        assert server.wait(20) == 0
    assert code == 1
    (line,) = [text for text in lines if not text.startswith("{")]
    assert "port is in use" in line


@pytest.mark.parametrize("program", PROGRAMS)
def test_migrates_postgresql(program: str, postgres_url: str, tmp_path: Path) -> None:
    options = ("--data-dir", str(tmp_path), "--database-url", postgres_url)
    for log in ("first", "second"):
        code, lines = run(tmp_path / log, program, "migrate", *options)
        assert code == 0, lines


@pytest.mark.parametrize("program", PROGRAMS)
def test_bad_starts_are_one_clear_line(program: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for arguments, expected, words in (
        (("--data-dir", str(file)), 1, str(file)),
        (("--database-url", "mysql://x/y"), 1, "not supported"),
        (("--listen", "nowhere"), 2, "host:port"),
    ):
        code, (line,) = run(tmp_path / f"log-{words.replace('/', '-')}", program, *arguments)
        assert code == expected
        assert words in line
